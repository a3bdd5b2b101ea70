"""An Epoch put together from parts that are all there: Blocks, ports to experts elsewhere, and the KV pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from swarm.lost import called
from swarm.model.block import Block
from swarm.model.cache import PagedCache
from swarm.model.dtypes import numbers_of
from swarm.model.experts import ExpertPort, LocalExperts
from swarm.model.kernels.choice import kernels_for, recorder_for
from swarm.model.stage import Stage
from swarm.plan import Plan
from swarm.worker.compute import Compute
from swarm.worker.epoch import Epoch
from swarm.worker.experts import RemoteExperts
from swarm.worker.holdings import Holdings, parts_of
from swarm.worker.kv_pool import KVPool
from swarm.worker.peers import Peers
from swarm.worker.router_counts import RouterCounts


@dataclass
class Assembly:
    """What an Epoch of one Worker is put together from. Used inside a running loop.

    Args:
        holdings: all weights that the Plan gives this Worker are in it.
        pools: the KV pools of older epochs.
        peers: for asking other Workers for experts, which `compute` waits for.
    """

    plan: Plan
    name: str
    device: torch.device
    holdings: Holdings
    pools: Sequence[KVPool]
    peers: Peers
    compute: Compute
    counts: RouterCounts
    _remotes: dict[str, RemoteExperts] = field(default_factory=dict)

    def epoch(self) -> Epoch:
        """Put it together."""
        plan, route = self.plan, self.plan.route_of(self.name)
        kernels = kernels_for(self.device, numbers_of(plan.model.dtype))
        local = LocalExperts.of(self.holdings.experts(parts_of(plan, self.name)), kernels)
        pool = self._pool()
        model = self._stage(route, local, pool) if route is not None else None
        return Epoch(plan, self.name, self.device, pool, local, tuple(self._remotes.values()), model, route or 0)

    def _stage(self, route: int, local: LocalExperts, pool: KVPool) -> Stage | None:
        plan, model = self.plan, (self.plan.model.model_id, self.plan.model.dtype)
        stage = plan.stage_of(self.name, route)
        assert stage is not None, "its Stage is on this Route"
        blocks = {b: self._block(b, local) for b in stage.blocks}
        embedding = self.holdings.embedding(model) if stage.first == 0 else None
        head = self.holdings.head(model) if stage.end == plan.model.config.num_blocks else None
        for block in stage.blocks:
            pool.cache.add_block(block)
        together = Stage(plan.model.config, blocks, embedding, head)
        recorder = recorder_for(self.device, numbers_of(plan.model.dtype))
        return together if recorder is None else together.replayed(pool.cache, recorder)

    def _block(self, index: int, local: LocalExperts) -> Block:
        plan = self.plan
        ports: dict[int, ExpertPort] = dict.fromkeys(plan.local_experts(self.name, index), local)
        ports |= {e: self._remote(w, local) for e, w in plan.remote_experts(self.name, index).items()}
        copies = {e: self._remote(w, local) for e, w in plan.copied_experts(self.name, index).items()}
        core = self.holdings.core((plan.model.model_id, plan.model.dtype), index)
        counts = self.counts.of(plan.model.model_id, index, plan.model.config.num_experts)
        return Block.of(plan.model.config, index, core, ports, counts, copies)

    def _remote(self, worker: str, local: LocalExperts) -> RemoteExperts:
        if worker not in self._remotes:
            peers, address = self.peers, self.plan.worker(worker).address
            frame = (self.plan.model.model_id, self.plan.epoch)
            loop = asyncio.get_running_loop()
            name = called(self.plan, worker)
            self._remotes[worker] = RemoteExperts(worker, name, address, peers, self.compute, loop, frame, local)
        return self._remotes[worker]

    def _pool(self) -> KVPool:
        """The KV pool of an older epoch where it fits this Plan, so that Sessions keep what they have; else a new one."""
        plan, dtype = self.plan, numbers_of(self.plan.model.dtype)
        for pool in self.pools:
            cache = pool.cache
            same_pages = (cache.num_pages, cache.page_positions) == (plan.kv_pages, plan.page_positions)
            same_numbers = (cache.dtype, cache.kept_as) == (dtype, plan.model.kv)
            if same_pages and same_numbers and pool.model_id == plan.model.model_id:
                return pool
        cache = PagedCache(plan.model.config, plan.kv_pages, plan.page_positions, dtype, self.device, plan.model.kv)
        return KVPool(plan.model.model_id, cache)
