"""One row of bf16 through the halves of a Block, a call each, where a C compiler was there at installation (`row.h`).

H: hidden   D: head_dim   KV: key-value heads   E: experts   K: experts a row
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from swarm.model.native.compiled import compiled
from swarm.model.native.one_row import one_row
from swarm.model.native.team import parallel, shared

MULTIPLE = 32
"""What hidden and head_dim have to be a multiple of."""
TOGETHER = 4
"""Of how many experts logits are computed at once: all of them are a multiple of it."""
ROUTER_BYTES = 1 << 16
"""About so much of a router is read by one thread at a time."""
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_BETWEEN = ctypes.CFUNCTYPE(_NUMBER)


class Matrix(ctypes.Structure):
    """A matrix [N, K] as one row meets it: where its numbers or codes are."""

    _fields_ = [("sizes", _NUMBER * 4), ("pointers", _POINTER * 2)]


class AttentionHalf(ctypes.Structure):
    """A norm and attention."""

    _fields_ = [
        ("sizes", _NUMBER * 4),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("norm", _POINTER),
        ("wqkv", Matrix),
        ("wo", Matrix),
    ]


class ExpertsHalf(ctypes.Structure):
    """A norm, a router, and the experts."""

    _fields_ = [("sizes", _NUMBER * 5), ("eps", ctypes.c_float), ("pointers", _POINTER * 4)]


class _Norms(ctypes.Structure):
    _fields_ = [("pointers", _POINTER * 2), ("sizes", _NUMBER * 2), ("eps", ctypes.c_float), ("out", _POINTER)]


class _Place(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 2), ("pointers", _POINTER * 5)]


class Layer(ctypes.Structure):
    """A Block: where its halves are."""

    _fields_ = [("attention", _POINTER), ("experts", _POINTER)]


class _Layers(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 2), ("pointers", _POINTER * 4), ("between", _BETWEEN)]


class _Team(ctypes.Structure):
    _fields_ = [("sizes", _NUMBER * 2), ("run", _POINTER)]


class Place(NamedTuple):
    """Where a row is: its position, and the pages of its Session [pages] int64 in the pool of a Block."""

    position: int
    pages: Tensor
    keys: Tensor  # bf16 [all pages, page positions, KV, D]
    values: Tensor

    def turned(self, cos: Tensor, sin: Tensor) -> _Place:
        """With the angles that its position is turned by, fp32 [D], contiguous, of `swarm.model.rope`."""
        memory = cos, sin, self.pages, self.keys, self.values
        return _Place((self.position, self.keys.shape[1]), tuple([m.data_ptr() for m in memory]))


class Places(NamedTuple):
    """The same in some Blocks at once: where the keys and values of each are."""

    position: int
    page: int
    """Positions in a page."""
    pages: Tensor
    kept: ctypes.Array[ctypes.c_void_p]  # [2 x Blocks]

    def turned(self, cos: Tensor, sin: Tensor) -> _Place:
        """See `Place.turned`."""
        return _Place((self.position, self.page), (cos.data_ptr(), sin.data_ptr(), self.pages.data_ptr(), None, None))


class Choice(NamedTuple):
    """The experts that a row's router chose, ascending, and their weights."""

    experts: ctypes.Array[ctypes.c_int64]
    weights: ctypes.Array[ctypes.c_float]

    @classmethod
    def of(cls, width: int) -> Choice:
        """Room for so many."""
        return cls((_NUMBER * width)(), (ctypes.c_float * width)())


@dataclass(frozen=True)
class Halves:
    """The calls, by as many threads as torch has."""

    functions: ctypes.CDLL
    wide: bool
    """Whether by AVX-512 in place of AVX2."""
    parallel: int | None

    def takes(self, h: Tensor) -> bool:
        """Whether rows `h` [R, H] are to go through here."""
        return h.shape[0] == 1 and h.dtype is torch.bfloat16 and h.device.type == "cpu" and h.is_contiguous() and shared()

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
        rows = _Norms((x.data_ptr(), weight.data_ptr()), x.shape, eps, out.data_ptr())
        self.functions.swarm_norm(ctypes.byref(rows), self._team())
        return out

    def attention(self, half: AttentionHalf, h: Tensor, place: Place, cos: Tensor, sin: Tensor) -> Tensor:
        """`h` [1, H] and what attention adds to it: [1, H]. Its key and value are in their page afterwards."""
        out, where = torch.empty_like(h), place.turned(cos, sin)
        self.functions.swarm_attention(ctypes.byref(half), h.data_ptr(), out.data_ptr(), ctypes.byref(where), self._team())
        return out

    def route(self, half: ExpertsHalf, h: Tensor, width: int) -> tuple[Tensor, Choice]:
        """The norm of `h` [1, H], and the `width` experts that it goes to."""
        x, choice = torch.empty_like(h), Choice.of(width)
        self.functions.swarm_route(ctypes.byref(half), h.data_ptr(), x.data_ptr(), *choice, self._team())
        return x, choice

    def experts(self, half: ExpertsHalf, h: Tensor, x: Tensor, choice: Choice) -> Tensor:
        """`h` [1, H] and the weighted sum of what experts make of `x` [1, H], added up in fp32 in their order: [1, H]."""
        out = torch.empty_like(h)
        rows = h.data_ptr(), x.data_ptr()
        self.functions.swarm_experts(ctypes.byref(half), *rows, *choice, out.data_ptr(), self._team())
        return out

    def block(
        self, first: AttentionHalf, second: ExpertsHalf, h: Tensor, place: Place, angles: tuple[Tensor, Tensor], width: int
    ) -> tuple[Tensor, Choice]:
        """`h` [1, H] through both halves, [1, H], all of whose experts are here; and the `width` of them that it went to."""
        out, where, choice = torch.empty_like(h), place.turned(*angles), Choice.of(width)
        both = ctypes.byref(first), ctypes.byref(second)
        self.functions.swarm_block(*both, h.data_ptr(), out.data_ptr(), ctypes.byref(where), *choice, self._team())
        return out, choice

    def blocks(
        self,
        layers: ctypes.Array[Layer],
        h: Tensor,
        places: Places,
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
        return _team(torch.get_num_threads(), self.wide, self.parallel)


@lru_cache
def _team(threads: int, wide: bool, run: int | None) -> _Team:
    return _Team((threads, wide), run)


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
    alone = functions.swarm_norm, functions.swarm_attention, functions.swarm_route, functions.swarm_experts
    for call, pointers in zip((*alone, functions.swarm_block, functions.swarm_blocks), (1, 4, 5, 6, 7, 3), strict=True):
        call.argtypes, call.restype = [_POINTER] * pointers + [team], None
    return Halves(functions, one.wide, parallel())
