"""What is compiled where a C compiler was there at installation, for CPUs: products and what is between them. Torch does the rest."""
