"""The decoder as the paper writes it (Mixtral, arXiv 2401.04088), in pure torch: no network, no Ray, no files."""
