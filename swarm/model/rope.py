"""Rotary position embedding (arXiv 2104.09864), halves rotated as Hugging Face checkpoints store them.

R: rows   N: heads   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Angles:
    """cos and sin of each row's angles, fp32; computed once a Stage call and used by all its Blocks."""

    cos: Tensor  # [R, 1, D]
    sin: Tensor  # [R, 1, D], its first half negated, so that rotating is one roll

    @classmethod
    def of(cls, positions: Tensor, head_dim: int, theta: float) -> Angles:
        """The angles of `positions` [R]: position x theta^(-2i/D) for i in 0..D/2."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
        angles = torch.outer(positions.float(), 1.0 / theta**exponents)  # [R, D/2]
        cos, sin = angles.cos(), angles.sin()
        return cls(torch.cat((cos, cos), -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate `x` [R, N, D] by each row's angles, in fp32; the result has the dtype of `x`."""
        wide = x.float()
        turned = torch.roll(wide, wide.shape[-1] // 2, -1)  # (x2, x1)
        return torch.addcmul(wide * self.cos, turned, self.sin).to(x.dtype)
