"""The dtypes of a Plan, as torch names them."""

from __future__ import annotations

import torch

TORCH_DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.bfloat16,
    "int4": torch.bfloat16,
}
"""What is computed in: hidden states, KV, and the scales of matrices that are quantized."""
