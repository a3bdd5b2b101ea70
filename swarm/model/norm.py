"""RMSNorm (arXiv 1910.07467), and LayerNorm (arXiv 1607.06450) without a bias, which DBRX has instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from swarm.model.native.halves import halves

Norm = Callable[[Tensor, Tensor, float], Tensor]
"""Rows [R, H], weight [H] and epsilon to rows [R, H]."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x` [R, H] over its root mean square, times `weight` [H]; reduced in fp32, in the dtype of `x`."""
    here = halves()
    at_once = here.norm(x, weight, eps) if here else None
    if at_once is not None:
        return at_once
    return F.rms_norm(x, weight.shape, weight, eps)


def layer_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x` [R, H] less its mean, over its deviation, times `weight` [H]; reduced in fp32, in the dtype of `x`."""
    return F.layer_norm(x, weight.shape, weight, None, eps)


NORMS: Mapping[str, Norm] = {"rms": rms_norm, "layer": layer_norm}
"""By what `ModelConfig.norm` says."""
