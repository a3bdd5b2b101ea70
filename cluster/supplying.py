"""Before a Plan is prepared: its Workers are asked what they lack, and what no Rig has is fetched from the Hub, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.agents import Agent
from cluster.changeover import WorkerFailed
from cluster.fetch_plan import Fetch, FetchPlan, Survey, Unobtainable, plan_fetches
from cluster.roster import Device
from cluster.weights_orders import FetchOrder, PeerAt, SurveyOrder
from swarm.errors import Expired, NoSwarm, SwarmError, gib
from swarm.plan import Plan

REPORT_S = 0.5
Report = Callable[[str, float, tuple[str, ...]], None]
"""Takes a message for people, the fraction done, and the lines that say what each Rig takes from where."""


@dataclass
class Coming:
    """What one Rig fetches now, and how far it is."""

    fetch: Fetch
    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_s: float = 0.0

    def document(self) -> dict[str, Any]:
        """For `swarm status --json`."""
        return {
            "rig": self.fetch.rig,
            "files": list(self.fetch.files),
            "folder": self.fetch.folder,
            "free_bytes": self.fetch.free_bytes,
            "done_bytes": self.done_bytes,
            "total_bytes": self.total_bytes or self.fetch.num_bytes,
            "bytes_per_s": round(self.bytes_per_s),
        }

    def __str__(self) -> str:
        total = self.total_bytes or self.fetch.num_bytes
        return f"{self.fetch.rig} {gib(self.done_bytes)} of {gib(total)}, {self.bytes_per_s / 1e6:.1f} MB/s"


class Supplying:
    """One for a Coordinator. `coming` is what is fetched now, `lines` what was said last; for `swarm status`.

    Args:
        head: id of the head Rig, which knows what the model is made of.
    """

    def __init__(self, head: str) -> None:
        self.coming: list[Coming] = []
        self.lines: tuple[str, ...] = ()
        self._head = head

    async def supply(self, plan: Plan, devices: Iterable[Device], report: Report) -> dict[str, tuple[PeerAt, ...]]:
        """Have everything on some Rig; returns which Rigs each Worker of the Plan may take weights from.

        Raises:
            WorkerFailed: a Worker does not answer, or needs what cannot be had; nothing is fetched for it.
        """
        everyone = {d.name: d for d in sorted(devices, key=lambda d: d.rig_id != self._head) if d.agent}
        surveys = await self._ask(plan, everyone)
        try:
            order = _decided(surveys, everyone)
            self._say(plan, order, report)
            while order.fetches:
                surveys = await self._fetch(plan, order, surveys, everyone, report)
                order = _decided(surveys, everyone)
                if order.fetches:  # somebody could not; else all was said
                    self._say(plan, order, report)
            return _peers(plan, surveys)
        finally:
            self.coming = []

    def _say(self, plan: Plan, order: FetchPlan, report: Report) -> None:
        if lines := (*order.lines, *filter(None, [plan.model.again])):
            self.lines = lines
            report(f"loading {plan.model.name}", 0.0, lines)

    async def _ask(self, plan: Plan, everyone: Mapping[str, Device]) -> list[Survey]:
        """All Workers of the Plan, and one of each other Rig; the first who knows the model is who others ask for it."""
        planned = {w.name for w in plan.workers}
        rigs = {everyone[name].rig for name in planned & everyone.keys()}
        others = {device.rig: name for name, device in everyone.items() if device.rig not in rigs}.values()
        names = [name for name in everyone if name in planned or name in others]
        surveys: list[Survey] = []
        for name in names:
            survey = await self._survey(plan, everyone[name], (), must=False)
            if survey is not None and survey.where:
                surveys.append(survey)
                break
        knows = [PeerAt(s.address, s.rig) for s in surveys]
        rest = [name for name in names if name not in [s.worker for s in surveys]]
        told = await asyncio.gather(*(self._survey(plan, everyone[name], knows, must=name in planned) for name in rest))
        return [*surveys, *(survey for survey in told if survey is not None)]

    async def _survey(self, plan: Plan, device: Device, peers: Sequence[PeerAt], must: bool) -> Survey | None:
        """What one Worker says; None where it cannot say, and need not. Raises WorkerFailed where it must."""
        try:
            return await _agent(device).survey(SurveyOrder(plan.to_json(), device.name, device.rig, device.address, tuple(peers)))
        except SwarmError as error:
            if must:
                raise WorkerFailed(device, error) from None
            return None

    async def _fetch(
        self, plan: Plan, order: FetchPlan, surveys: list[Survey], everyone: Mapping[str, Device], report: Report
    ) -> list[Survey]:
        """Have all Rigs fetch at once; returns what is where then, and who could not."""
        self.coming = [Coming(fetch) for fetch in order.fetches]
        text = plan.to_json()
        fetching = asyncio.gather(*(_fetch_one(everyone[c.fetch.worker], text, c) for c in self.coming))
        try:
            while not fetching.done():
                done, total = (sum(c.document()[key] for c in self.coming) for key in ("done_bytes", "total_bytes"))
                said = "; ".join(map(str, self.coming))
                report(f"fetching {plan.model.name}: {said}", done / total if total else 0.0, self.lines)
                await asyncio.wait({fetching}, timeout=REPORT_S)
            troubles = {c.fetch.rig: trouble for c, trouble in zip(self.coming, fetching.result(), strict=True)}
        finally:
            fetching.cancel()
        got = {c.fetch.rig: frozenset(c.fetch.files) for c in self.coming if not troubles[c.fetch.rig]}
        return [
            replace(s, held=s.held | got.get(s.rig, frozenset()), hub_trouble=troubles.get(s.rig) or s.hub_trouble) for s in surveys
        ]


async def _fetch_one(device: Device, plan: str, coming: Coming) -> str:
    """Why it could not be fetched; empty: it was. Raises WorkerFailed where its Worker is gone, which says nothing of the Hub."""
    try:
        async for done, total, rate in _agent(device).fetch(FetchOrder(plan, coming.fetch.files)):
            coming.done_bytes, coming.total_bytes, coming.bytes_per_s = done, total, rate
    except (NoSwarm, Expired) as error:
        raise WorkerFailed(device, error) from None
    except SwarmError as error:
        return str(error)
    return ""


def _decided(surveys: Sequence[Survey], everyone: Mapping[str, Device]) -> FetchPlan:
    try:
        return plan_fetches(surveys)
    except Unobtainable as error:
        raise WorkerFailed(everyone[error.worker], error.cause) from None


def _peers(plan: Plan, surveys: Sequence[Survey]) -> dict[str, tuple[PeerAt, ...]]:
    """By Worker: the other Rigs that have files, and at last the one that knows what the model is made of."""
    rigs = {s.worker: s.rig for s in surveys}
    there = {s.rig: s for s in reversed(surveys) if s.held}
    holders = [PeerAt(s.address, s.rig, tuple(sorted(s.held))) for s in reversed(there.values())]
    knows = [PeerAt(s.address, s.rig) for s in surveys[:1]]
    return {w.name: tuple(p for p in (*holders, *knows) if p.rig != rigs.get(w.name)) for w in plan.workers}


def _agent(device: Device) -> Agent:
    if device.agent is None:
        raise NoSwarm(f"{device.name} has no agent: its rig left")
    return device.agent
