"""The Coordinator: knows the Rigs, decides the Plan, and changes it when they come and go. No Ray in here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any

from cluster.absence import Absence
from cluster.adoption import Adoption
from cluster.agents import Agents
from cluster.deciding import Deciding
from cluster.flapping import Flapping
from cluster.idle_unload import IdleUnload, talked
from cluster.measurements import Measurements
from cluster.measuring import Measuring
from cluster.naming import Naming
from cluster.pace import Pace
from cluster.patrol import Patrol
from cluster.pauses import Pauses
from cluster.pausing import PAUSED, Pausing
from cluster.ray_presence import RayPresence
from cluster.replanning import Replanning
from cluster.returning import Returning
from cluster.roster import Device, Rig, RigOffer, Roster
from cluster.second_look import SecondLook
from cluster.status import status_document
from cluster.target import Progress, Published, Target
from swarm.errors import DoorError, ModelError, SwarmError

ABSENCE_LOOK_S = 1.0
NAME_KEPT_S = 7 * 86400.0
"""How long the name of a Rig that went without a word is kept for it."""


class Coordinator:
    """Serves any number of Rigs and watchers; one change of the Plan at a time.

    Args:
        target: what to hold.
        agents: appoints the Agents of Devices that join.
        head: id of the head Rig, which is asked first what a model is.
        clock: seconds since 1970; epochs start from it, so that a restarted Coordinator never uses one twice.
        remember: takes what to hold whenever that changes, as it was asked for.
        restarted: there was a Coordinator before: wait a while for all Workers of the Plan that one of them serves.
        book: what was measured before, and where it is kept; `pauses`: what is paused.
    """

    def __init__(
        self,
        target: Target,
        agents: Agents,
        head: str,
        clock: Callable[[], float],
        remember: Callable[[Target], None] = lambda target: None,
        restarted: bool = False,
        book: Measurements | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self._roster = Roster(clock, pauses)
        self._agents, self._head = agents, head
        book = book or Measurements()
        self._measuring = Measuring(self._roster, agents, book, clock, self._say, lambda: self._replanning.want())
        self._deciding = Deciding(self._roster, self._measuring, head, clock)
        adoption = Adoption(self._roster, agents, clock, restarted)
        self._absence = Absence(clock)
        returning = Returning(self._roster, self._absence)
        self._replanning = Replanning(self._roster, target, head, self._deciding, self._measuring, remember, adoption, returning)
        self._naming = Naming(self._roster, agents, self._replanning.holding, self._replanning.bell, self._replanning.ordering)
        self._patrol = Patrol(lambda: list(self._roster.devices()), self._replanning.want)
        self._second_look = SecondLook(
            lambda: self._measuring.idle,
            lambda: self.published.plan,
            lambda plan: self._deciding.counts(plan, plan.model),
            lambda plan, counts: self._deciding.would_change(plan, self.target, counts),
            self._replanning.want,
        )
        self.pausing = Pausing(self._roster, self._replanning, self._deciding, self._look)
        self._idle_unload = IdleUnload(time.monotonic, lambda: self.target.idle_unload_s, self._talked, self.unload)
        self._flapping = Flapping(clock)
        self._ray_presence = RayPresence(self._roster, agents, self._replanning.bell)
        self._tasks: list[asyncio.Task[None]] = []
        self._going: set[asyncio.Task[None]] = set()  # Rigs that leave

    async def start(self) -> None:
        """Begin to plan and to watch the Workers."""
        watching = (self._patrol.run(), self._forget_absent(), self._measuring.run(), self._second_look.run())
        runs = (self._replanning.run(), self._naming.run(), self._idle_unload.run(), self._ray_presence.run(), *watching)
        self._tasks = [asyncio.create_task(run) for run in runs]

    async def failed(self) -> None:
        """Wait until planning or watching ends, and raise what ended it: a bug, for nothing else does."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Stop planning and watching; the Workers go on."""
        tasks = [*self._tasks, *self._going]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._measuring.stop()
        await asyncio.gather(*(d.agent.close() for d in self._roster.devices() if d.agent), return_exceptions=True)

    @property
    def published(self) -> Published:
        return self._replanning.published

    def promise_name(self, rig_id: str, wanted: str) -> str:
        """The name that a Rig goes by here if it joins soon; no other Rig gets it meanwhile."""
        return self._roster.promise(rig_id, wanted)

    async def join(self, offer: RigOffer) -> Published:
        """Count a Rig's Devices in; answers when they are measured and in a Plan, or known to wait. Joining again is no harm.

        Measuring takes `MEASURE_S` a Device of one Rig, beside what other Rigs do, and `LINKS_S` at most for its links.

        Raises:
            ModelError: the head Rig cannot use the model that the swarm is asked to hold.
        """
        rig, before = self._roster.admit(offer)
        self._flapping.joined(offer.rig_id)
        if offer.rig_id != self._head:
            self._flapping.hold_back(rig, self.published.plan, self._replanning.want)
        try:
            await asyncio.gather(*(self._admit(device) for device in rig.devices))
            await asyncio.gather(*(d.agent.close() for d in before if d.agent), return_exceptions=True)
            await self._measure(rig)
        except asyncio.CancelledError:
            self._replanning.want()  # who joined hung up: its Devices are there all the same
            raise
        await self._replanning.settled()
        if rig.offer.rig_id == self._head and isinstance(self._replanning.problem, ModelError):
            raise self._replanning.problem
        return self.published

    def left_out(self, rig_id: str) -> list[str]:
        """Which of a Rig's Devices are not planned on because something is wrong with them, and what."""
        rig, unfit = self._roster.rigs.get(rig_id), self._unfit()
        out = {d.name: d.out or unfit.get(d.name, "") for d in rig.devices} if rig else {}
        return [f"{name} is left out: {why}" for name, why in out.items() if why]

    async def leave(self, rig_id: str) -> AsyncIterator[Progress]:
        """Move a Rig's Blocks elsewhere, then let it go. Raises DoorError for a Rig that is not here."""
        rig = self._rig(rig_id)
        if not rig.leaving:
            rig.leaving = True
            self._flapping.left(rig_id)
            # Not in the caller's own call: a Rig that stops listening, or is killed meanwhile, goes all the same.
            going = asyncio.create_task(self._let_go(rig))
            self._going.add(going)
            going.add_done_callback(self._going.discard)
        async for progress in self._replanning.progress(lambda: self._roster.rigs.get(rig_id) is not rig):
            yield progress
        waiting = self.published.waiting
        yield Progress(f"{rig.name} left" + (f"; the swarm {waiting}" if waiting else ""), 1.0, done=True)

    async def worker_restarted(self, rig_id: str, address: str) -> None:
        """A Worker is there again and holds nothing: prepare it anew. Raises DoorError for one that is not known."""
        device = next((d for d in self._rig(rig_id).devices if d.address == address), None)
        if device is None:
            raise DoorError(f"rig {rig_id} has no worker at {address}: let it join again")
        # Another Agent, too: the connection of the old one may still wait before it tries again.
        before, device.agent, device.holding = device.agent, self._agents.plain(device), ""
        device.readmit()
        device.status, device.misses = None, 0
        device.epochs.clear()
        self._replanning.want()
        if before:
            await before.close()

    def change(self, ask: Callable[[Target], Target]) -> AsyncIterator[Progress]:
        """Load what somebody asks for, given what is held once what others asked for before is there.

        While it cannot be had, the old model keeps serving.

        Raises:
            DoesNotFit: the Devices together hold too little.
            ModelError: the model's files cannot be used.
        """
        return self._replanning.wishes.change(ask)

    async def unload(self) -> int:
        """Give all weights and KV back; the next question, or `load`, brings the model back. Answers the bytes given back."""
        await self._look(self._roster.devices())
        before = self._held_bytes()
        async for _ in self.change(lambda now: replace(now, unloaded=True)):
            pass
        await self._look(self._roster.devices())
        return max(0, before - self._held_bytes())

    def wake(self) -> None:
        """Somebody asks: bring back what was unloaded."""
        self._replanning.wishes.wake()

    @property
    def waking(self) -> bool:
        """Whether what was unloaded is on its way back."""
        return self._replanning.bulletin.waking

    @property
    def target(self) -> Target:
        return self._replanning.wishes.target

    @property
    def head(self) -> str:
        """Id of the head Rig."""
        return self._head

    def voices(self, rig_id: str) -> list[Device]:
        """One Device of each other Rig that is here to stay, with a Worker that answers."""
        rigs = [r for i, r in self._roster.rigs.items() if i != rig_id and not r.leaving]
        answering = ([d for d in r.devices if d.agent and not d.silent] for r in rigs)
        return [devices[0] for devices in answering if devices]

    def worker_addresses(self) -> dict[str, list[str]]:
        """Where the Workers of each other Rig than the head listen, by the Rig's id."""
        return {i: [d.address for d in r.devices] for i, r in self._roster.rigs.items() if i != self._head}

    def every_address(self) -> list[str]:
        """Where all Workers listen, and the Decoders of Rigs."""
        return [*(d.address for d in self._roster.devices()), *(r.offer.text for r in self._roster.rigs.values() if r.offer.text)]

    @property
    def measurements(self) -> Measurements:
        """What is known of Devices and links."""
        return self._measuring.book

    def report_failure(self, worker: str) -> None:
        """A client saw a Worker fail: look at once."""
        self._patrol.suspect(worker)

    async def watch(self, rig_id: str = "") -> AsyncIterator[Published]:
        """What is published now, and everything that is published later. A Rig that watches is there."""
        with self._absence.watching(rig_id):
            try:
                async for published in self._replanning.watch():
                    yield published
            finally:
                if (rig := self._roster.rigs.get(rig_id)) and not rig.leaving:
                    self._flapping.dropped(rig_id)

    def status(self) -> dict[str, Any]:
        """The document of `swarm status --json`."""
        document = status_document(self._roster, self._replanning, self._measuring.book, self._unfit())
        return document | {"notes": [*document["notes"], *self._ray_presence.notes()]}

    async def _let_go(self, rig: Rig) -> None:
        await self._replanning.without(lambda: rig.devices if self._roster.rigs.get(rig.offer.rig_id) is rig else ())
        await self._forget(rig)

    async def _forget_absent(self) -> None:
        """Forget Rigs that went without a word; one that comes back joins again, under the name that its Workers have."""
        while True:
            await asyncio.sleep(ABSENCE_LOOK_S)
            for rig in self._absence.gone(list(self._roster.rigs.values())):
                self._roster.promise(rig.offer.rig_id, rig.name, NAME_KEPT_S)  # first: nobody may get it in between
                await self._forget(rig)

    async def _forget(self, rig: Rig) -> None:
        if self._roster.rigs.get(rig.offer.rig_id) is not rig:
            return  # it joined again
        del self._roster.rigs[rig.offer.rig_id]
        self.measurements.took_paces({d.key: Pace() for d in rig.devices})  # whoever slowed it down may be gone when it is back
        await asyncio.gather(*(d.agent.close() for d in rig.devices if d.agent), return_exceptions=True)
        self._replanning.want()

    def _say(self, what: str) -> None:
        self._replanning.say(what)

    async def _look(self, devices: Iterable[Device]) -> None:
        await asyncio.gather(*(self._patrol.hear(device) for device in devices))

    def _talked(self) -> Hashable:
        return object() if self._replanning.bulletin.wished else talked(self.published.plan, self._roster.devices())

    def _held_bytes(self) -> int:
        return sum(d.status.weights_bytes + d.status.kv_bytes for d in self._roster.devices() if d.status and not d.silent)

    def _unfit(self) -> dict[str, str]:
        plan = self.published.plan
        held = {d.name: r.held or PAUSED for r in self._roster.rigs.values() for d in r.devices if r.held or d.paused}
        return self._deciding.unfit(plan.model if plan else None) | held

    async def _measure(self, rig: Rig) -> None:
        """What was never measured of a Rig; without a model there is nothing to measure in, and planning says why."""
        with contextlib.suppress(SwarmError):
            description = await self._deciding.describe(self.target, again=False)
            description = self._deciding.going_on(self.target, description, self.published.plan)
            await self._measuring.rig(rig.offer.rig_id, description.model)

    async def _admit(self, device: Device) -> None:
        device.agent = self._agents.plain(device)
        if device.pace == Pace():
            device.pace = self.measurements.pace(device.key)
        await self._patrol.hear(device)

    def _rig(self, rig_id: str) -> Rig:
        rig = self._roster.rigs.get(rig_id)
        if rig is None:
            raise DoorError(f"rig {rig_id} is not in this swarm: let it join again")
        return rig
