"""Sparse mixture of experts (arXiv 2401.04088, section 2.1): softmax router, top K of E experts, renormalised.

R: rows   H: hidden   E: experts   K: experts a row   n: rows of one expert
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.experts import CopyPort, ExpertPort, LocalExperts
from swarm.model.product import product
from swarm.model.spread import spread


@dataclass(frozen=True)
class Share:
    """The rows that one expert is given, and how much its output counts for each."""

    index: Tensor  # [n] int64, ascending
    weight: Tensor  # [n, 1] fp32


@dataclass(frozen=True)
class MoE:
    """One Block's experts, wherever they are: `ports` says where each is.

    Outputs are weighted and summed in fp32 in ascending expert order, so where an expert is changes no bit.
    """

    block: int
    top_k: int
    router: Tensor  # [E, H]
    ports: Mapping[int, ExpertPort]
    counts: list[int] = field(default_factory=list, repr=False)
    """[E] rows that chose each expert, added to by every forward; an empty list is filled with zeros first."""
    copies: Mapping[int, CopyPort] = field(default_factory=dict)
    """Where else an expert is that `ports` says is here."""
    _ports: tuple[ExpertPort, ...] = field(init=False, repr=False)
    """Each once, in the order in which they are asked."""
    _places: Mapping[int, int] = field(init=False, repr=False)
    """Expert id → which of `_ports` has it."""
    _copies: Mapping[int, int] = field(init=False, repr=False)
    """Expert id → which of `_ports` has it too."""

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts.extend([0] * self.router.shape[0])
        assert sorted(self.ports) == list(range(self.router.shape[0])), "every expert is somewhere"
        ports = {id(p): p for p in (*self.ports.values(), *self.copies.values())}.values()
        # Local experts compute when they are waited for: they come first, so that remote ones run meanwhile.
        ordered = tuple(sorted(ports, key=lambda p: not isinstance(p, LocalExperts)))
        number = {id(p): i for i, p in enumerate(ordered)}
        object.__setattr__(self, "_ports", ordered)
        object.__setattr__(self, "_places", {e: number[id(p)] for e, p in self.ports.items()})
        object.__setattr__(self, "_copies", {e: number[id(p)] for e, p in self.copies.items()})

    def forward(self, x: Tensor) -> Tensor:
        """`x` [R, H] to the weighted sum of each row's K experts [R, H]."""
        shares = self.route(x)
        places = self._placed(shares)
        waits = []
        for number, port in enumerate(self._ports):
            rows = {e: shares[e].index for e, place in places.items() if place == number}
            if rows:
                waits.append(port.ask(self.block, x, rows))
        for expert, share in shares.items():  # while others compute: on a card, and behind the wire
            self.counts[expert] += share.index.shape[0]
        outputs: dict[int, Tensor] = {}
        for wait in waits:
            outputs.update(wait())
        return self._sum(x, shares, outputs)

    def _placed(self, shares: Mapping[int, Share]) -> dict[int, int]:
        """Which of `_ports` computes each chosen expert, in ascending order of experts."""
        places = {e: self._places[e] for e in shares}
        if not self._copies:
            return places
        rows = {e: share.index.shape[0] for e, share in shares.items()}
        shards = {e: at for e, at in places.items() if not isinstance(self._ports[at], LocalExperts)}
        copies = {e: at for e, at in self._copies.items() if e in rows and self.copies[e].willing()}
        return places | spread(rows, shards, copies)

    def route(self, x: Tensor) -> dict[int, Share]:
        """Each chosen expert's Share of the rows `x` [R, H], by expert id, ascending."""
        p = F.softmax(product(x, self.router), -1, dtype=torch.float32)  # [R, E]
        weight, chosen = torch.topk(p, self.top_k, -1)  # [R, K]
        weight = weight / weight.sum(-1, keepdim=True)
        if x.shape[0] == 1:
            index = torch.zeros(1, dtype=torch.int64, device=x.device)
            return {e: Share(index, weight[:, k, None]) for e, k in sorted(zip(chosen[0].tolist(), range(self.top_k), strict=True))}
        return _by_expert(weight, chosen, self.router.shape[0])

    def _sum(self, x: Tensor, shares: Mapping[int, Share], outputs: Mapping[int, Tensor]) -> Tensor:
        total = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for expert, share in shares.items():
            weighted = outputs[expert] * share.weight  # [n, H] fp32
            if weighted.shape[0] == x.shape[0]:
                total += weighted
            else:
                total.index_add_(0, share.index, weighted)
        return total.to(x.dtype)


def _by_expert(weight: Tensor, chosen: Tensor, num_experts: int) -> dict[int, Share]:
    flat = chosen.flatten()  # [R K]
    order = torch.argsort(flat, stable=True)
    index = order // chosen.shape[1]
    weight = weight.flatten()[order].unsqueeze(1)
    shares, at = {}, 0
    for expert, count in enumerate(torch.bincount(flat, minlength=num_experts).tolist()):
        if count:
            shares[expert] = Share(index[at : at + count], weight[at : at + count])
        at += count
    return shares
