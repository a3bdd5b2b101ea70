"""A Worker measures its own Device: in its compute thread, a turn at a time.

Never beside the work that it serves, unless nobody knows anything of it and it serves without a pause: then a turn comes
between two micro-batches, and who chats waits a little longer for some tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

from swarm.bits import Bits
from swarm.errors import Full, Refused, SwarmError, UsageError
from swarm.model.memory import num_bytes
from swarm.model.out_of_memory import ran_out
from swarm.model.product import Weight
from swarm.wire.v1 import worker_pb2 as pb
from swarm.worker.device_memory import free_bytes, too_little
from swarm.worker.device_time import still_computes
from swarm.worker.holdings import release_memory
from swarm.worker.measure import BUDGET_S, Figures, Wanted, dtypes_of, measuring
from swarm.worker.measure_parts import CYCLE_BYTES
from swarm.worker.worker import Worker

QUIET_S = 0.5
"""A Worker that computed for somebody this recently is serving."""
MOST_BUDGET_S = 30.0
MOST_PATIENCE_S = 600.0
MOST_WIDTH = 1 << 17
"""The widest expert that is measured: what comes over the wire must not decide how much memory is taken."""
POLL_S = 0.05
SERVES = "serves sessions"
LAST_TURN_S = 5.0
"""How long whoever gives up waits for a turn that has begun."""


async def measure(worker: Worker, request: pb.MeasureRequest) -> pb.MeasureReply:
    """Measure as asked; without products where the Device does not compute that dtype well.

    Raises:
        Refused: no such dtype or width.
        Full: it serves, loads or is being measured, and goes on so for `patience_s`; or it began to while being measured.
            Serving is no reason where it is to be measured beside that.
        DeviceError: the Device's memory was used up.
    """
    wanted = _wanted(worker, request)
    began = time.monotonic()
    await _idle(worker, began + min(request.patience_s, MOST_PATIENCE_S), request.beside)
    async with worker.ordering:
        dtypes = dtypes_of(worker.device)
        reply = pb.MeasureReply(dtypes=dtypes)
        if Bits.of(wanted.dtype).numbers in dtypes:
            try:
                figures = await _in_turns(worker, wanted, request.beside)
            finally:
                release_memory()
            reply.start_s, reply.several_start_s = figures.start_s, figures.several_start_s
            reply.software_s = figures.software_s
            for rows, seconds_a_byte in figures.products:
                reply.products.add(rows=rows, seconds_a_byte=seconds_a_byte)
        reply.free_bytes = await asyncio.to_thread(_free_bytes, worker)  # with the card's context made, and what it keeps
    reply.took_s = time.monotonic() - began
    return reply


def _wanted(worker: Worker, request: pb.MeasureRequest) -> Wanted:
    default = Wanted()
    try:
        Bits.of(request.dtype)
    except UsageError as error:
        raise Refused(f"cannot measure: {error}", worker.name) from None
    if max(request.hidden, request.ffn) > MOST_WIDTH:
        raise Refused(f"cannot measure {request.hidden} x {request.ffn}: ask at most {MOST_WIDTH} wide", worker.name)
    return Wanted(
        request.dtype,
        request.hidden or default.hidden,
        request.ffn or default.ffn,
        request.kernels_core or default.kernels_core,
        request.kernels_expert or default.kernels_expert,
        min(request.budget_s, MOST_BUDGET_S) if request.budget_s > 0 else BUDGET_S,
    )


async def _idle(worker: Worker, until: float, beside: bool) -> None:
    """Return when a Worker has nothing to do; raise Full when it still has at that moment of the monotonic clock."""
    while what := _busy(worker):
        if time.monotonic() >= until:
            if beside and what == SERVES:
                return
            raise Full(f"it {what}, and is not measured meanwhile: ask again when it is idle", worker.name)
        await asyncio.sleep(POLL_S)


def _busy(worker: Worker) -> str:
    if worker.ordering.locked():
        return "loads weights, gives some back or is being measured"
    flow = worker.flow
    if flow.started > flow.micro_batches or time.monotonic() - flow.rates.worked_at < QUIET_S:
        return SERVES
    return ""


def _free_bytes(worker: Worker) -> int:
    return free_bytes(worker.device) if worker.device.type == "cuda" else worker.memory_bytes


async def _in_turns(worker: Worker, wanted: Wanted, beside: bool) -> Figures:
    """Measure, while nobody asks for anything else, or between what is asked."""
    status, begun = worker.status(), worker.flow.rates.requests
    free = await asyncio.to_thread(free_bytes, worker.device)  # makes a card's context where there is none
    room = min(worker.memory_bytes - status.weights_bytes - status.kv_bytes, free)
    turns = measuring(wanted, worker.device, max(room, 0), _held(worker, wanted))
    try:
        while (figures := await _turn(worker, turns)) is None:
            if beside:
                await asyncio.sleep(POLL_S)
            elif worker.flow.rates.requests != begun:
                raise Full("it began to serve while it was measured: ask again when it is idle", worker.name)
    finally:
        turns.close()  # gives its weights back now, also where an error that is under way would keep them
    return figures


def _held(worker: Worker, wanted: Wanted) -> list[Weight]:
    """Experts' weights that are here, of the wanted shape and dtype, as many as are read in turn."""
    found: list[Weight] = []
    shapes = ((2 * wanted.ffn, wanted.hidden), (wanted.hidden, wanted.ffn))
    epochs = [epoch for epoch in worker.epochs.all() if Bits.of(epoch.plan.model.dtype).measured == wanted.dtype]
    experts = [e for epoch in epochs for e in epoch.experts.weights.values()]
    size = 0
    for weights in ((e.w13, e.w2) for e in experts):
        if tuple(tuple(w.shape) for w in weights) == shapes:
            found += weights
            size += num_bytes(*weights)
        if size >= CYCLE_BYTES:
            break
    return found


async def _turn(worker: Worker, turns: Generator[None, None, Figures]) -> Figures | None:
    """One turn on the compute thread; the Figures after the last."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Figures | BaseException | None] = loop.create_future()

    def job() -> None:
        outcome: Figures | BaseException | None = None
        try:
            next(turns)
        except StopIteration as done:
            outcome = done.value
        except Exception as error:
            if not still_computes(worker.device):
                raise  # see `swarm.worker.frames.run_batch`
            outcome = error
        loop.call_soon_threadsafe(_end, ended, outcome)

    worker.compute.submit(job)
    try:
        outcome = await asyncio.shield(ended)
    except asyncio.CancelledError:
        await asyncio.wait({ended}, timeout=LAST_TURN_S)  # it may be running
        raise
    if isinstance(outcome, Exception):
        if ran_out(outcome):
            raise too_little(worker.device, 0, "what it is measured with") from None
        raise SwarmError(f"{worker.name} could not be measured: {outcome!r}") from None
    return outcome if isinstance(outcome, Figures) else None


def _end(ended: asyncio.Future[Figures | BaseException | None], outcome: Figures | BaseException | None) -> None:
    if not ended.done():  # whoever asked may be gone
        ended.set_result(outcome)
