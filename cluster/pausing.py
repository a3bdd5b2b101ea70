"""Giving Devices back to their people for a while, and having them again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from cluster.changeover import drain
from cluster.deciding import Deciding
from cluster.planner.moving import moving_s
from cluster.replanning import Replanning
from cluster.roster import Device, Roster
from cluster.target import Progress
from swarm.errors import DoesNotFit, DoorError, UsageError, gib

PAUSED = "paused by its people"


@dataclass(frozen=True)
class Loss:
    """What pausing Devices will cost, as far as is predicted.

    Args:
        devices: their names.
        num_bytes: that they hold now.
        seconds: until the others have loaded what they held.
        before: tokens/s of one stream now, and `after` without them; 0: there is no Plan, or there will be none.
        shortage: why there will be none; empty: there will.
    """

    devices: tuple[str, ...]
    num_bytes: int
    seconds: float = 0.0
    before: float = 0.0
    after: float = 0.0
    shortage: str = ""


class Pausing:
    """Marks Devices and has the Plan changed.

    Args:
        look: asks Devices for their Status.
    """

    def __init__(
        self, roster: Roster, replanning: Replanning, deciding: Deciding, look: Callable[[list[Device]], Awaitable[None]]
    ) -> None:
        self._roster, self._replanning, self._deciding, self._look = roster, replanning, deciding, look

    async def loss(self, rig: str, device: str = "") -> Loss:
        """What pausing would cost. Raises what `devices` raises."""
        chosen = self.devices(rig, device)
        await self._look(chosen)
        names, held = tuple(d.name for d in chosen), sum(map(_held_bytes, chosen))
        plan = self._replanning.published.plan
        before = plan.predicted.tokens_per_s if plan and plan.predicted else 0.0
        if plan is None or not any(w.name in names for w in plan.workers):
            return Loss(names, held, 0.0, before, before)
        try:
            left, hardware = await self._deciding.without(self._replanning.wishes.target, plan, names)
        except DoesNotFit as error:
            return Loss(names, held, 0.0, before, 0.0, f"needs {gib(error.needed_bytes)}, has {gib(error.available_bytes)}")
        after = left.predicted.tokens_per_s if left.predicted else 0.0
        return Loss(names, held, moving_s(plan, left, hardware), before, after)

    async def pause(self, rig: str, device: str = "") -> AsyncIterator[Progress]:
        """Move what the Devices hold, and have them give it back. Raises what `devices` raises."""
        chosen = self.devices(rig, device)
        before = sum(map(_held_bytes, chosen))
        async for progress in self._set(chosen, True):
            yield progress
        await self._look(chosen)
        freed = gib(max(0, before - sum(map(_held_bytes, chosen))))
        yield Progress(f"{_said(chosen)} paused: {freed} given back{self._waiting}", 1.0, done=True)

    async def resume(self, rig: str, device: str = "") -> AsyncIterator[Progress]:
        """Plan with the Devices again. Raises what `devices` raises."""
        chosen = self.devices(rig, device)
        async for progress in self._set(chosen, False):
            yield progress
        yield Progress(f"{_said(chosen)} planned on again{self._waiting}", 1.0, done=True)

    def devices(self, rig: str, device: str = "") -> list[Device]:
        """Those of a Rig, by its name or its id; `device`: only the one of that name there.

        Raises:
            DoorError: no such Rig. UsageError: no such Device.
        """
        found = next((r for i, r in self._roster.rigs.items() if rig in (i, r.name)), None)
        if found is None:
            names = ", ".join(r.name for r in self._roster.rigs.values()) or "none yet"
            raise DoorError(f"{rig} is no rig of this swarm: it has {names}")
        chosen = [d for d in found.devices if device in ("", d.place, d.name)]
        if not chosen:
            there = ", ".join(d.place for d in found.devices)
            raise UsageError(f"{found.name} has no device {device}: give --device with one of {there}")
        return chosen

    async def _set(self, devices: list[Device], paused: bool) -> AsyncIterator[Progress]:
        self._roster.pauses.set([(d.rig_id, d.place) for d in devices], paused)
        for device in devices:
            device.paused = paused
        moving = asyncio.create_task(self._move({d.name for d in devices}))  # goes on, also where nobody listens any more
        moving.add_done_callback(lambda _: self._replanning.bell.ring())
        async for progress in self._replanning.progress(moving.done):
            yield progress
        await moving

    async def _move(self, names: set[str]) -> None:
        def paused() -> list[Device]:
            return [d for d in self._roster.devices() if d.paused and d.name in names]

        await self._replanning.without(paused)
        async with self._replanning.ordering:  # where the others do not hold the model, what was withdrawn goes, too
            await drain(paused(), 0)

    @property
    def _waiting(self) -> str:
        published = self._replanning.published
        return f"; the swarm {published.waiting}" if published.plan is None and published.waiting else ""


def _held_bytes(device: Device) -> int:
    status = device.status
    return status.weights_bytes + status.kv_bytes if status and not device.silent else 0


def _said(devices: list[Device]) -> str:
    names = ", ".join(d.name.replace("/", " ") for d in devices)
    return f"{names} {'is' if len(devices) == 1 else 'are'}"
