"""The way of a micro-batch through one Stage: admit, compute, hand on. All on the loop's thread but the computing."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from swarm.errors import Refused, StepError
from swarm.wire.status import to_step
from swarm.wire.tensors import to_wire
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.answers import Answers
from swarm.worker.candidates import check_ask
from swarm.worker.compute import Compute
from swarm.worker.epoch import Epoch, Epochs
from swarm.worker.frames import Admitted, Answered, Batch, Outcome, run_batch
from swarm.worker.hops import Hops
from swarm.worker.rates import Rates
from swarm.worker.sessions import Verdict
from swarm.worker.ticket import Report, Ticket


class Flow:
    """Takes micro-batches in, from the entry queue or from the Stage before, and sees each one through."""

    def __init__(self, name: str, epochs: Epochs, compute: Compute, hops: Hops) -> None:
        self.name = name
        self.epochs = epochs
        self.answers = Answers()
        self.hops = hops
        self.rates = Rates()
        self.tokens = self.micro_batches = self.started = 0
        self.on_nearly: Callable[[], None] = lambda: None
        """Called when the compute thread comes to the last Block of a micro-batch."""
        self.on_computed: Callable[[Batch, Outcome], None] = lambda batch, outcome: None
        """Called whenever the compute thread has finished a micro-batch."""
        self.on_freed: Callable[[], None] = lambda: None
        """Called whenever KV pages became free."""
        self._compute = compute
        self._loop = asyncio.get_running_loop()
        self._running: defaultdict[int, int] = defaultdict(int)

    def receive(self, frame: pb.MicroBatch, report: Report, waited_s: float = 0.0) -> None:
        """Take in a micro-batch. `report` hears of each Step that fails, and once that all is done.

        Args:
            waited_s: how long its Steps, in the mean, have been waiting here already; part of the time in the queue.
        """
        ticket = Ticket(report)
        try:
            epoch = self.epochs.serving(frame.epoch, frame.model_id)
            self._check(frame, epoch)
            self._admit(frame, epoch, ticket, waited_s)
        except StepError as error:
            ticket.fail([to_step(error, s.session, s.serial, self.name) for s in frame.steps])
        ticket.part_done()

    async def idle(self, epoch: int) -> None:
        """Return when no micro-batch of this epoch is being computed here, nor held by the compute thread."""
        while self._running[epoch]:
            await asyncio.sleep(0.005)
        self._running.pop(epoch, None)
        await self._compute.passed()

    def _check(self, frame: pb.MicroBatch, epoch: Epoch) -> None:
        rows = sum(len(s.tokens) for s in frame.steps)
        if frame.route != epoch.route or epoch.model is None:
            raise Refused(f"route {frame.route} does not lead here", self.name)
        if not 0 < rows <= epoch.plan.max_rows or any(not s.tokens for s in frame.steps):
            raise Refused(
                f"a micro-batch of {rows} rows; the plan allows 1 to {epoch.plan.max_rows}, and a step has one at least", self.name
            )
        if not epoch.is_first and tuple(frame.hidden.shape) != (rows, epoch.config.hidden):
            raise Refused(f"hidden states of shape {tuple(frame.hidden.shape)} for {rows} rows", self.name)

    def _admit(self, frame: pb.MicroBatch, epoch: Epoch, ticket: Ticket, waited_s: float) -> None:
        now, at = time.monotonic(), 0
        run: list[Admitted] = []
        for header in frame.steps:
            rows = slice(at, at + len(header.tokens))
            at = rows.stop
            try:
                admitted = self._admit_step(header, epoch, ticket, rows, now)
            except StepError as error:
                ticket.fail([to_step(error, header.session, header.serial, self.name)])
            else:
                run += admitted
        if run:
            hidden = None if epoch.is_first else frame.hidden
            self._start(Batch(epoch, run, hidden, at, list(frame.timings), ticket, now - waited_s))

    def _admit_step(self, header: pb.StepHeader, epoch: Epoch, ticket: Ticket, rows: slice, now: float) -> list[Admitted]:
        vocab = epoch.config.vocab
        if not header.seconds_left < math.inf:
            raise Refused(f"a step that waits {header.seconds_left} s")
        if epoch.is_first and max(header.tokens) >= vocab:
            raise Refused(f"token id {max(header.tokens)} is not in the vocabulary of {vocab}")
        if epoch.is_last:
            check_ask(header.ask, len(header.tokens), vocab)
        session = epoch.pool.table.find(header.session)
        verdict, generation, moves = epoch.pool.admit(session, header, epoch.blocks)
        epoch.pool.table.touch(session, now)
        if verdict is Verdict.AGAIN and isinstance(session.answer, Answered):
            self._answer_again(header, session.answer, epoch, ticket)
        if verdict is not Verdict.RUN:
            return []
        return [Admitted(header, session, generation, now + header.seconds_left, rows, moves)]

    def _start(self, batch: Batch) -> None:
        batch.ticket.add_part()
        self.started += 1
        self._running[batch.epoch.number] += 1

        def job() -> None:
            outcome = self.rates.batch(batch, lambda: run_batch(batch, batch.epoch.pool.lock, self._between_blocks(batch)))
            self._loop.call_soon_threadsafe(self._computed, batch, outcome)

        self._compute.submit(job)

    def _between_blocks(self, batch: Batch) -> Callable[[], None]:
        """What the compute thread does before each Block of a micro-batch."""
        if not batch.epoch.is_first:
            return self._compute.serve_shards
        left = len(batch.epoch.blocks)

        def between() -> None:
            nonlocal left
            left -= 1
            if left == 0:  # what comes next is formed while this is computed
                self._loop.call_soon_threadsafe(self._nearly, batch)
            self._compute.serve_shards()

        return between

    def _nearly(self, batch: Batch) -> None:
        batch.nearly = True
        self.on_nearly()

    def _computed(self, batch: Batch, outcome: Outcome) -> None:
        if outcome.done:  # first of all: the next Stage waits for it
            timings = [*batch.timings, outcome.timing] if outcome.timing else batch.timings
            self._hand_on(batch.epoch, outcome, timings, batch.ticket)
        self._loop.call_soon(self._settle, batch, outcome)  # behind the writing, which is only queued by now

    def _settle(self, batch: Batch, outcome: Outcome) -> None:
        self._running[batch.epoch.number] -= 1
        self.micro_batches += 1
        for step, error in outcome.failed:
            batch.ticket.fail([to_step(error, step.header.session, step.header.serial, self.name)])
        for step, answered in outcome.done:
            step.session.answer = answered if step.session.serial == step.header.serial else step.session.answer
            self.tokens += step.num_rows
            batch.epoch.pool.computed(step.session, step.header, batch.epoch.blocks)
        for step in batch.steps:
            step.session.under_way -= 1
            if step.session.closing and not step.session.under_way and batch.epoch.pool.close_session(step.session.id):
                self.on_freed()
        if outcome.done and (timing := outcome.timing):
            batch.ticket.inside.add(timing.queue_s + timing.compute_s, timing.compute_s)
        batch.ticket.part_done()
        self.on_computed(batch, outcome)

    def _hand_on(self, epoch: Epoch, outcome: Outcome, timings: Sequence[pb.StageTiming], ticket: Ticket) -> None:
        if epoch.is_last:
            by_client: defaultdict[bytes, list[pb.StepAnswer]] = defaultdict(list)
            for step, answered in outcome.done:
                if answered.answer is not None:
                    by_client[step.header.client].append(answered.answer)
            for client, steps in by_client.items():
                self.answers.send(client, pb.Answer(steps=steps, timings=timings))
            return
        now, (going, hidden) = time.monotonic(), outcome.goes_on(epoch)
        if not going:
            return
        frame = pb.MicroBatch(
            model_id=epoch.plan.model.model_id, epoch=epoch.number, route=epoch.route, hidden=hidden, timings=timings
        )
        for step in going:
            step.header.seconds_left = max(0.0, step.deadline - now)
            frame.steps.append(step.header)
        self._send_on(epoch, frame, ticket)

    def _answer_again(self, header: pb.StepHeader, answered: Answered, epoch: Epoch, ticket: Ticket) -> None:
        if epoch.is_last:
            if answered.answer is not None:
                self.answers.send(header.client, pb.Answer(steps=[answered.answer]))
            return
        if answered.hidden is not None and answered.header is not None and not epoch.ends_here(answered.header.stages):
            model_id = epoch.plan.model.model_id
            hidden = to_wire(answered.hidden)
            frame = pb.MicroBatch(model_id=model_id, epoch=epoch.number, route=epoch.route, hidden=hidden)
            frame.steps.add().CopyFrom(answered.header)
            frame.steps[0].seconds_left, frame.steps[0].client = header.seconds_left, header.client
            self._send_on(epoch, frame, ticket)

    def _send_on(self, epoch: Epoch, frame: pb.MicroBatch, ticket: Ticket) -> None:
        if self.epochs.get(epoch.number) is not epoch:  # it went on beyond the drain's deadline, and its links are closed
            ticket.fail([to_step(self.epochs.moved(), s.session, s.serial, self.name) for s in frame.steps])
            return
        ticket.add_part()
        self.hops.send(epoch.plan, epoch.next_worker, frame, ticket)
