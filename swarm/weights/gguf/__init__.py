"""GGUF, llama.cpp's format of weights, metadata and tokenizer in one file."""
