"""swarm runs mixture-of-experts models across the mismatched GPUs that people already own."""

__version__ = "0.1.0"
