"""GPTQ and AWQ matrices, packed one code at a time as their formats define it, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
AWQ_PLACES = (0, 2, 4, 6, 1, 3, 5, 7)
"""The output, of eight neighbours, that is in a word's first code, its second, and so on."""


@dataclass(frozen=True)
class Packed:
    """Tensors by the last part of their names, and the weights [N, K] in fp64."""

    tensors: dict[str, Tensor]
    dense: npt.NDArray[np.float64]


def gptq(
    outputs: int, inputs: int, bits: int = 4, group: int = 128, act_order: bool = False, v2: bool = False, seed: int = 0
) -> Packed:
    """A random matrix as GPTQ packs it: codes along the inputs, zeros along the outputs and (before v2) less one."""
    rng = np.random.default_rng(seed)
    group = inputs if group == -1 else group
    groups = -(-inputs // group)
    q = rng.integers(0, 2**bits, (inputs, outputs))
    z = rng.integers(1, 2**bits, (groups, outputs))
    scales = rng.uniform(0.001, 0.02, (groups, outputs)).astype(np.float16)
    g_idx = np.arange(inputs) // group
    if act_order:
        g_idx = rng.permutation(g_idx)
    dense = np.array([[(q[k, n] - z[g_idx[k], n]) * float(scales[g_idx[k], n]) for k in range(inputs)] for n in range(outputs)])
    tensors = {
        "qweight": _words(q.T, bits).T.contiguous(),
        "qzeros": _words(z if v2 else z - 1, bits),
        "scales": torch.from_numpy(scales),
        "g_idx": torch.from_numpy(g_idx.astype(np.int32)),
    }
    return Packed(tensors, dense)


def awq(outputs: int, inputs: int, group: int = 128, seed: int = 0) -> Packed:
    """A random matrix as AWQ packs it: codes and zeros along the outputs, eight neighbours in an order of their own."""
    rng = np.random.default_rng(seed)
    group = inputs if group == -1 else group
    groups = -(-inputs // group)
    q, z = rng.integers(0, 16, (inputs, outputs)), rng.integers(0, 16, (groups, outputs))
    scales = rng.uniform(0.001, 0.02, (groups, outputs)).astype(np.float16)
    dense = np.array([[(q[k, n] - z[k // group, n]) * float(scales[k // group, n]) for k in range(inputs)] for n in range(outputs)])
    places = np.array([8 * (n // 8) + AWQ_PLACES[n % 8] for n in range(outputs)])
    tensors = {"qweight": _words(q[:, places], 4), "qzeros": _words(z[:, places], 4), "scales": torch.from_numpy(scales)}
    return Packed(tensors, dense)


def _words(codes: Ints, bits: int) -> Tensor:
    """Codes along each row, the first in a word's lowest bits. [r, c] -> int32 [r, c * bits / 32]"""
    per = 32 // bits
    words = np.zeros((codes.shape[0], codes.shape[1] // per), np.uint64)
    for column in range(codes.shape[1]):
        words[:, column // per] |= codes[:, column].astype(np.uint64) << np.uint64(bits * (column % per))
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))
