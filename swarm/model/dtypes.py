"""The dtypes that are computed in, as torch names them."""

from __future__ import annotations

import torch

from swarm.bits import Bits

TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""By the keys of `swarm.bits.NUMBER_BYTES`."""


def numbers_of(dtype: str) -> torch.dtype:
    """Of a Plan's dtype: hidden states, KV, what is never quantized, and the scales of what is."""
    return TORCH_DTYPES[Bits.of(dtype).numbers]
