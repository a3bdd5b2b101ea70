"""Has Devices and links measured: once when a Rig joins, and again while nobody talks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from cluster.agents import Agents, LinkOrder
from cluster.measurements import Figures, LinkFigures, Measurements, Shape
from cluster.pace import SLOWER
from cluster.roster import Device, Rig, Roster
from swarm.errors import Expired, Full, NoSwarm, SwarmError, Unreachable
from swarm.plan import Model

LINK_S = 0.5
"""How long measuring one link may take when a Rig joins; twice that while nobody talks."""
LINKS_S = 3.0
"""How long all links of a Rig that joins may take together; in a large swarm each takes less."""
LINK_LEAST_S = 0.1
LOOK_S = 1.0
REFUSALS = 3
"""After so many it is measured beside what it serves: a swarm that is never idle would never plan on it."""
IDLE_S = 60.0
"""Nobody talks when no Worker has had a Session or a row for so long."""
AGAIN_S = 600.0
"""What may be measured again is, so long after the last time."""
Key = tuple[str, ...]


class Measuring:
    """Measures through the Agents: different Rigs at the same time, of one Rig its GPUs at once and its CPU Devices in turn.

    Args:
        say: takes what is being measured, for people; empty: nothing any more.
        changed: called when there is something new to plan with.
        clock: seconds, growing.
    """

    def __init__(
        self,
        roster: Roster,
        agents: Agents,
        book: Measurements,
        clock: Callable[[], float],
        say: Callable[[str], None],
        changed: Callable[[], object],
    ) -> None:
        self.book = book
        self.idle = False  # nobody has talked for a while
        self._roster, self._agents, self._clock = roster, agents, clock
        self._say, self._changed = say, changed
        self._shape: Shape | None = None
        self._first: dict[str, asyncio.Task[None]] = {}  # by Rig, while it is measured for the first time
        self._computing: set[str] = set()  # of those, the Rigs whose links have not begun
        self._locks: dict[str, asyncio.Lock] = {}  # by Rig: two measurements would share its cores and its cable
        self._busy_at, self._rows = clock(), 0
        self._refused: Counter[str] = Counter()  # how often in a row a Device of which nothing is known served
        self._due: dict[Key, float] = {}  # when what could not be measured, or is slow, was tried last

    def begin(self, model: Model) -> None:
        """Measure in the background what never was, for this model from now on; `changed` is called after each Rig."""
        self._shape = Shape.of(model)
        self._begin(self._shape)

    async def rig(self, rig_id: str, model: Model) -> None:
        """Wait until a Rig's Devices are measured, or known not to be measurable now; goes on by itself if nobody waits."""
        self.begin(model)
        if task := self._first.get(rig_id):
            await asyncio.wait([task])

    async def everything(self, model: Model) -> None:
        """Measure all usable Devices in just this model's dtype and shape; those that serve keep the figures nearest to it."""
        self.begin(model)
        shape = Shape.of(model)
        rigs = [[d for d in rig.devices if self._wants(d, shape)] for rig in self._roster.rigs.values()]
        await asyncio.gather(*(self._devices(devices, shape) for devices in rigs if devices), *self._first.values())

    @property
    def names_under_way(self) -> list[str]:
        """The Devices of Rigs that are measured for the first time now."""
        return [d.name for rig_id in self._first if (rig := self._roster.rigs.get(rig_id)) for d in rig.devices if not d.out]

    def ready(self, device: Device, model: Model) -> Figures | None:
        """What to plan with; None while it is not measured, or another Device of its Rig is not yet."""
        if device.rig_id in self._first:
            return None
        return self.book.figures(device.key, Shape.of(model))

    async def run(self) -> None:
        """Measure what could not be before, and again what may have changed while nobody talks; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.idle = self._idle()
            if self._shape is None:
                continue
            self._begin(self._shape)
            if self.idle and not self._first:
                await self._again(self._shape)

    async def stop(self) -> None:
        tasks = list(self._first.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # One Rig for the first time.

    def _begin(self, shape: Shape) -> None:
        for rig_id, rig in self._roster.rigs.items():
            if rig_id not in self._first and self._unmeasured(rig, shape):
                task = self._first[rig_id] = asyncio.create_task(self._new_rig(rig, shape))
                task.add_done_callback(partial(self._finished, rig_id))

    def _unmeasured(self, rig: Rig, shape: Shape) -> list[Device]:
        here = [] if rig.leaving else [d for d in rig.devices if d.usable]
        return [d for d in here if self.book.figures(d.key, shape) is None]

    def _wants(self, device: Device, shape: Shape) -> bool:
        here = device.usable and device.rig_id not in self._first
        return here and self.book.exact(device.key, shape) is None

    async def _new_rig(self, rig: Rig, shape: Shape) -> None:
        self._computing.add(rig.offer.rig_id)
        try:
            await self._devices(self._unmeasured(rig, shape), shape)
        finally:
            self._computing.discard(rig.offer.rig_id)
        # Rigs whose Devices are still measured come to this one when they are done: nobody waits for them.
        there = [r for i, r in self._roster.rigs.items() if i not in self._computing and not r.leaving]
        others = [r for r in there if self._voice(r)]
        missing = [other for other in others if self.book.link(rig.offer.rig_id, other.offer.rig_id) is None]
        for other in missing:
            if self.book.link(rig.offer.rig_id, other.offer.rig_id) is None:  # nor did the other one, meanwhile
                await self._link(rig, other, max(LINK_LEAST_S, min(LINK_S, LINKS_S / len(missing))))

    def _finished(self, rig_id: str, task: asyncio.Task[None]) -> None:
        self._first.pop(rig_id, None)
        self._say("")
        if not task.cancelled():
            task.result()
            self._changed()

    async def _devices(self, devices: Sequence[Device], shape: Shape) -> None:
        """Devices of one Rig."""
        cpus = [d for d in devices if d.offer.device == "cpu"]
        gpus = [d for d in devices if d.offer.device != "cpu"]
        async with self._alone(*{d.rig_id for d in devices}):
            await asyncio.gather(*(self._device(d, shape) for d in gpus))
            for device in cpus:
                await self._device(device, shape)

    @asynccontextmanager
    async def _alone(self, *rig_ids: str) -> AsyncIterator[None]:
        """While nothing else is measured on these Rigs; in order of their ids, so that nobody waits in a circle."""
        async with AsyncExitStack() as held:
            for rig_id in sorted(set(rig_ids)):
                await held.enter_async_context(self._locks.setdefault(rig_id, asyncio.Lock()))
            yield

    async def _device(self, device: Device, shape: Shape) -> bool:
        """Whether that says something new. One that fails is left out, and says why."""
        self._say(f"measuring {device.name}")
        agent = self._agents.plain(device)  # of its own: naming the Device's own Agent anew must not cut this short
        try:
            beside = self._refused[device.key] >= REFUSALS
            figures = replace(await agent.measure(shape, beside), at=self._clock())
        except Full:  # it serves, and is asked again when nobody talks
            self._refused[device.key] += self.book.figures(device.key, shape) is None
            return self.book.recall(device.key)
        except (NoSwarm, Expired):
            return False  # the patrol sees that, and looks whether it is back
        except SwarmError as error:
            if device.status and device.status.weights_bytes and self.book.figures(device.key, shape):
                return False  # it is full of what it serves, and goes by what is known of it
            device.fail(f"it cannot be measured: {error}", silent=False)
            return True
        finally:
            await agent.close()
        del self._refused[device.key]
        room = device.spec.memory_bytes
        device.found_free(figures.free_bytes)
        return self._took(device, shape, figures) or device.spec.memory_bytes != room

    def _took(self, device: Device, shape: Shape, figures: Figures) -> bool:
        """One that reads slower than it ever did keeps its figures and counts as slowed: it may be over at any time."""
        best = self.book.exact(device.key, shape)
        slowed = best.speed.bandwidth / figures.speed.bandwidth if best else 1.0
        if best and slowed > SLOWER:
            self._due["device", device.key] = self._clock()
            changed = abs(slowed - device.pace.slowed) > 0.1
            device.pace = device.pace.measured(slowed)
            return changed
        recovered = device.pace.slowed != 1.0
        device.pace = device.pace.measured(1.0)
        return self.book.took(device.key, shape, figures) or recovered

    # Links.

    async def _link(self, a: Rig, b: Rig, budget_s: float) -> bool:
        """One Worker of each of two Rigs; inside one, its first two. Whether that says something new."""
        here, there = self._voice(a), self._voice(b, 1 if a is b else 0)
        if here is None or there is None:
            return False
        agent, order = self._agents.plain(here), LinkOrder(there.address, budget_s, there.name if a is b else "")
        async with self._alone(a.offer.rig_id, b.offer.rig_id):
            self._say(f"measuring the link from {a.name} to {b.name}" if a is not b else f"measuring inside {a.name}")
            try:
                found = LinkFigures(await agent.measure_link(order))
            except Unreachable as error:
                found = LinkFigures(None, str(error))
            except SwarmError:
                return False  # one of them is gone, which the patrol sees
            finally:
                await agent.close()
        return self.book.took_link(a.offer.rig_id, b.offer.rig_id, replace(found, at=self._clock()))

    def _voice(self, rig: Rig, place: int = 0) -> Device | None:
        """The Worker that speaks for a Rig."""
        able = [d for d in rig.devices if d.agent and not d.out]
        return able[place] if len(able) > place else None

    # Again, while nobody talks.

    def _idle(self) -> bool:
        now, devices = self._clock(), list(self._roster.devices())
        statuses = [d.status for d in devices if d.status]
        rows, sessions = sum(s.tokens for s in statuses), sum(s.sessions for s in statuses)
        if rows != self._rows or sessions:
            self._busy_at, self._rows = now, rows
        return now - self._busy_at >= IDLE_S

    async def _again(self, shape: Shape) -> None:
        """The next thing that is due, one at a time: somebody may begin to talk in between."""
        now = self._clock()
        for rig in list(self._roster.rigs.values()):
            for device in rig.devices:
                if device.usable and self._device_is_due(device, shape, now):
                    self._due["device", device.key] = now
                    self._tell(await self._device(device, shape))
                    return
        rigs = [r for r in self._roster.rigs.values() if not r.leaving]
        for place, a in enumerate(rigs):
            for b in rigs[place:]:
                if self._link_is_due(a, b, now):
                    self._due["link", a.offer.rig_id, b.offer.rig_id] = now
                    self._tell(await self._link(a, b, 2 * LINK_S))
                    return

    def _device_is_due(self, device: Device, shape: Shape, now: float) -> bool:
        known = self.book.exact(device.key, shape)
        tried = self._due.get(("device", device.key), 0.0)
        if device.pace.slowed > 1 or known is None:
            return now - tried >= IDLE_S
        unused = device.status is not None and not (device.status.epoch and device.status.weights_bytes)
        return unused and now - max(tried, known.at) >= AGAIN_S

    def _link_is_due(self, a: Rig, b: Rig, now: float) -> bool:
        known = self.book.link(a.offer.rig_id, b.offer.rig_id)
        tried = max(self._due.get(("link", a.offer.rig_id, b.offer.rig_id), 0.0), known.at if known else 0.0)
        both = self._voice(a) and self._voice(b, 1 if a is b else 0)
        return both is not None and now - tried >= (AGAIN_S if known and known.link else IDLE_S)

    def _tell(self, changed: bool) -> None:
        self._say("")
        if changed:
            self._changed()
