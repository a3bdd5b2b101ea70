"""The entry Stage's own work: Steps of many clients in, micro-batches of fair shares on their way, reports back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass, field

from swarm.errors import Expired, Full, Refused, StepError
from swarm.plan import MAX_WAIT_S
from swarm.wire.status import to_step
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.around import Around
from swarm.worker.batching import BesideRows, Group, Places, alone_rows
from swarm.worker.callers import Caller
from swarm.worker.candidates import check_ask
from swarm.worker.entry_queue import EntryQueue
from swarm.worker.epoch import Epoch
from swarm.worker.flow import Flow
from swarm.worker.frames import Batch, Outcome
from swarm.worker.ticket import Inside
from swarm.worker.waiting_step import Reports, WaitingStep, is_answering

RECENT_S = 0.25
"""A Session whose last token is no older than this counts as answering: its next Step is about to come."""
OVERDUE_S = 5.0
"""Beyond its Steps' own deadlines, how long a micro-batch may stay unreported before its place is given away."""


@dataclass
class _UnderWay:
    steps: list[WaitingStep]
    deadline: float
    waited_s: float
    """For their micro-batch, in the mean."""
    answered: set[bytes] = field(default_factory=set)
    """Sessions whose next Step came: their clients have the answer, whether or not its report has come back yet."""

    @property
    def group(self) -> Group:
        """What of it is still under way. Its running answers count until the last of them is answered."""
        running = [step for step in self.steps if step.answering]
        open_now = [step for step in self.steps if step.session not in self.answered]
        prompt_rows = sum(step.num_rows for step in open_now if not step.answering)
        return Group(len(running) if any(step.answering for step in open_now) else 0, prompt_rows)

    def follow(self, step: WaitingStep) -> None:
        """A client sends the Step behind one that it asked something of when it has the answer."""
        if any(s.session == step.session and s.serial < step.serial and s.header.ask.rows for s in self.steps):
            self.answered.add(step.session)


class EntryStage:
    """Forms the micro-batches of the Route that begins here."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._queue: EntryQueue[WaitingStep] = EntryQueue()
        self._under_way: dict[int, _UnderWay] = {}
        self._next = 0
        self._computing = 0
        self._beside = BesideRows()
        self._around = Around()
        self._turns = 0
        """Micro-batches with running answers since the last one with prompt, that one included."""
        self._answered_at: dict[bytes, float] = {}
        """Session → when its last Step as a running answer came, or was done."""
        self._back_by = 0.0
        """When running answers that were reported last have surely sent their next Steps."""
        self._pump_planned = False

    async def submit(self, frames: AsyncIterable[pb.MicroBatch], caller: Caller) -> AsyncGenerator[pb.Report, None]:
        """One client's stream: its Steps in, reports of those that fail out. For what it raises see `Outbox.check`."""
        reports = Reports(lambda: reader.cancel(), caller.pile)
        reader = asyncio.get_running_loop().create_task(self._read(frames, reports, caller))
        reader.add_done_callback(lambda _: reports.end())
        try:
            async for report in reports:
                yield report
            reports.check(reader)
        finally:
            reader.cancel()
            self._queue.remove(lambda step: step.reports is reports)

    def pump(self, early: bool = False) -> None:
        """Form micro-batches while the compute thread has none waiting and the Route has room.

        Args:
            early: the compute thread still has the end of one to do.
        """
        self._pump_planned = False
        if not self._queue:
            return
        if self._flow.epochs.current is None:
            self._fail_all(lambda _: True, self._flow.epochs.moved())
        while self._queue and not self._computing:
            if (epoch := self._flow.epochs.current) is None or not (steps := self._next_batch(epoch, early)):
                return
            self._send(steps)

    def nearly(self) -> None:
        """The compute thread is at the end of a micro-batch: the next one shall lie ready when it is there."""
        self._computing = max(0, self._computing - 1)
        self.pump(early=True)

    def computed(self, batch: Batch, outcome: Outcome) -> None:
        """The compute thread has finished a micro-batch."""
        if outcome.done and outcome.timing and batch.epoch.is_first:
            prompt_rows = sum(step.num_rows for step, _ in outcome.done if not is_answering(step.header))
            self._beside.took(prompt_rows, outcome.timing.compute_s)
        if not batch.nearly:
            self._computing = max(0, self._computing - 1)
        self.pump()

    def sweep(self, now: float) -> None:
        """Give up Steps that wait beyond their deadlines, and micro-batches that nobody reported long after theirs."""
        self._fail_all(lambda step: step.deadline < now, Expired("the step waited longer than its deadline", self._flow.name))
        for number in [n for n, u in self._under_way.items() if u.deadline + OVERDUE_S < now]:
            late = Expired("no stage further down reported the step in time", self._flow.name)
            for step in self._under_way.pop(number).steps:
                self._fail(step, late)
        self._around.forget(now - RECENT_S)
        here = self._queue.answering() | self._under_way_answering()  # a Step may take longer than that
        self._answered_at = {s: t for s, t in self._answered_at.items() if now - t < RECENT_S or s in here}
        self.pump()

    async def _read(self, frames: AsyncIterable[pb.MicroBatch], reports: Reports, caller: Caller) -> None:
        async for frame in frames:
            now = time.monotonic()
            for header in frame.steps:
                where = (frame.model_id, frame.epoch, frame.route)
                deadline, size = now + header.seconds_left, header.ByteSize()
                self._push(WaitingStep(header, where, now, deadline, reports, caller, size), now)
            if not self._pump_planned:  # what arrives in one go shall be one micro-batch
                self._pump_planned = True
                asyncio.get_running_loop().call_soon(self.pump)

    def _push(self, step: WaitingStep, now: float) -> None:
        for old in self._queue.overtaken(step):
            self._fail(old, Expired("a newer step of this session begins before it", self._flow.name))
        try:
            self._check(step)
        except StepError as error:
            self._fail(step, error)
        else:
            if step.answering:
                self._around.back(step.session, now)
                self._answered_at[step.session] = now
            else:
                self._answered_at.pop(step.session, None)
            for under_way in self._under_way.values():
                under_way.follow(step)
            self._queue.push(step)

    def _check(self, step: WaitingStep) -> None:
        """What would fail the whole micro-batch, or wait for ever or for nothing, never gets into one. Raises StepError."""
        epoch = self._flow.epochs.serving(step.frame[1], step.frame[0])
        plan = epoch.plan
        if not 0 < step.num_rows <= plan.max_rows:
            raise Refused(f"a step of {step.num_rows} rows; the plan allows 1 to {plan.max_rows}", self._flow.name)
        if not 0 <= step.header.seconds_left <= MAX_WAIT_S:
            raise Refused(f"a step that waits {step.header.seconds_left} s; 0 to {MAX_WAIT_S:.0f} are allowed", self._flow.name)
        check_ask(step.header.ask, step.num_rows, plan.model.config.vocab)
        session, header = epoch.pool.table.find(step.session), step.header
        header.stages = session.stages_for(header.position, step.num_rows, asked=header.ask.rows > 0)
        step.caller.check_waiting(step.num_rows, step.num_bytes)
        if self._queue.rows_with(step) > plan.context + plan.max_rows:
            raise Full("this session sends more than it has positions for", self._flow.name)

    def _next_batch(self, epoch: Epoch, early: bool) -> list[WaitingStep]:
        """Empty where nothing may go now, or would better wait for Steps that are about to come."""
        plan, stages = epoch.plan, len(epoch.plan.routes[epoch.route].stages)
        under_way = [u.group for u in self._under_way.values()]
        waiting, answering = self._queue.answering(), len(self._answering(epoch))
        places = Places.of(answering, stages, plan.in_flight, self._around.outside)
        if not places.free(under_way):
            return []
        answers = places.next_answers(answering, under_way)
        if early and len(waiting) < answers:
            return []
        run_rows = prompt_rows = 0
        prompt_may_go = places.prompt_may_go(under_way, self._turns, bool(waiting))
        if prompt_may_go and len(waiting) < min(answers, answering) and self._gathers(under_way):
            return []
        if prompt_may_go and answering:
            run_rows = prompt_rows = self._beside.rows(stages, places, plan.start_rows, plan.chunk_rows)
        elif prompt_may_go:
            before, prompt_rows = max((group.prompt_rows for group in under_way), default=0), plan.chunk_rows
            run_rows = alone_rows(self._queue.prompt_rows(), before, stages, plan.start_rows, plan.chunk_rows)
        steps = [WaitingStep.of(pieces) for pieces in self._queue.take(answers, run_rows, prompt_rows, plan.max_rows)]
        if any(not step.answering for step in steps):
            self._turns = 0
        self._turns += any(step.answering for step in steps)
        return steps

    def _gathers(self, under_way: list[Group]) -> bool:
        """Whether a chunk waits for running answers that are about to come: alone it would read for itself what they read, too."""
        left_s = self._back_by - time.monotonic()
        if left_s <= 0 or not self._queue.prompt_rows() or any(group.answers for group in under_way):
            return False
        asyncio.get_running_loop().call_later(left_s, self.pump)
        return True

    def _answering(self, epoch: Epoch) -> set[bytes]:
        """Sessions whose answers run: a Step of theirs waits, is under way, or is about to come."""
        now = time.monotonic()
        recent = {s for s, t in self._answered_at.items() if now - t < RECENT_S and epoch.pool.table.is_open(s)}
        return self._queue.answering() | recent | self._under_way_answering()

    def _under_way_answering(self) -> set[bytes]:
        return {s.session for u in self._under_way.values() for s in u.steps if s.answering}

    def _send(self, steps: list[WaitingStep]) -> None:
        """Send off one micro-batch for each epoch that its Steps name (two only while the Plan changes)."""
        now = time.monotonic()
        for where in dict.fromkeys(s.frame for s in steps):
            part = [s for s in steps if s.frame == where]
            number, self._next = self._next, self._next + 1
            waited = sum(now - step.came_at for step in part) / len(part)
            self._under_way[number] = _UnderWay(part, max(s.deadline for s in part), waited)
            frame = pb.MicroBatch(model_id=where[0], epoch=where[1], route=where[2], id=number)
            for step in part:
                step.header.seconds_left = max(0.0, step.deadline - now)
                frame.steps.append(step.header)
            self._around.sent((step.session for step in part if step.answering), now)
            before = self._flow.started
            self._flow.receive(
                frame, lambda failed, done, inside, number=number: self._reported(number, failed, done, inside), waited
            )
            self._computing += self._flow.started - before

    def _reported(self, number: int, failed: list[pb.StepStatus], done: bool, inside: Inside) -> None:
        if (under_way := self._under_way.get(number)) is None:
            return
        streams = {s.session: s.reports for s in under_way.steps}
        for status in failed:
            if status.session in streams:
                streams[status.session].put(pb.Report(failed=[status]))
        if done:
            now = time.monotonic()
            self._around.reported(
                (s.session for s in under_way.steps if s.answering), inside.all_s - under_way.waited_s, inside.slowest_s
            )
            self._answered_at.update((s.session, now) for s in under_way.steps if s.session in self._answered_at)
            if any(step.answering for step in under_way.steps) and self._around.outside_s < self._beside.plain_s:
                self._back_by = now + 2 * self._around.outside_s  # longer outside is not worth the wait
            del self._under_way[number]
            asyncio.get_running_loop().call_soon(self.pump)

    def _fail_all(self, which: Callable[[WaitingStep], bool], error: StepError) -> None:
        """Fail waiting Steps."""
        for step in self._queue.remove(which):
            self._fail(step, error)

    def _fail(self, step: WaitingStep, error: StepError) -> None:
        step.reports.put(pb.Report(failed=[to_step(error, step.session, step.header.serial, self._flow.name)]))
