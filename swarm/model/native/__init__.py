"""What is compiled where a C compiler was there at installation: products on CPUs, what is between them. Torch does the rest."""
