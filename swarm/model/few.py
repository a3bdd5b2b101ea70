"""The experts of a Block as a few rows on a CPU meet them: what is between products finds the caches full of weights.

R: rows   H: hidden   E: experts   K: experts a row   n: rows of one expert
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swarm.model.alone import AttentionAlone, alike, are_bf16, fits
from swarm.model.experts import ExpertWeights
from swarm.model.native.between import Between, between
from swarm.model.native.halves import (
    FEW_ROWS,
    ROUTER_BYTES,
    TOGETHER,
    Choice,
    ExpertsHalf,
    Halves,
    Matrix,
    Routed,
    array_of,
    halves,
)
from swarm.model.native.places import Places
from swarm.model.norm import Norm
from swarm.model.rope import Angles
from swarm.model.router import Router


@dataclass(frozen=True)
class FewExperts:
    """A Block's experts with their norm and router: one call says which rows each is given, one adds up what they put out."""

    half: ExpertsHalf
    calls: Halves
    sums: Between
    local: Mapping[int, ExpertWeights]
    """Those whose weights are here."""
    alone: frozenset[int]
    """Of these, the ones that a row which is alone meets in one call, all it goes to together."""
    kept: tuple[object, ...]
    """Whose memory `half` points at."""

    @classmethod
    def of(
        cls, router: Router | None, norm: Norm, weight: Tensor, eps: float, local: Mapping[int, ExpertWeights]
    ) -> FewExperts | None:
        """None where this CPU has no such calls, or the family is another one.

        Args:
            router: None: there is one expert.
        """
        calls, sums = halves(), between()
        if calls is None or sums is None or not fits(norm, weight) or (router is not None and not _plain(router)):
            return None
        count, width = (router.num_experts, router.top_k) if router else (1, 1)
        matrices = alike(local, width)
        first, second = (array_of([matrices[e][i] if e in matrices else Matrix() for e in range(count)]) for i in (0, 1))
        hidden, routing = weight.shape[0], router.weight if router else None
        part = max(1, ROUTER_BYTES // (hidden * weight.element_size() * TOGETHER)) * TOGETHER
        half = ExpertsHalf(
            (hidden, count, width, router is not None and router.norm == 1.0, part),
            eps,
            (weight.data_ptr(), None if routing is None else routing.data_ptr(), ctypes.addressof(first), ctypes.addressof(second)),
        )
        return cls(half, calls, sums, local, frozenset(matrices), (weight, routing, first, second))

    def takes(self, h: Tensor) -> bool:
        """Whether rows `h` [R, H] are few, and of a kind that is expected here."""
        return self.calls.takes(h, FEW_ROWS)

    def route(self, h: Tensor, added: Tensor | None) -> Routed:
        """Rows `h` [R, H], what is `added` to them, their norm, and which experts those go to."""
        return self.calls.route(self.half, h, added)

    def forward(self, routed: Routed) -> Tensor:
        """The rows and the weighted sums of what their experts, which are all `local`, make of their norms: [R, H]."""
        if routed.h.shape[0] == 1 and self.alone.issuperset(routed.experts):
            return self.calls.experts(self.half, routed)
        return self.added_up(routed, {e: self.local[e].forward(x) for e, x in zip(routed.experts, routed.parts(), strict=True)})

    def added_up(self, routed: Routed, outputs: Mapping[int, Tensor]) -> Tensor:
        """The rows and the weighted sums of `outputs` [n, H] of their experts: [R, H]."""
        for share, expert in zip(routed.shares, routed.experts, strict=False):
            y = outputs[expert]
            assert y.shape == (share.rows, routed.h.shape[1]) and y.dtype is torch.bfloat16 and y.is_contiguous()
            share.pointers[2] = y.data_ptr()
        return self.sums.added_up(routed.shares, len(routed.experts), routed.h)

    def behind(self, attention: AttentionAlone, h: Tensor, place: Places, angles: Angles) -> tuple[Tensor, Choice]:
        """`h` [1, H] through that and this in one call, where all experts are met `alone`: [1, H], and which ones it went to."""
        return self.calls.block(attention.half, self.half, h, place, (angles.cos, angles.sin))


def _plain(router: Router) -> bool:
    return router.bias is None and router.norm in (0.0, 1.0) and are_bf16(router.weight) and router.num_experts % TOGETHER == 0
