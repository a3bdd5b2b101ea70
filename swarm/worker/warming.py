"""First Steps of an epoch, before it serves: a card compiles kernels for a model's own sizes, seconds each, while nobody waits.

What it cannot compute is told by whoever prepares it, and not by each Step.
"""

from __future__ import annotations

import asyncio

import torch

from swarm.errors import DeviceError
from swarm.model.kernels.port import FEW_ROWS
from swarm.model.out_of_memory import ran_out
from swarm.model.rows import Rows, Segment
from swarm.worker.compute import Compute
from swarm.worker.device_time import finish, still_computes
from swarm.worker.epoch import Epoch

ROWS = (1, FEW_ROWS + 1)
"""One row is what is recorded; from so many on a card goes other ways."""
SESSION = b"warms a card up."


async def warm_up(epoch: Epoch, compute: Compute) -> None:
    """Compute with an epoch that is all here. On the loop's thread, which makes room for it where there is some.

    Raises:
        DeviceError: the Device cannot compute this.
        RuntimeError, MemoryError: its memory is used up.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    through_stage = epoch.model is not None and not epoch.remotes and epoch.cache.reserve(SESSION, max(ROWS))
    problem: list[Exception] = []

    def job() -> None:
        try:
            _through_stage(epoch) if through_stage else _through_experts(epoch)
        except Exception as error:
            if not still_computes(epoch.device):
                raise  # see `swarm.worker.frames.run_batch`
            problem.append(error)
        finally:
            loop.call_soon_threadsafe(ended.set)

    compute.submit(job)
    try:
        await _to_its_end(ended)
    finally:
        if through_stage:
            epoch.cache.release(SESSION)
    for error in problem:
        if ran_out(error):
            raise error
        raise DeviceError(
            f"{epoch.device} cannot compute {epoch.plan.model.name} in {epoch.plan.model.dtype} ({type(error).__name__}: {error}): "
            "load it in another --dtype, or leave the device out with --exclude"
        )


def _through_stage(epoch: Epoch) -> None:
    stage, device = epoch.stage, epoch.device
    for count in ROWS:
        blank = torch.zeros(count, epoch.config.hidden, dtype=epoch.dtype, device=device)
        h = stage.embed([0] * count) if epoch.is_first else blank
        h = stage.forward(h, Rows.of((Segment(SESSION, 0, count, 0),), device), epoch.cache, _nothing)
        if epoch.is_last:
            stage.logits(h[-1:])
    finish(device)


def _through_experts(epoch: Epoch) -> None:
    """As another Worker asks for them, of one Block."""
    block, expert = min(epoch.experts.weights, default=(None, None))
    if block is None or expert is None:
        return
    for count in ROWS:
        rows = torch.arange(count, device=epoch.device)
        hidden = torch.zeros(count, epoch.config.hidden, dtype=epoch.dtype, device=epoch.device)
        epoch.experts.ask(block, hidden, {expert: rows})()
    finish(epoch.device)


def _nothing() -> None:
    """Nobody waits between these Blocks."""


async def _to_its_end(ended: asyncio.Event) -> None:
    """Wait for what the compute thread has been given; who cancels waits too: it uses what would be given back."""
    waiting = asyncio.get_running_loop().create_task(ended.wait())
    try:
        await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await waiting
        raise
