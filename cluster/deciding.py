"""What the Coordinator hands to the planner: the model as it can run here, and the hardware as it was measured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from cluster.agents import Description
from cluster.auto_dtype import Way, best_fitting, fits, ladder, own_dtype, why_fewer
from cluster.had_before import HadBefore
from cluster.measuring import Measuring
from cluster.parts import same_assignment
from cluster.planner import Load, make_plan
from cluster.planner.hardware import Hardware, Link, Links, Measured
from cluster.planner.refine import refine
from cluster.ram_hint import ram_hint
from cluster.roster import Device, Roster
from cluster.router_counts import router_counts
from cluster.target import Target
from swarm.bits import AUTO, Bits
from swarm.errors import DoesNotFit, NoSwarm, gib
from swarm.plan import Model, Plan

STAYS = "stays as it is"
"""How the planner's note begins that says that nothing moves."""
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
        self._had_before = HadBefore()

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
        found = self._described[key]
        return replace(found, model=replace(found.model, kv=target.kv))

    def going_on(self, target: Target, description: Description, kept: Plan | None) -> Description:
        """With `auto`, in the dtype of the Plan that is kept; but in fp16 where that is bf16 and a Device has none.

        Args:
            kept: a Plan whose answers shall stay what they are; None, or one of another model: there is none.
        """
        model = description.model
        if target.dtype != AUTO or kept is None or kept.model.model_id != model.model_id:
            return description
        dtype = self._own(model) if kept.model.dtype == "bf16" else kept.model.dtype
        return replace(description, model=replace(model, dtype=dtype))

    async def resolved(self, target: Target, description: Description, kept: Plan | None) -> Description:
        """With `auto`, in the best dtype that fits, but see `going_on`: a swarm that answers does not change its answers."""
        model = description.model
        if target.dtype != AUTO or (kept and kept.model.model_id == model.model_id):
            return self.going_on(target, description, kept)
        return replace(description, model=await asyncio.to_thread(best_fitting, self._ways(model), self._load(target)))

    def unfit(self, model: Model | None) -> dict[str, str]:
        """By name, the Devices that cannot run the model's dtype, and why."""
        if model is None:
            return {}
        why = f"it has no {Bits.of(model.dtype).numbers}: load the model with --dtype auto, or fp16"
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
        epoch = self.next_epoch()
        self._measuring.book.took_paces({d.key: d.pace for d in self._roster.devices()})  # who plans after a restart knows it, too
        load, hardware, notes = self._load(target), self.hardware(model), list(self._notes(model))
        had = self._had_before.beside(before, self._roster.usable())
        try:
            plan = await asyncio.to_thread(make_plan, model, hardware, load, epoch, had)
        except DoesNotFit as error:
            if not load.standby:
                raise
            plan = await asyncio.to_thread(make_plan, model, hardware, replace(load, standby=False), epoch, had)
            notes.append(f"no standby copies: {error}")
        if target.dtype == AUTO:
            why = await asyncio.to_thread(why_fewer, self._parted(model)[0], load)
            notes += [why] if why else []
        notes += [model.again] if model.again else []
        plan = await self._refined(plan, hardware, load, self.counts(before, model))
        said = (note for note in plan.notes if same_assignment(before, plan) or not note.startswith(STAYS))
        return replace(plan, notes=(*said, *notes))

    async def without(self, target: Target, plan: Plan, names: Collection[str]) -> tuple[Plan, Hardware]:
        """The Plan that would be made if those Devices were not there, and the others. Raises DoesNotFit."""
        hardware, load = self.hardware(plan.model), self._load(target)
        left = replace(hardware, devices=tuple(d for d in hardware.devices if d.name not in names))
        had = self._had_before.beside(plan, [d for d in self._roster.usable() if d.name not in names])
        return await asyncio.to_thread(make_plan, plan.model, left, load, plan.epoch + 1, had), left

    def next_epoch(self) -> int:
        """One that was never used: it grows, and is no smaller than the seconds since 1970, which other Coordinators began with."""
        self.epoch = max(self.epoch + 1, int(self._clock()))
        return self.epoch

    def counts(self, plan: Plan | None, model: Model) -> dict[int, list[int]]:
        """What routers chose under the Plan in force, by Block; nothing where that is of another model."""
        if plan is None or plan.model.model_id != model.model_id:
            return {}
        return router_counts(d.status for d in self._roster.usable() if d.status and d.status.epoch == plan.epoch)

    async def would_change(self, plan: Plan, target: Target, counts: Mapping[int, Sequence[int]]) -> bool:
        """Whether what routers chose changes a Plan in force; not while one of its Workers is gone."""
        hardware = self.hardware(plan.model)
        if not {w.name for w in plan.workers} <= {d.name for d in hardware.devices}:
            return False
        return not same_assignment(plan, await self._refined(plan, hardware, self._load(target), counts))

    async def _refined(self, plan: Plan, hardware: Hardware, load: Load, counts: Mapping[int, Sequence[int]]) -> Plan:
        """In the light of what routers chose, see `refine`; a Plan that changes for it does not say that it stays."""
        better = await asyncio.to_thread(refine, plan, hardware, load, counts)
        if same_assignment(plan, better):
            return better
        return replace(better, notes=tuple(note for note in better.notes if not note.startswith(STAYS)))

    def shortage(self, target: Target, description: Description | None, error: DoesNotFit) -> str:
        """What the swarm waits for, for people."""
        dtype = description.model.dtype if description and target.dtype == AUTO else ""
        least = f" even in {dtype}" if dtype and Bits.of(dtype).experts.quantized else ""
        return f"needs {gib(error.needed_bytes)}{least}, has {gib(error.available_bytes)}: waiting for `swarm join ...`"

    async def hints(self, target: Target, model: Model) -> list[str]:
        """What would do where a model does not fit: a lesser dtype, where that is left to us, or host RAM (see `ram_hint`)."""
        for lesser, hardware in self._parted(model)[1] if target.dtype == AUTO else ():
            if await asyncio.to_thread(fits, lesser, hardware, self._load(target)):
                return [f"in {lesser.dtype} it would fit: `swarm load {target.source}`"]
        rigs = [rig for rig in self._roster.rigs.values() if not rig.leaving and any(d.device != "cpu" for d in rig.offer.devices)]
        free = {rig.name: rig.offer.ram_bytes for rig in rigs}
        hint = await asyncio.to_thread(ram_hint, model, self.hardware(model), self._load(target), free)
        return [hint] if hint else []

    def _load(self, target: Target) -> Load:
        spread = target.spread or any(r.offer.spread for r in self._roster.rigs.values() if not r.leaving)
        return replace(target.load, spread=spread)

    def _ways(self, model: Model) -> list[Way]:
        """What `auto` may choose from."""
        return [(way, self.hardware(way)) for way in ladder(model, self._own(model))]

    def _parted(self, model: Model) -> tuple[list[Way], list[Way]]:
        """Of these, the ones from the best to the model's own dtype, and those that are less; both empty for another dtype."""
        ways = self._ways(model)
        place = next((place for place, (way, _) in enumerate(ways) if way.dtype == model.dtype), None)
        return ([], []) if place is None else (ways[: place + 1], ways[place + 1 :])

    def _own(self, model: Model) -> str:
        """The checkpoint's dtype as these Devices can run it."""
        described = (d.model for (_, asked), d in self._described.items() if asked == AUTO)
        own = next((each.dtype for each in described if each.model_id == model.model_id), model.config.dtype)
        published = replace(model, dtype=own)
        return own_dtype(published, not any(self._lacks(d, published) for d in self._roster.usable()))

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
        return figures is not None and Bits.of(model.dtype).numbers not in figures.dtypes
