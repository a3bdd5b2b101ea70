"""Sparse mixture of experts (arXiv 2401.04088, section 2.1): a router, top K of E experts, and what all rows meet beside them.

R: rows   H: hidden   E: experts   K: experts a row   n: rows of one expert
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarm.model.experts import CopyPort, ExpertPort, LocalExperts, SharedExpert
from swarm.model.few import FewExperts
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

    def add_to(self, h: Tensor, x: Tensor) -> Tensor:
        """`h` [R, H] and the weighted sum of each row's K experts of `x` [R, H], and the shared one's output where there is one."""
        if self.router is None:
            return h + self._alone(x)
        if self._near is not None and self.picks is not None and x.shape[0] <= FEW_ROWS:
            return h + self._without_asking(x, self.router, self._near, self.picks)
        shares = self.router.route(x)
        waits = self._ask(x, shares)
        beside = self.shared.forward(x) if self.shared else None
        return self._sum(h, shares, _awaited(waits), beside)

    def add_few_to(self, h: Tensor, added: Tensor | None, few: FewExperts) -> Tensor:
        """`h` [R, H] and what is `added` to it, and what `add_to` makes of its norm."""
        routed = few.route(h, added)
        elsewhere = any(e not in few.local or (e in self.copies and self.copies[e].willing()) for e in routed.experts)
        if not elsewhere:
            self.count(routed.experts, routed.counts)
            return few.forward(routed)
        indices, weights = routed.which.split(routed.counts), routed.weight.split(routed.counts)
        shares = {e: Share(*share) for e, *share in zip(routed.experts, indices, weights, strict=True)}
        return few.added_up(routed, _awaited(self._ask(routed.x, shares)))

    def count(self, experts: Iterable[int], rows: Iterable[int]) -> None:
        """So many rows chose each of these."""
        for expert, chose in zip(experts, rows, strict=True) if self.ports else ():
            self.counts[expert] += chose

    def _ask(self, x: Tensor, shares: Mapping[int, Share]) -> list[Callable[[], dict[int, Tensor]]]:
        """Start the experts that were chosen, wherever they are, each on its rows of `x` [R, H]; see `ExpertPort.ask`."""
        places = self._placed(shares)
        waits = []
        for number, port in enumerate(self._ports):
            rows = {e: shares[e].index for e, place in places.items() if place == number}
            if rows:
                waits.append(port.ask(self.block, x, rows))
        # While others compute: on a card, and behind the wire.
        self.count(shares, [share.index.shape[0] for share in shares.values()])
        return waits

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

    def _sum(self, h: Tensor, shares: Mapping[int, Share], outputs: Mapping[int, Tensor], beside: Tensor | None) -> Tensor:
        here = between() if beside is None else None
        at_once = here.summed([Part(s.index, s.weight, outputs[e]) for e, s in shares.items()], h) if here else None
        if at_once is not None:
            return at_once
        total = None if beside is None else beside.float()
        for expert, share in shares.items():
            weighted = outputs[expert] * share.weight  # [n, H] fp32
            if total is None and weighted.shape[0] == h.shape[0]:
                total = weighted
                continue
            total = torch.zeros(h.shape, dtype=torch.float32, device=h.device) if total is None else total
            if weighted.shape[0] == h.shape[0]:
                total += weighted
            else:
                total.index_add_(0, share.index, weighted)
        assert total is not None, "every row has an expert"
        return h + total.to(h.dtype)


def _awaited(waits: Iterable[Callable[[], dict[int, Tensor]]]) -> dict[int, Tensor]:
    """Each expert's unweighted output [n, H]."""
    return {e: y for wait in waits for e, y in wait().items()}
