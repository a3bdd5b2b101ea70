"""Quantized weights on this Rig's disk: made once, mapped into memory at every later start."""
