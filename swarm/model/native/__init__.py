"""What is compiled where a C compiler was there at installation: products of few rows, unpacking. Optional: torch does the rest."""
