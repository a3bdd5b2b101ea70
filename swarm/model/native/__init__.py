"""What is compiled where a C compiler was there at installation: a CPU's products, and what is between them. Torch does the rest."""
