"""What people wish the swarm to hold: another model, nothing, or what was unloaded back. One wish at a time; the next waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from cluster.bulletin import Bulletin
from cluster.roster import Roster
from cluster.target import Progress, Published, Target
from swarm.errors import SwarmError


@dataclass
class Wish:
    """Another target that somebody asked for, and what became of it."""

    target: Target
    made: bool = False
    done: bool = False
    error: SwarmError | None = None


class Wishes:
    """Takes wishes; the loop of `Replanning` brings them about.

    `target` is what the swarm holds, and changes only once a wish for another is committed.

    Args:
        remember: takes what to hold whenever that changes.
        want: asks the loop for another look.
    """

    def __init__(
        self,
        target: Target,
        remember: Callable[[Target], None],
        roster: Roster,
        bulletin: Bulletin,
        want: Callable[[], object],
    ) -> None:
        self.target = target
        self._remember, self._roster, self._bulletin, self._want = remember, roster, bulletin, want
        self._under_way: Wish | None = None
        self._asked_meanwhile = False  # somebody asked while a wish was under way, which may leave nothing loaded

    @property
    def open(self) -> Wish | None:
        """What is to be brought about; None: nothing but what is held."""
        wish = self._under_way
        return wish if wish and not (wish.made or wish.error) else None

    async def change(self, ask: Callable[[Target], Target]) -> AsyncIterator[Progress]:
        """Wish for another model; see `Coordinator.change`."""
        await self._bulletin.bell.until(lambda: self._under_way is None)
        for device in self._roster.devices():
            if device.out and not device.silent:
                device.readmit()  # what it could not load was the old model
        wish = self._under_way = Wish(ask(self.target))
        self._bulletin.wished = True
        self._want()
        async for progress in self._bulletin.progress(lambda: wish.done):
            yield progress
        if wish.error:
            raise wish.error
        plan = self._bulletin.published.plan
        yield Progress(f"{plan.model.name} is loaded" if plan else self._bulletin.published.waiting, 1.0, done=True)

    def wake(self) -> None:
        """Somebody asks: bring back what was unloaded."""
        self._asked_meanwhile = self._under_way is not None and not self._under_way.made
        if self.target.unloaded and not self._asked_meanwhile:
            self.hold(replace(self.target, unloaded=False))
            self._bulletin.publish(Published(None, f"is bringing {self.target.source} back, which was unloaded"))
            self._bulletin.waking = True
            self._want()

    def hold(self, target: Target) -> None:
        """That is what is held from now on."""
        if target != self.target:
            self.target = target
            self._remember(target)

    def settle(self) -> None:
        """The loop has looked: who wished hears what became of it."""
        if (wish := self._under_way) and not self.open:
            wish.done, self._under_way = True, None
            self._bulletin.wished = False
            if self._asked_meanwhile:
                self.wake()
