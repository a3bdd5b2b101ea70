"""Attention as a row that is alone on a CPU meets it, and matrices: what is between products finds the caches full of weights.

H: hidden   N: outputs   K: inputs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.model.attention import Attention
from swarm.model.experts import ExpertWeights
from swarm.model.native.halves import MULTIPLE, AttentionHalf, Halves, Matrix, halves
from swarm.model.native.one_row import one_row, part_of
from swarm.model.native.places import Places
from swarm.model.norm import Norm, rms_norm
from swarm.model.quant.dots import dots
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.rope import Angles

MOST_BYTES = 1 << 19
"""What is between an expert's products lies on a thread's stack."""


@dataclass(frozen=True)
class AttentionAlone:
    """A Block's attention with its norm, in one call."""

    half: AttentionHalf
    calls: Halves
    kept: tuple[object, ...]
    """Whose memory `half` points at."""

    @classmethod
    def of(cls, attention: Attention, norm: Norm, weight: Tensor, eps: float) -> AttentionAlone | None:
        """None where this CPU has no such call, or the family or its form is another one."""
        calls, a = halves(), attention
        wqkv, wo = matrix_of(a.wqkv), matrix_of(a.wo)
        plain = a.bqkv is None and a.bo is None and a.qk_norm is None and a.sinks is None and not a.clip
        if calls is None or wqkv is None or wo is None or not plain or not fits(norm, weight) or a.head_dim % MULTIPLE:
            return None
        return cls(AttentionHalf(a.heads, wqkv, wo, weight.data_ptr(), eps), calls, (a.wqkv, a.wo, weight))

    def takes(self, h: Tensor) -> bool:
        """Whether rows `h` [R, H] are one that is alone here."""
        return self.calls.takes(h)

    def forward(self, h: Tensor, place: Places, angles: Angles) -> Tensor:
        """`h` [1, H] and what attention adds to it, [1, H]; its key and value are in their page afterwards."""
        return self.calls.attention(self.half, h, place, angles.cos, angles.sin)


def matrix_of(w: object) -> Matrix | None:
    """A weight [N, K] as one row meets it; None where that is done elsewhere."""
    if isinstance(w, Int4Matrix):
        return _in_4_bits(w)
    if isinstance(w, Int8Matrix):
        return _numbers(w.q, w.scale) if w.columns == w.q.shape[1] and are_bf16(w.scale) else None
    return _numbers(w, None) if isinstance(w, Tensor) else None


def _in_4_bits(w: Int4Matrix) -> Matrix | None:
    few = dots()
    if few is None or not few.reads(w.packed, w.group) or not are_bf16(w.scales):
        return None
    whole = w.packed.shape == (w.rows, w.columns // 2)  # nothing was added to its shape
    return Matrix((w.columns, w.rows, w.group, few.height), _where(w.packed, w.scales)) if whole else None


def _numbers(w: Tensor, scale: Tensor | None) -> Matrix | None:
    one = one_row()
    if one is None or w.device.type != "cpu" or not one.reads(w):
        return None
    return Matrix((w.shape[1], w.shape[0], 0, part_of(w)), _where(w, scale))


def _where(first: Tensor, second: Tensor | None) -> tuple[int, int | None]:
    return first.data_ptr(), None if second is None else second.data_ptr()


def are_bf16(*tensors: Tensor) -> bool:
    return all(t.dtype is torch.bfloat16 and t.device.type == "cpu" and t.is_contiguous() for t in tensors)


def fits(norm: Norm, weight: Tensor) -> bool:
    return norm is rms_norm and are_bf16(weight) and weight.shape[0] % MULTIPLE == 0


def alike(experts: Mapping[int, ExpertWeights], width: int) -> dict[int, tuple[Matrix, Matrix]]:
    """Both matrices of each; none where they are not all of one form and shape."""
    pairs: dict[int, tuple[Matrix, Matrix]] = {}
    for e, its in experts.items():
        first, second = matrix_of(its.w13), matrix_of(its.w2)
        if first is None or second is None or not its.plain:
            return {}
        pairs[e] = first, second
    forms = {_form(first) + _form(second) for first, second in pairs.values()}
    return pairs if len(forms) == 1 and _room(*next(iter(pairs.values())), width) <= MOST_BYTES else {}


def _form(matrix: Matrix) -> tuple[int, ...]:
    return (*matrix.sizes, bool(matrix.pointers[1]))


def _room(first: Matrix, second: Matrix, width: int) -> int:
    """Bytes, or a little less, of what is between so many experts' products."""
    numbers: int = first.sizes[1] + second.sizes[0] + second.sizes[1]
    return 4 * width * numbers
