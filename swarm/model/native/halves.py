"""One row of bf16 through the halves of a Block, a call each, and what is between the products of a few (`row.h`).

R: rows   H: hidden   NH: heads   KV: key-value heads   D: head_dim   E: experts   K: experts a row
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from swarm.model.native.between import ShareOf
from swarm.model.native.compiled import compiled
from swarm.model.native.one_row import one_row
from swarm.model.native.places import BlockPlaces, Places

MULTIPLE = 32
"""What hidden and head_dim have to be a multiple of."""
TOGETHER = 4
"""Of how many experts logits are computed at once: all of them are a multiple of it."""
FEW_ROWS = 32
"""So many have what is between their products here; see docs/performance.md."""
ROUTER_BYTES = 1 << 16
"""About so much of a router is read by one thread at a time."""
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_BETWEEN = ctypes.CFUNCTYPE(_NUMBER)


class Matrix(ctypes.Structure):
    """A matrix [N, K] as one row meets it: where its numbers or codes are."""

    _fields_ = [("sizes", _NUMBER * 4), ("pointers", _POINTER * 2)]


class Heads(ctypes.Structure):
    """What attention is between its products: heads, key-value heads, head_dim, window; and by what scores are scaled."""

    _fields_ = [("sizes", _NUMBER * 4), ("scale", ctypes.c_float)]


class AttentionHalf(ctypes.Structure):
    """A norm and attention."""

    _fields_ = [("heads", Heads), ("wqkv", Matrix), ("wo", Matrix), ("norm", _POINTER), ("eps", ctypes.c_float)]


class LastHalf(ctypes.Structure):
    """The last norm and the output matrix."""

    _fields_ = [("output", Matrix), ("norm", _POINTER), ("eps", ctypes.c_float)]


class ExpertsHalf(ctypes.Structure):
    """A norm, a router, and the experts."""

    _fields_ = [("sizes", _NUMBER * 5), ("eps", ctypes.c_float), ("pointers", _POINTER * 4)]


class _Norms(ctypes.Structure):
    _fields_ = [("pointers", _POINTER * 3), ("sizes", _NUMBER * 2), ("eps", ctypes.c_float), ("outs", _POINTER * 2)]


class _Attending(ctypes.Structure):
    _fields_ = [("pointers", _POINTER * 4), ("apart", _NUMBER * 2), ("out", _POINTER)]


class _Routing(ctypes.Structure):
    _fields_ = [("rows", _NUMBER), ("pointers", _POINTER * 9)]


class Layer(ctypes.Structure):
    """A Block: where its halves are."""

    _fields_ = [("attention", _POINTER), ("experts", _POINTER)]


class _Layers(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 2), ("pointers", _POINTER * 4), ("between", _BETWEEN)]


class _Team(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 2)]


class Choice(NamedTuple):
    """The experts that a row's router chose, ascending, and their weights."""

    experts: ctypes.Array[ctypes.c_int64]
    weights: ctypes.Array[ctypes.c_float]

    @classmethod
    def of(cls, width: int) -> Choice:
        """Room for so many."""
        return cls((_NUMBER * width)(), (ctypes.c_float * width)())


class Routed(NamedTuple):
    """Rows on their way to experts."""

    h: Tensor  # [R, H]
    x: Tensor  # [R, H], its norm
    given: Tensor  # [R K, H], what each expert is given, one behind the other
    experts: list[int]  # that any row chose, ascending
    shares: ctypes.Array[ShareOf]  # of each of them
    which: Tensor  # [R K] int64, which row it is that is given
    weight: Tensor  # [R K, 1] fp32

    @property
    def counts(self) -> list[int]:
        """How many rows each of them is given."""
        return [share.rows for share in self.shares[: len(self.experts)]]

    def parts(self) -> tuple[Tensor, ...]:
        """What each of them is given, [n, H]."""
        parts: tuple[Tensor, ...] = self.given.split(self.counts)
        return parts


@dataclass(frozen=True)
class Halves:
    """The calls, by as many threads as torch has."""

    functions: ctypes.CDLL
    wide: bool
    """Whether by AVX-512 in place of AVX2."""

    def takes(self, h: Tensor, most: int = 1) -> bool:
        """Whether rows `h` [R, H], at most so many, are to go through here."""
        return h.shape[0] <= most and h.dtype is torch.bfloat16 and h.device.type == "cpu" and h.is_contiguous()

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor | None:
        """`x` [R, H] over its root mean square, times `weight` [H]; None where that is done elsewhere."""
        if (
            x.device.type != "cpu"
            or x.shape[1] % MULTIPLE
            or not x.dtype is weight.dtype is torch.bfloat16
            or not x.is_contiguous()
        ):
            return None
        out = torch.empty_like(x)
        rows = _Norms((x.data_ptr(), None, weight.data_ptr()), x.shape, eps, (None, out.data_ptr()))
        self.functions.swarm_norm(ctypes.byref(rows), self._team())
        return out

    def reads(self, qk: Tensor, v: Tensor) -> bool:
        """Whether rows `qk` [R, NH + KV, D], whose values are `v` [R, KV, D], lie as `attend` expects."""
        dim = qk.shape[2]
        return dim % MULTIPLE == 0 and all(x.dtype is torch.bfloat16 and x.stride()[1:] == (dim, 1) for x in (qk, v))

    def attend(self, heads: Heads, qk: Tensor, v: Tensor, places: Places, cos: Tensor, sin: Tensor) -> Tensor:
        """What rows that are not turned yet see of their Sessions, [R, NH, D]; their keys and values are in their pages afterwards.

        Args:
            qk: [R, NH + KV, D], and `v` [R, KV, D].
            places: of some of the rows; of the others nothing is answered.
            cos, sin: fp32 [R, 1, D], contiguous, of `swarm.model.rope`.
        """
        out, where = qk.new_empty(qk.shape[0], heads.sizes[0], qk.shape[2]), places.turned(cos, sin)
        task = _Attending(
            (ctypes.addressof(heads), ctypes.addressof(where), qk.data_ptr(), v.data_ptr()),
            (qk.stride(0), v.stride(0)),
            out.data_ptr(),
        )
        self.functions.swarm_attend_few(ctypes.byref(task), self._team())
        return out

    def attention(self, half: AttentionHalf, h: Tensor, place: Places, cos: Tensor, sin: Tensor) -> Tensor:
        """`h` [1, H] and what attention adds to it: [1, H]. Its key and value are in their page afterwards."""
        out, where = torch.empty_like(h), place.turned(cos, sin)
        self.functions.swarm_attention(ctypes.byref(half), h.data_ptr(), out.data_ptr(), ctypes.byref(where), self._team())
        return out

    def logits(self, half: LastHalf, h: Tensor) -> Tensor:
        """Logits [1, V] of `h` [1, H]."""
        out = h.new_empty(1, half.output.sizes[1])
        self.functions.swarm_head(ctypes.byref(half), h.data_ptr(), out.data_ptr(), self._team())
        return out

    def route(self, half: ExpertsHalf, h: Tensor, added: Tensor | None) -> Routed:
        """Rows `h` [R, H], what is `added` to them, their norm, and which experts those go to."""
        (rows, hidden), (_, count, width, *_) = h.shape, half.sizes
        several, added = half.pointers[1] is not None, None if added is None else added.contiguous()
        x, total = torch.empty_like(h), h if added is None else torch.empty_like(h)
        given = h.new_empty(rows * width, hidden) if several else x
        index, weight = torch.empty(rows * width, dtype=torch.int64), torch.empty(rows * width, 1)
        chosen, shares = (_NUMBER * count)(), (ShareOf * count)()
        rest = None if added is None else added.data_ptr(), total.data_ptr(), x.data_ptr(), given.data_ptr() if several else None
        lists = ctypes.addressof(chosen), ctypes.addressof(shares), index.data_ptr(), weight.data_ptr()
        task = _Routing(rows, (h.data_ptr(), *rest, *lists))
        found = self.functions.swarm_route(ctypes.byref(half), ctypes.byref(task), self._team())
        return Routed(total, x, given, chosen[:found], shares, index, weight)

    def experts(self, half: ExpertsHalf, routed: Routed) -> Tensor:
        """The row [1, H] that is alone and the weighted sum of what its experts make of it, in their order: [1, H]."""
        out, chosen = torch.empty_like(routed.h), (_NUMBER * len(routed.experts))(*routed.experts)
        rows, weight = (routed.h.data_ptr(), routed.x.data_ptr()), routed.weight.data_ptr()
        self.functions.swarm_experts(ctypes.byref(half), *rows, chosen, weight, out.data_ptr(), self._team())
        return out

    def block(
        self, first: AttentionHalf, second: ExpertsHalf, h: Tensor, place: Places, angles: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Choice]:
        """`h` [1, H] through both halves, [1, H], all of whose experts are here; and those of them that it went to."""
        out, where, choice = torch.empty_like(h), place.turned(*angles), Choice.of(second.sizes[2])
        both = ctypes.byref(first), ctypes.byref(second)
        self.functions.swarm_block(*both, h.data_ptr(), out.data_ptr(), ctypes.byref(where), *choice, self._team())
        return out, choice

    def blocks(
        self,
        layers: ctypes.Array[Layer],
        h: Tensor,
        places: BlockPlaces,
        angles: tuple[Tensor, Tensor],
        width: int,
        between: Callable[[], None],
    ) -> tuple[Tensor, Choice]:
        """`h` [1, H] through some Blocks, [1, H], and of each the experts that it went to, among room for `width`.

        Args:
            between: called before each Block. What it raises ends the call, and is raised.
        """
        failed: list[BaseException] = []

        def go_on() -> bool:
            try:
                between()
            except BaseException as error:  # noqa: BLE001  (ctypes would print it and go on: it is raised below)
                failed.append(error)
            return not failed

        out, where, choice = h.clone(), places.turned(*angles), Choice.of(width * len(layers))
        each = [ctypes.addressof(memory) for memory in (layers, places.kept, *choice)]
        task = _Layers((len(layers), width), tuple(each), _BETWEEN(go_on))
        self.functions.swarm_blocks(ctypes.byref(task), out.data_ptr(), ctypes.byref(where), self._team())
        if failed:
            raise failed.pop()
        return out, choice

    def _team(self) -> _Team:
        return _team(torch.get_num_threads(), self.wide)


@lru_cache
def _team(threads: int, wide: bool) -> _Team:
    return _Team((threads, wide))


def array_of(matrices: Sequence[Matrix]) -> ctypes.Array[Matrix]:
    """Side by side, as `ExpertsHalf` points at them."""
    return (Matrix * len(matrices))(*matrices)


@lru_cache
def halves() -> Halves | None:
    """What this CPU has; None where it has not, or nothing was compiled."""
    quick, one = compiled(), one_row()
    if quick is None or one is None:
        return None
    functions, team = quick.functions, ctypes.POINTER(_Team)
    pointers = {"norm": 1, "attend_few": 1, "attention": 4, "head": 3, "route": 2, "experts": 6, "block": 7, "blocks": 3}
    for name, count in pointers.items():
        call = getattr(functions, f"swarm_{name}")
        call.argtypes, call.restype = [_POINTER] * count + [team], _NUMBER if name == "route" else None
    return Halves(functions, one.wide)
