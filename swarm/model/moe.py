"""Sparse mixture of experts (arXiv 2401.04088, section 2.1): a router, top K of E experts, and what all rows meet beside them.

R: rows   H: hidden   E: experts   K: experts a row   n: rows of one expert
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarm.model.alone import ExpertsAlone
from swarm.model.experts import CopyPort, ExpertPort, LocalExperts, SharedExpert
from swarm.model.kernels.chosen import ChosenExperts
from swarm.model.kernels.port import FEW_ROWS
from swarm.model.native.between import Part, between
from swarm.model.router import Router, Share
from swarm.model.spread import spread


@dataclass(frozen=True)
class MoE:
    """One Block's experts, wherever they are: `ports` says where each is.

    Outputs are weighted and summed in fp32 in ascending expert order, so where an expert is changes no bit.
    """

    block: int
    router: Router | None
    """None: all rows go to the one expert there is, with weight 1."""
    ports: Mapping[int, ExpertPort]
    """Empty: this Block has a dense MLP instead, which is `shared`."""
    counts: list[int] = field(default_factory=list, repr=False)
    """[E] rows that chose each expert, added to by every forward; an empty list is filled with zeros first."""
    copies: Mapping[int, CopyPort] = field(default_factory=dict)
    """Where else an expert is that `ports` says is here."""
    shared: SharedExpert | None = None
    _ports: tuple[ExpertPort, ...] = field(init=False, repr=False)
    """Each once, in the order in which they are asked."""
    _places: Mapping[int, int] = field(init=False, repr=False)
    """Expert id → which of `_ports` has it."""
    _copies: Mapping[int, int] = field(init=False, repr=False)
    """Expert id → which of `_ports` has it too."""
    picks: Tensor | None = field(init=False, repr=False)
    """[FEW_ROWS, K] what the rows of the last micro-batch chose, where that stays on a card; see `swarm.model.kernels.choices`."""
    _near: ChosenExperts | None = field(init=False, repr=False)
    """All experts, where they are on the Device that the router is on."""

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts.extend([0] * len(self.ports))
        num_experts = self.router.num_experts if self.router else min(1, len(self.ports))
        assert sorted(self.ports) == list(range(num_experts)), "every expert is somewhere"
        assert self.ports or self.shared, "a Block without experts has a dense MLP"
        ports = {id(p): p for p in (*self.ports.values(), *self.copies.values())}.values()
        # Local experts compute when they are waited for: they come first, so that remote ones run meanwhile.
        ordered = tuple(sorted(ports, key=lambda p: not isinstance(p, LocalExperts)))
        number = {id(p): i for i, p in enumerate(ordered)}
        object.__setattr__(self, "_ports", ordered)
        object.__setattr__(self, "_places", {e: number[id(p)] for e, p in self.ports.items()})
        object.__setattr__(self, "_copies", {e: number[id(p)] for e, p in self.copies.items()})
        alone = ordered[0] if len(ordered) == 1 else None
        near = alone.chosen.get(self.block) if isinstance(alone, LocalExperts) else None
        object.__setattr__(self, "_near", near)
        width = self.router.top_k if self.router else 1
        object.__setattr__(self, "picks", near.no_choices(FEW_ROWS, width) if near else None)

    @property
    def on_card(self) -> bool:
        """Whether few rows pass without the host being asked or told anything."""
        return self._near is not None or not self.ports

    def forward(self, x: Tensor) -> Tensor:
        """`x` [R, H] to the weighted sum of each row's K experts, and the shared one's output where there is one, [R, H]."""
        if self.router is None:
            return self._alone(x)
        if self._near is not None and self.picks is not None and x.shape[0] <= FEW_ROWS:
            return self._without_asking(x, self.router, self._near, self.picks)
        return self._through_ports(x, self.router.route(x))

    def add_to(self, h: Tensor, alone: ExpertsAlone) -> Tensor:
        """`h` [1, H] and what `forward` makes of its norm: [1, H]."""
        x, choice = alone.route(h)
        experts: list[int] = list(choice.experts)
        if alone.here.issuperset(experts) and not any(self.copies[e].willing() for e in experts if e in self.copies):
            self.count(experts)
            return alone.forward(h, x, choice)
        if self.router is None:
            return h + self._alone(x)
        first = torch.zeros(1, dtype=torch.int64)
        shares = {e: Share(first, torch.tensor([[w]])) for e, w in zip(experts, choice.weights, strict=True)}
        return h + self._through_ports(x, shares)

    def count(self, experts: Iterable[int]) -> None:
        """A row chose these."""
        for expert in experts if self.ports else ():
            self.counts[expert] += 1

    def _through_ports(self, x: Tensor, shares: Mapping[int, Share]) -> Tensor:
        places = self._placed(shares)
        waits = []
        for number, port in enumerate(self._ports):
            rows = {e: shares[e].index for e, place in places.items() if place == number}
            if rows:
                waits.append(port.ask(self.block, x, rows))
        for expert, share in shares.items():  # while others compute: on a card, and behind the wire
            self.counts[expert] += share.index.shape[0]
        beside = self.shared.forward(x) if self.shared else None
        outputs: dict[int, Tensor] = {}
        for wait in waits:
            outputs.update(wait())
        return self._sum(x, shares, outputs, beside)

    def _without_asking(self, x: Tensor, router: Router, near: ChosenExperts, picks: Tensor) -> Tensor:
        """The same sum, of what never leaves the card: the host does not wait for what was chosen."""
        weight, chosen = router.choose(x)  # [R, K] each
        chosen, order = chosen.sort(-1)
        picks[: x.shape[0]] = chosen
        weighted = near.forward(x, chosen) * weight.gather(-1, order).unsqueeze(-1)  # [R, K, H] fp32
        beside = self.shared.forward(x) if self.shared else None
        total = torch.zeros(x.shape, dtype=torch.float32, device=x.device) if beside is None else beside.float()
        for each in weighted.unbind(1):
            total += each
        return total.to(x.dtype)

    def _alone(self, x: Tensor) -> Tensor:
        """All rows through the only expert, or through the dense MLP that is here instead."""
        if not self.ports:
            assert self.shared is not None
            return self.shared.forward(x)
        if self._near is not None and x.shape[0] <= FEW_ROWS:
            return self._near.one(x, 0)
        self.counts[0] += x.shape[0]
        rows = {0: torch.arange(x.shape[0], device=x.device)}
        return self._ports[self._places[0]].ask(self.block, x, rows)()[0]

    def _placed(self, shares: Mapping[int, Share]) -> dict[int, int]:
        """Which of `_ports` computes each chosen expert, in ascending order of experts."""
        places = {e: self._places[e] for e in shares}
        if not self._copies:
            return places
        rows = {e: share.index.shape[0] for e, share in shares.items()}
        shards = {e: at for e, at in places.items() if not isinstance(self._ports[at], LocalExperts)}
        copies = {e: at for e, at in self._copies.items() if e in rows and self.copies[e].willing()}
        return places | spread(rows, shards, copies)

    def _sum(self, x: Tensor, shares: Mapping[int, Share], outputs: Mapping[int, Tensor], beside: Tensor | None) -> Tensor:
        here = between() if beside is None else None
        at_once = here.summed([Part(s.index, s.weight, outputs[e]) for e, s in shares.items()], x.shape[0]) if here else None
        if at_once is not None:
            return at_once
        total = None if beside is None else beside.float()
        for expert, share in shares.items():
            weighted = outputs[expert] * share.weight  # [n, H] fp32
            if total is None and weighted.shape[0] == x.shape[0]:
                total = weighted
                continue
            total = torch.zeros(x.shape, dtype=torch.float32, device=x.device) if total is None else total
            if weighted.shape[0] == x.shape[0]:
                total += weighted
            else:
                total.index_add_(0, share.index, weighted)
        assert total is not None, "every row has an expert"
        return total.to(x.dtype)
