"""The loop that brings the Plan in line with the Rigs and the model asked for, one change at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from cluster.adoption import Adoption, answers
from cluster.agents import Description
from cluster.bulletin import Bulletin
from cluster.changeover import Changeover, WorkerFailed, unless
from cluster.deciding import Deciding
from cluster.known_plans import KnownPlans
from cluster.measuring import Measuring
from cluster.parts import holding, same_assignment
from cluster.recovery import Recovery, recovery
from cluster.returning import Returning
from cluster.roster import Device, Roster
from cluster.supplying import Supplying
from cluster.target import Progress, Published, Target
from cluster.waiting_for import waiting_for
from cluster.weights_orders import PeerAt
from cluster.wishes import Wish, Wishes
from swarm.errors import DoesNotFit, SwarmError
from swarm.plan import Model, Plan

WITHOUT_S = 0.1
"""Between two looks whether a Plan does without those that go, while somebody else is waited for."""
T = TypeVar("T")


class RecoverFirst(Exception):
    """What is in force was lost in part, and can go on: that comes before what is wished."""


class Replanning:
    """Whoever changes something calls `want`; changes that arrive while one is under way are taken together next.

    `published` is what clients see; `wishes` knows what is held, and what somebody wishes.
    """

    def __init__(
        self,
        roster: Roster,
        target: Target,
        head: str,
        deciding: Deciding,
        measuring: Measuring,
        remember: Callable[[Target], None],
        adoption: Adoption,
        returning: Returning,
    ) -> None:
        self.bulletin = Bulletin()
        self.bell, self.say = self.bulletin.bell, self.bulletin.say
        self.watch, self.progress = self.bulletin.watch, self.bulletin.progress
        self.wishes = Wishes(target, remember, roster, self.bulletin, self.want)
        self.problem: SwarmError | None = None
        self._roster, self._head, self._deciding = roster, head, deciding
        self._measuring, self._adoption, self._returning = measuring, adoption, returning
        self.ordering = asyncio.Lock()  # held while orders are under way: no Agent is given up meanwhile
        self.supplying = Supplying(head)
        self._wanted = asyncio.Event()
        self._asked = self._answered = self._finished = 0
        self._last: Plan | None = None  # what the Workers hold, published or withdrawn
        self._adopting = False  # waits for the Workers of a Plan that was found
        self._known = KnownPlans(roster)

    @property
    def published(self) -> Published:
        """What clients see."""
        return self.bulletin.published

    @property
    def activity(self) -> Progress:
        """What goes on."""
        return self.bulletin.activity

    # What others ask for.

    def want(self) -> int:
        """Ask for another look; returns a number that grows."""
        self._asked += 1
        self._wanted.set()
        return self._asked

    async def settled(self) -> None:
        """Ask for another look, and wait until its outcome is published."""
        mine = self.want()
        await self.bell.until(lambda: self._answered >= mine)

    async def without(self, going: Callable[[], Iterable[Device]]) -> None:
        """Ask for other looks until the Plan does without these Devices, and wait until what it replaces is drained.

        Args:
            going: those of them that still shall go.
        """
        await self._drained()
        while (plan := self.published.plan) and {d.name for d in going()} & {w.name for w in plan.workers}:
            await asyncio.sleep(WITHOUT_S)
            await self._drained()

    def holding(self, device: Device) -> str:
        """What a Device's Worker holds, for people."""
        return holding(self.published.plan, device.name, device.name.replace("/", " "))

    # The loop.

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            asked = self._asked
            async with self.ordering:
                while not await self._round():
                    pass
                self._answered = asked
                self.bell.ring()
                if not self._adopting:
                    await self._drain()
            self._finished = asked
            self.wishes.settle()
            self.bulletin.activity = Progress("")
            self.bell.ring()

    async def _round(self) -> bool:
        """One try; False where something failed and the next try takes that into account."""
        wish = self.wishes.open
        if (wish.target if wish else self.wishes.target).unloaded:
            return self._rest(wish)
        if (adopted := await self._adopt(patient=wish is None)) is not None:
            return adopted
        if way := self._way_back():
            return await self._recover(way)
        if not wish and self._returning.soon(self._last, self.want):
            return True
        target = wish.target if wish else self.wishes.target
        description, kept = None, None if wish else self._last
        try:
            description = await self._for(wish, self._describe(target, again=wish is not None))
            measured = self._deciding.going_on(target, description, kept).model
            if wish:
                await self._measuring.everything(measured)
            elif self._must_measure(measured):
                return True
            description = await self._deciding.resolved(target, description, kept)
            plan = await self._deciding.decide(target, description.model, self._last)
            if plan.model.dtype != measured.dtype and (wish or self.published.plan is None):
                await self._measuring.everything(plan.model)  # it is chosen by memory, and its Plan by speed in just this dtype
                plan = await self._deciding.decide(target, description.model, self._last)
        except RecoverFirst:
            return False
        except SwarmError as error:
            return await self._give_up(error, wish, description)
        if not {w.name for w in plan.workers} <= {d.name for d in self._roster.usable()}:
            return False  # somebody went while the planner thought
        if self._in_force(plan) and self.published.plan:
            self.wishes.hold(target)
            now = replace(self.published.plan, notes=plan.notes, objective=plan.objective, predicted=plan.predicted)
            self.bulletin.publish(Published(now, "", description))
            if wish:
                wish.made = True
            return True
        return await self._change(plan, description, target, wish)

    def _rest(self, wish: Wish | None) -> bool:
        """Hold nothing: the next drain gives back what the Workers have."""
        self._adopting = False
        self._last = self.problem = None
        if wish:
            self.wishes.hold(wish.target)
            wish.made = True
        waiting = f"has unloaded {self.wishes.target.source}: a question brings it back, or `swarm load`"
        if self.published.waiting != waiting:
            self.bulletin.publish(Published(None, waiting))
        return True

    def _must_measure(self, model: Model) -> bool:
        """Whether to wait for measurements: there is nothing to plan on yet, or a Plan in force that they could change."""
        self._measuring.begin(model)
        if self.published.plan and self._deciding.missing(self.published.plan, model):
            return True
        if (under_way := self._measuring.names_under_way) and not self._deciding.hardware(model).devices:
            self.bulletin.publish(replace(self.published, plan=None, waiting=f"is measuring {', '.join(under_way)}"))
            return True
        return False

    def _way_back(self) -> Recovery | None:
        if self._last is None or self.published.plan is None:
            return None
        return recovery(self._last, {d.name: d for d in self._roster.usable()})

    async def _for(self, wish: Wish | None, order: Coroutine[Any, Any, T]) -> T:
        """What an order gives. Raises RecoverFirst where it is for a wish, and what is in force needs us meanwhile."""
        return await unless(lambda: RecoverFirst() if wish and self._way_back() else None, order)

    async def _recover(self, way: Recovery) -> bool:
        """Serve again at once. What is best with what is left is decided later, while that serves."""
        if self.wishes.open:
            self.want()  # it comes next
        epoch, description = self._deciding.next_epoch(), self.published.description
        assert description, "what is published is described"
        self._returning.later(self.want)
        return await self._change(replace(way.plan, epoch=epoch), description, self.wishes.target, None, way.loads)

    async def _change(self, plan: Plan, description: Description, target: Target, wish: Wish | None, loads: bool = True) -> bool:
        before = self._last
        plan = replace(plan, follows=before.epoch if before and before.model.model_id == plan.model.model_id else 0)
        await self._drain(newcomers=False)  # they may hold parts of this Plan
        usable = {d.name: d for d in self._roster.usable()}
        if not {w.name for w in plan.workers} <= usable.keys():
            return False  # somebody went meanwhile
        change = Changeover(self._known.plans, plan, usable, self.bulletin.report)
        try:
            peers: dict[str, tuple[PeerAt, ...]] = {}
            if loads:
                peers = await self._for(wish, self.supplying.supply(change.new, self._roster.usable(), self.bulletin.report))
            await self._for(None if change.pauses else wish, change.prepare(peers))
            await change.commit()
        except RecoverFirst:
            self._known.failed(plan)
            await self._drain()
            return False
        except WorkerFailed as failure:
            if wish and not failure.silent:
                wish.error = failure.cause
            else:
                failure.device.fail(str(failure.cause), failure.silent, failure.cause)
            if change.pauses:
                self.bulletin.publish(Published(None, f"lost its plan while changing it ({failure}): plans again", description))
            self._known.failed(plan)
            await self._drain()
            return False
        self._known.holds(plan)
        self.wishes.hold(target)
        self._last, self.problem = plan, None
        if wish:
            wish.made = True
        self.bulletin.publish(Published(change.new, "", description))
        return True

    async def _give_up(self, error: SwarmError, wish: Wish | None, description: Description | None) -> bool:
        """No Plan can be made: refuse the wish, or wait for what is missing with the old Plan withdrawn."""
        if self._roster.let_all_in():
            return False  # rather a Rig that may drop again than none
        if wish:
            wish.error = error
            return False
        refusals = [d.refusal for d in self._roster.devices() if d.refusal and d.rig_id == self._head]
        self.problem, target = next(iter(refusals), error), self.wishes.target
        shortage = self._deciding.shortage(target, description, error) if isinstance(error, DoesNotFit) else ""
        text = waiting_for(error, target.source, shortage, self._measuring.names_under_way, list(self._roster.devices()))
        self.bulletin.publish(Published(None, text, description))
        if isinstance(error, DoesNotFit) and description:
            hints = await self._deciding.hints(target, description.model)
            self.bulletin.publish(Published(None, "; ".join([text, *hints]), description))
        return True

    async def _drained(self) -> None:
        """Ask for another look, and wait until what it replaces is drained."""
        mine = self.want()
        await self.bell.until(lambda: self._finished >= mine)

    async def _adopt(self, patient: bool) -> bool | None:
        """Take a Plan over that Workers serve, where it is what is asked for. None: there is none to take over or wait for."""
        patient = patient and not any(rig.leaving for rig in self._roster.rigs.values())
        if self._last is not None or (found := await self._adoption.find(patient, self.want)) is None:
            self._adopting = False
            return None
        self._deciding.epoch = max(self._deciding.epoch, found.plan.epoch)
        wanted = found.served and await self._publish_found(found.plan)
        self._adopting = found.waits and (wanted or not found.served)
        if self._adopting:
            if not wanted:
                self.bulletin.publish(Published(None, "waits for its rigs to come back"))
            return True
        self._last = self._known.plans[found.plan.epoch] = found.plan
        return True if found.complete and wanted and patient else None

    async def _publish_found(self, plan: Plan) -> bool:
        """Publish a Plan that all its Workers serve; False where it is not what is asked for."""
        try:
            description = await self._describe(self.wishes.target, again=False)
        except SwarmError:
            return False
        description = self._deciding.going_on(self.wishes.target, description, plan)
        if answers(plan, description.model, self.wishes.target.load) and self.published.plan != plan:
            self.bulletin.publish(Published(plan, "", description))
        return self.published.plan == plan

    async def _describe(self, target: Target, again: bool) -> Description:
        return await self._deciding.describe(target, again, lambda message: self.bulletin.report(message, 0.0))

    def _in_force(self, plan: Plan) -> bool:
        here = {d.name: d.epochs for d in self._roster.devices()}
        return (
            self._last is not None
            and same_assignment(self._last, plan)
            and all(self._last.epoch in here[w.name] for w in plan.workers)
        )

    async def _drain(self, newcomers: bool = True) -> None:
        """Have the Workers give back all that is neither in force nor withdrawn only for now."""
        await self._known.drain(self._last.epoch if self._last else 0, newcomers)
