"""What the Coordinator hands to the planner: the model as it can run here, and the hardware as it was measured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

from cluster.agents import Description
from cluster.measuring import Measuring
from cluster.planner import make_plan
from cluster.planner.hardware import Hardware, Link, Links, Measured
from cluster.ram_hint import Shortage, ram_hint
from cluster.roster import Device, Roster
from cluster.target import Target
from swarm.errors import DoesNotFit, NoSwarm
from swarm.plan import Model, Plan

UNREACHABLE = Link(10.0, 1e5)
"""What a link that could not be measured is priced at: whatever else there is, is better."""
Say = Callable[[str], None]


class Deciding:
    """Asks what a model is, and decides Plans for it.

    Args:
        head: id of the head Rig, which is asked first what a model is, and where clients talk from.
        clock: seconds since 1970: epochs are never used twice.
    """

    def __init__(self, roster: Roster, measuring: Measuring, head: str, clock: Callable[[], float]) -> None:
        self.epoch = 0
        self._roster, self._measuring, self._head, self._clock = roster, measuring, head, clock
        self._described: dict[tuple[str, str], Description] = {}

    async def describe(self, target: Target, again: bool, say: Say = lambda message: None) -> Description:
        """Ask the head Rig what the model is; any other Rig where that has no Worker. Raises SwarmError."""
        key = (target.source, target.dtype)
        if again or key not in self._described:
            devices = sorted(self._roster.usable(), key=lambda d: d.rig_id != self._head)
            agent = next((d.agent for d in devices if d.agent), None)
            if agent is None:
                raise NoSwarm(f"the swarm has no worker that answers, so it cannot look at {target.source}: see `swarm status`")
            say(f"looking at {target.source}")
            self._described[key] = await agent.describe(target.source, target.dtype)
        return self._described[key]

    def resolved(self, target: Target, description: Description, before: Plan | None) -> Description:
        """With `auto`, in fp16 where a Device has no bf16; what runs in fp16 for that reason goes on in it."""
        model = description.model
        if target.dtype != "auto" or model.dtype != "bf16":
            return description
        halved = before is not None and (before.model.model_id, before.model.dtype) == (model.model_id, "fp16")
        if halved or any(self._lacks(d, model) for d in self._roster.usable()):
            return replace(description, model=replace(model, dtype="fp16"))
        return description

    def unfit(self, model: Model | None) -> dict[str, str]:
        """By name, the Devices that cannot run the model's dtype, and why."""
        if model is None:
            return {}
        why = f"it has no {model.dtype}: load the model with --dtype auto, or fp16"
        return {d.name: why for d in self._roster.usable() if self._lacks(d, model)}

    def hardware(self, model: Model) -> Hardware:
        """The Devices that can be planned on, and their links, as they were measured."""
        ready = [(d, f) for d in self._roster.usable() if (f := self._measuring.ready(d, model)) and not self._lacks(d, model)]
        devices = tuple(Measured(d.spec, replace(f.speed, slowed=d.pace.slowed)) for d, f in ready)
        names = {rig_id: rig.name for rig_id, rig in self._roster.rigs.items()}
        known = {
            (names[a], names[b]): figures.link or UNREACHABLE
            for (a, b), figures in self._measuring.book.links().items()
            if a in names and b in names
        }
        return Hardware(devices, Links(known), names.get(self._head, ""))

    def missing(self, plan: Plan | None, model: Model) -> list[str]:
        """The Workers of a Plan that are here and not measured: it was adopted, and they serve too much to be."""
        here = {d.name: d for d in self._roster.usable()}
        names = [w.name for w in plan.workers if w.name in here] if plan else []
        return [name for name in names if self._measuring.ready(here[name], model) is None]

    async def decide(self, target: Target, model: Model, before: Plan | None) -> Plan:
        """In a thread: a large swarm takes seconds. Raises DoesNotFit."""
        spread = target.spread or any(r.offer.spread for r in self._roster.rigs.values() if not r.leaving)
        self.epoch = max(self.epoch + 1, int(self._clock()))
        load = replace(target.load, spread=spread)
        hardware, notes = self.hardware(model), list(self._notes(model))
        try:
            plan = await asyncio.to_thread(make_plan, model, hardware, load, self.epoch, before)
        except DoesNotFit as error:
            if not load.standby:
                raise
            plan = await asyncio.to_thread(make_plan, model, hardware, replace(load, standby=False), self.epoch, before)
            notes.append(f"no standby copies: {error}")
        return replace(plan, notes=(*plan.notes, *notes))

    async def ram_hint(self, target: Target, model: Model, error: DoesNotFit) -> list[str]:
        """What host RAM of which Rig would do; see `ram_hint`."""
        rigs = [rig for rig in self._roster.rigs.values() if not rig.leaving and any(d.device != "cpu" for d in rig.offer.devices)]
        free = {rig.name: rig.offer.ram_bytes for rig in rigs}
        hint = await asyncio.to_thread(ram_hint, Shortage(model, self.hardware(model), target.load, error, free))
        return [hint] if hint else []

    def _notes(self, model: Model) -> Iterator[str]:
        for device in self._roster.usable():
            where = f"{device.rig} {device.name.removeprefix(f'{device.rig}/')}"
            if self._lacks(device, model):
                yield f"{where} is left out: {self.unfit(model)[device.name]}"
            elif device.pace.slowed > 1:
                yield f"{where} reads {device.pace.slowed:.1f} times slower than it did"
        names = {rig_id: rig.name for rig_id, rig in self._roster.rigs.items()}
        for (a, b), figures in self._measuring.book.links().items():
            if figures.link is None and a in names and b in names:
                yield f"no link from {names[a]} to {names[b]}: {figures.why}"

    def _lacks(self, device: Device, model: Model) -> bool:
        """Whether it was measured and does not compute the model's dtype well."""
        figures = self._measuring.ready(device, model)
        return figures is not None and model.dtype not in figures.dtypes
