"""The Worker itself: what it holds, which epochs it serves, and the orders that change that."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path

import torch

from swarm.errors import DeviceError, DoesNotFit, Refused
from swarm.model.out_of_memory import ran_out
from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import weights_pb2 as pb_weights
from swarm.wire.v1 import worker_pb2 as pb
from swarm.worker.assembly import Assembly
from swarm.worker.callers import Callers
from swarm.worker.compute import Compute, end_process
from swarm.worker.device_memory import too_little
from swarm.worker.entry import EntryStage
from swarm.worker.epoch import Epoch, Epochs
from swarm.worker.flow import Flow
from swarm.worker.forgotten import Forgotten
from swarm.worker.holdings import Holdings, Part, parts_of, release_memory
from swarm.worker.hops import Hops
from swarm.worker.kv_pool import KVPool
from swarm.worker.loading import Loading
from swarm.worker.opening import Opening
from swarm.worker.peers import Peers
from swarm.worker.router_counts import RouterCounts
from swarm.worker.shards import Shards
from swarm.worker.stock import Stock
from swarm.worker.warming import warm_up

_LOG = logging.getLogger(__name__)
SWEEP_S = 0.25
HUNG_S = 300.0
"""On a card nothing takes so long, compiling its kernels included: it hangs."""
RELEASE_S = 5.0
"""How long frames in flight may take where the old epoch must go before the new one is loaded."""


class Worker:
    """One Device's Worker. Made inside a running loop.

    Args:
        name: its name before a Plan gives it one.
        device: as torch names it.
        threads: torch threads of the compute thread; 0 leaves torch's choice.
        memory_bytes: usable for weights, KV and workspace.
        credentials: for calls to other Workers.
        cache: the folder of quantized weights; None: nothing is cached.
    """

    def __init__(
        self, name: str, device: str, threads: int, memory_bytes: int, credentials: Credentials, cache: Path | None = None
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self.memory_bytes = memory_bytes
        self.compute = Compute(threads, name)
        self.epochs = Epochs(name)
        self.callers = Callers(name)
        self.peers = Peers(credentials)
        self.flow = Flow(name, self.epochs, self.compute, Hops(self.peers))
        self.entry = EntryStage(self.flow)
        self.shards = Shards(self.epochs, self.compute, self.flow.rates)
        self.opening = Opening(name, self.epochs, self.peers)
        self.forgotten = Forgotten(name, self.epochs, self.opening, self.peers)
        self.flow.on_nearly, self.flow.on_computed, self.flow.on_freed = self.entry.nearly, self.entry.computed, self.opening.freed
        self._holdings = Holdings()
        self.stock = Stock(credentials)
        self._loading = Loading(name, self.device, self._holdings, self.stock, cache)
        self.loading = self._loading.said
        self._router_counts = RouterCounts()
        self.ordering = asyncio.Lock()
        """Held while something is loaded, given back or measured."""
        self._started = time.monotonic()
        self._afterwards: set[asyncio.Task[None]] = set()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def prepare(
        self, plan: Plan, name: str, folder: str = "", release_first: bool = False, peers: Sequence[pb_weights.Peer] = ()
    ) -> AsyncIterator[tuple[int, int]]:
        """Load what this Worker lacks for a Plan, while older epochs serve. Yields (loaded, total) bytes.

        Args:
            folder: where the model's files are; empty: wherever its source says.
            peers: other Rigs that weights may be taken from, best first.

        Raises:
            ModelError: the model's files cannot be used here.
            DoesNotFit: the Plan gives this Worker more than it has.
            DeviceError: the Device had less free than it was said to, or cannot compute this.
        """
        async with self.ordering:
            spec = plan.worker(name)
            if name != self.name:
                raise Refused(f"this is worker {self.name}, not {name}")
            if spec.planned_bytes > self.memory_bytes:
                raise DoesNotFit(spec.planned_bytes, self.memory_bytes, f"worker {name}")
            if self.epochs.get(plan.epoch) is not None:
                return
            self.peers.know(plan, name)
            if release_first:
                for number in [e.number for e in self.epochs.all()]:  # no epoch in hand: it would keep its weights
                    await self._retire(number, RELEASE_S, keep=plan)
            problem: DeviceError | None = None
            try:
                async for progress in self._loading.load(plan, folder, peers):
                    yield progress
                await self._add(plan)
            except (MemoryError, RuntimeError, DeviceError) as error:
                if isinstance(error, DeviceError):
                    problem = DeviceError(str(error))
                elif ran_out(error):
                    problem = too_little(self.device, spec.planned_bytes, f"{self.name}'s part of {plan.model.name}")
                else:
                    raise
                for pool in self.epochs.pools():
                    self._drop_unused_blocks(pool)
            finally:
                self._release_unused()
            if problem is not None:  # outside: as the error's context, what was half loaded would live on
                raise problem

    def commit(self, epoch: int) -> None:
        """Take frames of this epoch. Raises Refused where it was not prepared."""
        self.epochs.commit(epoch)
        self.entry.pump()

    async def drain(self, epoch: int, deadline_s: float) -> None:
        """Take no more frames of this epoch, finish those at hand, give back what only it held."""
        async with self.ordering:
            await self._retire(epoch, deadline_s)

    def status(self) -> pb.WorkerStatus:
        """What this Worker holds and has done."""
        current = self.epochs.current
        status = pb.WorkerStatus(
            name=self.name, pid=os.getpid(), epochs=[e.number for e in self.epochs.all()], weights_bytes=self._holdings.num_bytes,
            kv_bytes=sum(p.cache.num_bytes for p in self.epochs.pools()), sessions=sum(len(p.table) for p in self.epochs.pools()),
            tokens=self.flow.tokens, busy_s=self.compute.busy_s, up_s=time.monotonic() - self._started,
            micro_batches=self.flow.micro_batches, loading=self.loading,
        )  # fmt: skip
        self.flow.rates.tell(status)
        status.hops.CopyFrom(self.flow.hops.work.to_wire())
        for pool in self.epochs.pools():
            status.kv_used_bytes += int(pool.cache.num_bytes * (1 - pool.cache.free_pages / pool.cache.num_pages))
        if current is not None:
            self._router_counts.tell(status, current)
            self._holdings.tell(status, current.plan.model)
            status.epoch, status.model_id, status.plan = current.number, current.plan.model.model_id, current.plan.to_json()
            status.first, status.end = current.blocks.start, current.blocks.stop
            shards = current.plan.shards_of(self.name)
            for block in sorted({s.block for s in shards}):  # one entry a Block: it may have copies and shards of one
                status.shards.add(block=block, experts=sorted(e for s in shards if s.block == block for e in s.experts))
        return status

    def renew(self) -> None:
        """There is another key: other Workers are talked to over other connections, each as soon as nothing is awaited on it."""
        self.flow.hops.renew()
        for epoch in self.epochs.all():
            for remote in epoch.remotes:
                remote.renew()

    async def close(self) -> None:
        """End everything. Nothing is answered any more."""
        for task in (self._sweeper, *self._afterwards):
            task.cancel()
        await self.forgotten.close()
        await self.flow.hops.keep_only(())
        for epoch in self.epochs.all():
            for remote in epoch.remotes:
                await remote.close()
        await self.peers.keep_only(())
        self.stock.close()
        await asyncio.to_thread(self.compute.stop)

    def lacking(self, plan: Plan, name: str) -> list[Part]:
        """The parts for which this Worker needs the model's files, if it becomes the one of that name in a Plan."""
        return self._loading.lacking(plan, name)

    def _assembled(self, plan: Plan) -> Epoch:
        pools, counts = self.epochs.pools(), self._router_counts
        return Assembly(plan, self.name, self.device, self._holdings, pools, self.peers, self.compute, counts).epoch()

    async def _add(self, plan: Plan) -> None:
        """Add the epoch of a Plan whose weights are here."""
        epoch = self._assembled(plan)
        if self.device.type == "cuda":
            await warm_up(epoch, self.compute)
        self.epochs.add(epoch)

    async def _retire(self, number: int, deadline_s: float, keep: Plan | None = None) -> None:
        epoch = self.epochs.get(number)
        if epoch is None:
            return
        epoch.serving = False
        self.entry.pump()  # what waits there is told, where no other epoch serves
        pool, remotes = epoch.pool, epoch.remotes
        del epoch  # it would keep its weights
        until = asyncio.get_running_loop().time() + deadline_s
        idle = await _in_time(self.flow.idle(number), until)  # else: what runs on fails when it next needs another Worker
        for remote in remotes:
            await remote.close()
        if keep is None:  # else those who ask may serve on, and are told at their next question
            await _in_time(self.shards.over(number), until)
        self.epochs.remove(number)
        if idle:
            self._drop_unused_blocks(pool)
        else:
            self._later(self._give_back_after(number, pool))
        self._release_unused(keep)
        in_use = {worker.address for e in self.epochs.all() for worker in e.plan.workers}
        await self.flow.hops.keep_only(in_use)
        await self.peers.keep_only(in_use)

    def _drop_unused_blocks(self, pool: KVPool) -> None:
        """Give back the KV of Blocks that no epoch has here; without any, Sessions have nothing to reserve it for."""
        in_use = {b for e in self.epochs.all() if e.pool is pool for b in e.blocks}
        if not in_use:
            for session in pool.table.all():
                pool.close_session(session.id)
            self.opening.freed()
        for block in set(pool.cache.blocks) - in_use:
            pool.drop_block(block)

    def _release_unused(self, keep: Plan | None = None) -> None:
        """Give back the weights that no epoch uses, nor the Plan that is about to be loaded."""
        plans = [e.plan for e in self.epochs.all()] + ([keep] if keep else [])
        self._holdings.keep_only(p for plan in plans for p in parts_of(plan, self.name))
        self._router_counts.keep_only(self.epochs.all())

    async def _give_back_after(self, number: int, pool: KVPool) -> None:
        """Give back what a micro-batch that outlived its epoch has held, at its end."""
        await self.flow.idle(number)
        self._drop_unused_blocks(pool)
        release_memory()

    def _later(self, work: Coroutine[object, object, None]) -> None:
        self._afterwards.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self._afterwards.discard)

    async def _sweep(self) -> None:
        """Take back what leases no longer cover, give up what nobody reported, and find other Workers that say nothing."""
        while True:
            await asyncio.sleep(SWEEP_S)
            if self.device.type == "cuda" and self.compute.in_job_s > HUNG_S:
                _LOG.error("%s has computed one thing for %.0f s: this worker ends, and another begins", self.device, HUNG_S)
                end_process()
                return
            self.flow.hops.look()
            self.epochs.look()
            now = time.monotonic()
            self.opening.take_back(now)
            self.forgotten.look(now)
            self.entry.sweep(now)


async def _in_time(wait: Coroutine[object, object, None], until: float) -> bool:
    """Whether something came before `until`, of the loop's clock."""
    try:
        async with asyncio.timeout_at(until):
            await wait
    except TimeoutError:
        return False
    return True
