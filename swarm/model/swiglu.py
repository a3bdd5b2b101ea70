"""A SwiGLU expert in one call on a CPU: what is between its products finds the caches full of weights.

n: rows   H: hidden   F: ffn
"""

from __future__ import annotations

from torch import Tensor

from swarm.model.native.many_rows import many_rows
from swarm.model.native.one_row import one_row
from swarm.model.native.several_rows import Matrix, several_rows
from swarm.model.quant.dots import dots
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.int8_groups import Int8Groups
from swarm.model.quant.many_codes import many_codes


def swiglu(x: Tensor, w13: object, w2: object) -> Tensor | None:
    """`x` [n, H] through w1 above w3 [2F, H], SiLU of the one half times the other, and w2 [H, F]: [n, H].

    None where this CPU has no such call, or not for these rows and matrices.
    """
    if not x.is_contiguous():
        return None
    if isinstance(w13, Int4Matrix) and isinstance(w2, Int4Matrix):
        return _in_4_bits(x, w13, w2)
    if isinstance(w13, Int8Groups) and isinstance(w2, Int8Groups):
        return _in_groups(x, w13, w2)
    if isinstance(w13, Int8Matrix) and isinstance(w2, Int8Matrix):
        whole = w13.columns == w13.q.shape[1] and w2.columns == w2.q.shape[1]
        return _read_once(x, (w13.q, w13.scale), (w2.q, w2.scale)) if whole else None
    return _in_bf16(x, w13, w2) if isinstance(w13, Tensor) and isinstance(w2, Tensor) else None


def _in_4_bits(x: Tensor, w13: Int4Matrix, w2: Int4Matrix) -> Tensor | None:
    if any(w.packed.shape != (w.rows, w.columns // 2) for w in (w13, w2)):  # something was added to its shape
        return None
    first, second, few, many = (w13.packed, w13.scales), (w2.packed, w2.scales), dots(), many_codes()
    if few and few.takes(x, w13.packed, w13.group) and few.reads(w2.packed, w2.group):
        return few.expert(x, first, second)
    if many and many.takes(x, w13.packed, w13.group) and many.reads_gated(w2.packed, w2.group):
        return many.expert(x, first, second)
    return None


def _in_groups(x: Tensor, w13: Int8Groups, w2: Int8Groups) -> Tensor | None:
    whole, few = all(w.packed.shape[1:] == (w.rows, w.columns // 2) for w in (w13, w2)), dots()
    if whole and few and few.takes(x, w13.packed, w13.group) and few.reads(w2.packed, w2.group):
        return few.expert(x, (w13.packed, w13.scales), (w2.packed, w2.scales))
    return None


def _in_bf16(x: Tensor, w13: Tensor, w2: Tensor) -> Tensor | None:
    many = many_rows()
    if many and many.takes(x, w13) and many.reads(w2):
        return many.expert(x, w13, w2)
    return _read_once(x, (w13, None), (w2, None))


def _read_once(x: Tensor, first: Matrix, second: Matrix) -> Tensor | None:
    for kernel in (one_row(), several_rows()):
        if kernel and kernel.takes(x, first[0]) and kernel.reads(second[0]):
            return kernel.expert(x, first, second)
    return None
