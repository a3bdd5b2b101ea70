"""From one Plan to the next in two phases: Prepare everywhere while the old serves, Commit everywhere, later Drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from cluster.agents import Agent, PrepareOrder
from cluster.parts import release_first
from cluster.roster import Device
from cluster.weights_orders import PeerAt
from swarm.errors import Expired, NoSwarm, SwarmError, gib
from swarm.plan import Plan

DRAIN_S = 10.0
"""How long frames in flight may take once their epoch is retired."""
PID_S = 30.0
"""How long a Worker may take to say which process it is; one that hangs is found by the patrol before."""
LOOK_S = 0.2
"""How often a change looks whether a Worker that carries an order out was found silent."""
T = TypeVar("T")
Report = Callable[[str, float], None]
"""Takes a message for people and the fraction done, 0 to 1."""


class WorkerFailed(SwarmError):
    """A Worker did not carry its order out; nothing was published.

    Args:
        silent: it did not answer at all; otherwise it refused, and `cause` says why.
    """

    def __init__(self, device: Device, cause: SwarmError) -> None:
        self.device, self.cause = device, cause
        self.silent = isinstance(cause, NoSwarm | Expired)
        super().__init__(f"{device.name} failed: {cause}")


class Changeover:
    """One change of the Plan, over the Devices that it names.

    Args:
        known: Plans by epoch; an epoch that a Worker may hold and that is not among them leaves no room beside it.
    """

    def __init__(self, known: Mapping[int, Plan], new: Plan, devices: Mapping[str, Device], report: Report) -> None:
        self._devices, self._report = devices, report
        self._progress: dict[str, tuple[int, int]] = {}
        self._loaded: dict[str, int] = {}
        """By Worker, the process that loads."""
        held = {w.name: [known.get(epoch) for epoch in devices[w.name].epochs] for w in new.workers}
        self.releases = tuple(name for name, plans in held.items() if release_first(plans, new, name))
        self.pauses = tuple(name for name in self.releases if any(held[name]))  # what others left there, nobody chats with here
        self.new = replace(new, notes=(*new.notes, *_pause_notes(self.pauses)))

    async def prepare(self, peers: Mapping[str, tuple[PeerAt, ...]]) -> None:
        """Load on all Workers at once. Raises WorkerFailed for the first that fails; the others stop loading.

        Args:
            peers: by Worker, the other Rigs that it may take weights from.
        """
        text = self.new.to_json()
        orders = [PrepareOrder(text, w.name, w.name in self.releases, peers.get(w.name, ())) for w in self.new.workers]
        await _all_or_first_failure([self._prepare_one(order) for order in orders])

    async def commit(self) -> None:
        """Let all Workers take frames of the new epoch. Raises WorkerFailed."""
        await _all_or_first_failure([self._commit_one(w.name) for w in self.new.workers])

    async def _prepare_one(self, order: PrepareOrder) -> None:
        device = self._devices[order.name]
        try:
            await while_it_answers(device, self._load(device, order))
        except SwarmError as error:
            raise WorkerFailed(device, error) from None

    async def _load(self, device: Device, order: PrepareOrder) -> None:
        self._loaded[device.name] = await _pid(device)
        async for loaded, total in _agent(device).prepare(order):
            self._progress[device.name] = loaded, total
            done, need = (sum(counts) for counts in zip(*self._progress.values(), strict=True))
            self._report(f"loading {self.new.model.name}: {gib(done)} of {gib(need)}", done / need if need else 1.0)

    async def _commit_one(self, name: str) -> None:
        device = self._devices[name]
        try:
            await while_it_answers(device, self._take_frames(device))
        except SwarmError as error:
            raise WorkerFailed(device, error) from None

    async def _take_frames(self, device: Device) -> None:
        if await _pid(device) != self._loaded[device.name]:
            raise NoSwarm(f"worker {device.name} was started anew while others were loading: what it had loaded is gone")
        await _agent(device).commit(self.new.epoch)
        device.epochs.add(self.new.epoch)  # at once: whoever is started anew while others commit is noted as empty again


def _pause_notes(releases: Sequence[str]) -> Iterator[str]:
    if releases:
        yield f"a pause: {', '.join(releases)} cannot hold the old plan beside this one and gave it up first"


async def drain(devices: Iterable[Device], keep: int) -> None:
    """Retire all epochs but one on Workers. One that does not answer is the patrol's to find, and is asked again next time."""
    asked = [d for d in devices if d.agent and not d.silent]
    await asyncio.gather(*(_drain_one(d, epoch) for d in asked for epoch in sorted(d.epochs) if epoch != keep))


async def _drain_one(device: Device, epoch: int) -> None:
    try:
        await while_it_answers(device, _agent(device).drain(epoch, DRAIN_S))
    except SwarmError:
        return
    device.epochs.discard(epoch)


async def while_it_answers(device: Device, order: Coroutine[Any, Any, T]) -> T:
    """What an order gives. Raises Expired as soon as its Worker is found silent: nobody waits for the order's own deadline."""
    return await unless(lambda: Expired(f"worker {device.name} stopped answering: {device.out}") if device.out else None, order)


async def unless(reason: Callable[[], Exception | None], order: Coroutine[Any, Any, T]) -> T:
    """What an order gives. Raises the reason not to wait for it as soon as there is one."""
    task = asyncio.ensure_future(order)
    try:
        while not (await asyncio.wait([task], timeout=LOOK_S))[0]:
            if (why := reason()) is not None:
                raise why
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _all_or_first_failure(steps: Sequence[Coroutine[Any, Any, None]]) -> None:
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pid(device: Device) -> int:
    """Of its Worker, asked now: what the patrol saw last may be the process before, or none yet. Raises SwarmError."""
    return (await _agent(device).status(PID_S)).pid


def _agent(device: Device) -> Agent:
    if device.agent is None:
        raise NoSwarm(f"{device.name} has no agent: its rig left")
    return device.agent
