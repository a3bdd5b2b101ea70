"""A micro-batch on its way through one Stage: admitted on the loop, computed on the compute thread."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarm.errors import Expired, Gap, Lost, Refused, StepError
from swarm.lost import called
from swarm.model.holding import Move
from swarm.model.rows import Rows, Segment
from swarm.wire.tensors import from_wire, to_wire
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1.tensor_pb2 import Tensor as TensorMessage
from swarm.worker.asked import answer_asked
from swarm.worker.device_time import finish, still_computes
from swarm.worker.epoch import Epoch
from swarm.worker.sessions import Session
from swarm.worker.ticket import Ticket

_LOG = logging.getLogger(__name__)


@dataclass
class Admitted:
    """A Step that is to run here."""

    header: pb.StepHeader
    session: Session
    generation: int
    deadline: float
    """Of time.monotonic."""
    rows: slice
    """Where its rows are in the frame that came."""
    moves: tuple[Move, ...] = ()
    """What its Session's pages need first, whatever becomes of the Step."""

    @property
    def num_rows(self) -> int:
        return len(self.header.tokens)


@dataclass
class Answered:
    """What a Stage answered for a Session's newest Step: kept for an equal serial."""

    hidden: Tensor | None = None
    header: pb.StepHeader | None = None
    """With `hidden`: whose rows they are. The Step that comes again may be of other pieces, with the same last one."""
    answer: pb.StepAnswer | None = None
    row: Tensor | None = None
    """Last Stage: the logits [1, vocab] of the last asked position."""


@dataclass
class Batch:
    """One micro-batch at this Stage."""

    epoch: Epoch
    steps: list[Admitted]
    hidden: TensorMessage | None
    num_rows: int
    """Rows of the frame that came, those of Steps that do not run included."""
    timings: list[pb.StageTiming]
    ticket: Ticket
    received_at: float = field(default_factory=time.monotonic)
    nearly: bool = False
    """The compute thread has told that it is at the end of it."""


@dataclass
class Outcome:
    """What computing a micro-batch gave."""

    done: list[tuple[Admitted, Answered]] = field(default_factory=list)
    failed: list[tuple[Admitted, StepError]] = field(default_factory=list)
    hidden: TensorMessage | None = None
    timing: pb.StageTiming | None = None
    computed_at: float = 0.0
    """When the model was done with it, before its results were made into bytes."""

    def goes_on(self, epoch: Epoch) -> tuple[list[Admitted], TensorMessage | None]:
        """The Steps that the next Stage computes too, and their rows."""
        going = [(step, answered.hidden) for step, answered in self.done if not epoch.ends_here(step.header.stages)]
        if len(going) == len(self.done):
            return [step for step, _ in going], self.hidden
        rows = [hidden for _, hidden in going if hidden is not None]
        return [step for step, _ in going], to_wire(torch.cat(rows)) if rows else None


def run_batch(batch: Batch, lock: threading.Lock, between_blocks: Callable[[], None]) -> Outcome:
    """Compute a micro-batch on the compute thread. Every Step ends as done or failed.

    Nothing is raised but by the copying of pages, for with those half done no Step can be trusted, and by a Device that computes
    nothing any more: then the Worker ends.
    """
    started = time.monotonic()
    outcome = Outcome()
    waited = batch.epoch.shard_wait_s
    for step in batch.steps:
        if step.moves:
            batch.epoch.cache.move(step.session.id, step.moves)
    live = _still_wanted(batch, outcome, lock, started)
    if live:
        try:
            _forward(batch, live, outcome, between_blocks, lock)
        except StepError as error:
            _fail(live, error, outcome, lock)
        except Exception as error:
            _LOG.exception("computing a micro-batch failed")
            if not still_computes(batch.epoch.device):
                raise  # this Worker ends, and its Rig starts another: whoever waits sees that the stream ends
            where = called(batch.epoch.plan, batch.epoch.name)
            _fail(live, Lost(f"computing failed on {where}: {error!r}", batch.epoch.name), outcome, lock)
    outcome.timing = pb.StageTiming(
        worker=batch.epoch.name,
        queue_s=started - batch.received_at,
        compute_s=(outcome.computed_at or time.monotonic()) - started,
        shard_wait_s=batch.epoch.shard_wait_s - waited,
        began_s=started,
    )
    return outcome


def _still_wanted(batch: Batch, outcome: Outcome, lock: threading.Lock, now: float) -> list[Admitted]:
    """Drop what nobody waits for, and what was admitted behind a Step that failed since."""
    live = []
    for step in batch.steps:
        if step.generation != step.session.generation:
            with lock:  # the loop may be truncating it
                held = step.session.held_over(batch.epoch.blocks)
                gap = Gap(held, step.session.landmarks(held), batch.epoch.name)
            outcome.failed.append((step, gap))
        elif step.deadline < now:
            _fail([step], Expired("the step waited longer than its deadline", batch.epoch.name), outcome, lock)
        else:
            live.append(step)
    return live


def _fail(steps: list[Admitted], error: StepError, outcome: Outcome, lock: threading.Lock) -> None:
    outcome.done.clear()
    for step in steps:
        with lock:
            step.session.fail(step.header.serial, step.header.position)
        outcome.failed.append((step, error))


def _forward(
    batch: Batch, live: list[Admitted], outcome: Outcome, between_blocks: Callable[[], None], lock: threading.Lock
) -> None:
    epoch = batch.epoch
    segments, at = [], 0
    for step in live:
        segments.append(Segment(step.session.id, at, at + step.num_rows, step.header.position))
        at += step.num_rows
    rows = Rows.of(tuple(segments), epoch.device)
    hidden = epoch.stage.forward(_rows_in(batch, live), rows, epoch.cache, between_blocks)
    if epoch.is_last:
        answers = answer_asked([step.header for step in live], [segment.end for segment in segments], hidden, epoch.stage)
        sound = [a is None or all(math.isfinite(row.logsumexp) for row in a.rows) for a, _ in answers]
        if not all(sound):
            broken = Refused(
                "the hidden states of this step are no numbers: a device on its route computes wrongly, or the model is damaged",
                epoch.name,
            )
            _fail([step for step, good in zip(live, sound, strict=True) if not good], broken, outcome, lock)
        made = [(step, Answered(answer=a, row=row)) for step, (a, row) in zip(live, answers, strict=True)]
        outcome.done += [each for each, good in zip(made, sound, strict=True) if good]
        outcome.computed_at = time.monotonic()
        return
    finish(epoch.device)
    outcome.computed_at = time.monotonic()
    alone = len(live) == 1
    for step, segment in zip(live, segments, strict=True):
        part = hidden[segment.start : segment.end]
        outcome.done.append((step, Answered(hidden=part if alone else part.clone(), header=step.header)))
    outcome.hidden = to_wire(hidden)


def _rows_in(batch: Batch, live: list[Admitted]) -> Tensor:
    """[R, hidden] of the live Steps: embedded on the first Stage, else as they came."""
    epoch = batch.epoch
    if epoch.is_first:
        tokens = [t for step in live for t in step.header.tokens]
        return epoch.stage.embed(tokens)
    if batch.hidden is None:
        raise Refused("a hop without hidden states", epoch.name)
    hidden = from_wire(batch.hidden, epoch.dtype, (batch.num_rows, epoch.config.hidden), epoch.device)
    if sum(s.num_rows for s in live) == batch.num_rows:
        return hidden
    return torch.cat([hidden[step.rows] for step in live])
