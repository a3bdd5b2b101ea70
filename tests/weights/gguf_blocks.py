"""Blocks of every kind that GGUF has: any bytes, with finite scales, as the gguf package cannot write all kinds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

SCALES_AT = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2),
    "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip
"""Where a block's fp16 numbers are."""
CODED = tuple(kind for kind in SCALES_AT if kind not in ("Q2_K", "Q3_K"))

Bytes = npt.NDArray[np.uint8]


def sizes(kind: str) -> tuple[int, int]:
    """Weights and bytes of a block."""
    weights, num_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return weights, num_bytes


def with_scales(blocks: Bytes, kind: str, *scales: float) -> Bytes:
    """The same blocks [n, bytes], with these numbers for d and dmin (or m)."""
    blocks = blocks.copy()
    for at, scale in zip(SCALES_AT[kind], scales, strict=False):
        blocks[:, at : at + 2] = np.array([scale], np.float16).view(np.uint8)
    return blocks


def random_rows(kind: str, rows: int, columns: int, seed: int = 0) -> Bytes:
    """A matrix of weights of about 0.02, as bytes [rows, bytes of a row]."""
    rng = np.random.default_rng(seed)
    weights, num_bytes = sizes(kind)
    blocks = rng.integers(0, 256, (rows * columns // weights, num_bytes), np.uint8)
    small = 0.02 / {"Q8_0": 128, "Q6_K": 32 * 128, "Q4_K": 16 * 64, "Q5_K": 32 * 64, "Q2_K": 4 * 16, "Q3_K": 4 * 32}.get(kind, 16)
    return with_scales(blocks, kind, small, small).reshape(rows, -1)
