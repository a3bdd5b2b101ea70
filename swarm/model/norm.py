"""RMSNorm (arXiv 1910.07467)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x` [R, H] over its root mean square, times `weight` [H]; reduced in fp32, in the dtype of `x`."""
    return F.rms_norm(x, weight.shape, weight, eps)
