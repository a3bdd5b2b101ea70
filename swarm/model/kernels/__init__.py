"""What runs on a card beside torch's own products: Triton kernels behind one port, each with a twin in plain torch."""
