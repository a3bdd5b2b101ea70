"""One Plan as one Worker serves it: its Stage, the experts it holds, its KV, and whether it takes frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from swarm.config import ModelConfig
from swarm.errors import Moved, Refused
from swarm.model.cache import PagedCache
from swarm.model.dtypes import numbers_of
from swarm.model.experts import LocalExperts
from swarm.model.stage import Stage
from swarm.plan import Plan
from swarm.worker.experts import RemoteExperts
from swarm.worker.kv_pool import KVPool


@dataclass
class Epoch:
    """A Plan that this Worker has loaded."""

    plan: Plan
    name: str
    device: torch.device
    pool: KVPool
    experts: LocalExperts
    remotes: Sequence[RemoteExperts]
    model: Stage | None
    """None where this Worker has only shards."""
    route: int
    serving: bool = False
    since: float = 0.0
    """When it began to serve, on the monotonic clock."""
    inherits: bool = False
    """The Sessions that ran under the epoch before it are open here already."""

    @property
    def number(self) -> int:
        return self.plan.epoch

    @property
    def config(self) -> ModelConfig:
        return self.plan.model.config

    @property
    def dtype(self) -> torch.dtype:
        return numbers_of(self.plan.model.dtype)

    @property
    def cache(self) -> PagedCache:
        return self.pool.cache

    @property
    def stage(self) -> Stage:
        """The Stage. Raises Refused where this Worker has none."""
        if self.model is None:
            raise Refused("this worker has no stage, only expert shards", self.name)
        return self.model

    @cached_property
    def blocks(self) -> range:
        stage = self.plan.stage_of(self.name, self.route)
        return stage.blocks if stage else range(0)

    @cached_property
    def is_first(self) -> bool:
        return self.plan.routes[self.route].entry == self.name

    @cached_property
    def is_last(self) -> bool:
        return self.plan.routes[self.route].last == self.name

    @cached_property
    def next_worker(self) -> str:
        """Whose Stage is behind this one, which is not the last."""
        names = [stage.worker for stage in self.plan.routes[self.route].stages]
        return names[names.index(self.name) + 1]

    def ends_here(self, stages: int) -> bool:
        """Whether a Step that goes through so many Stages of the Route (0: all) goes no further."""
        route = self.plan.routes[self.route].stages
        return self.is_last or (stages > 0 and self.name in (s.worker for s in route[stages - 1 :]))

    @property
    def shard_wait_s(self) -> float:
        """Seconds that the compute thread has waited for remote experts in this epoch."""
        return sum(r.waited_s for r in self.remotes)

    def look(self) -> None:
        """Find holders of experts that say nothing."""
        for remote in self.remotes:
            remote.look()


class Epochs:
    """The epochs that a Worker holds: at most the one that serves, the one being prepared, and one that drains."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._epochs: dict[int, Epoch] = {}
        self._newest = 0

    def add(self, epoch: Epoch) -> None:
        self._epochs[epoch.number] = epoch

    def get(self, number: int) -> Epoch | None:
        return self._epochs.get(number)

    def remove(self, number: int) -> Epoch | None:
        return self._epochs.pop(number, None)

    def commit(self, number: int) -> None:
        """Serve an epoch that was prepared. Raises Refused where it was not."""
        epoch = self._epochs.get(number)
        if epoch is None:
            raise Refused(f"epoch {number} was not prepared here", self._name)
        if not epoch.serving:
            before = [e for e in self._epochs.values() if e is not epoch and e.pool is epoch.pool and e.model is not None]
            epoch.serving, epoch.since, epoch.inherits = True, time.monotonic(), bool(before)
        self._newest = max(self._newest, number)

    def serving(self, number: int, model_id: str) -> Epoch:
        """The epoch that a frame names.

        Raises:
            Moved: it is retired, or not committed yet.
            Refused: the frame is of another model.
        """
        epoch = self.held(number, model_id)
        if not epoch.serving:
            raise self.moved()
        return epoch

    def held(self, number: int, model_id: str) -> Epoch:
        """The epoch that an expert request names: also one that drains, as its other Workers may, or that they serve first.

        Raises:
            Moved: it is not here.
            Refused: the request is of another model.
        """
        epoch = self._epochs.get(number)
        if epoch is None:
            raise self.moved()
        if model_id != epoch.plan.model.model_id:
            raise Refused("the frame is of another model", self._name)
        return epoch

    def check_model(self, model_id: str) -> None:
        """Raise Moved where this Worker has given up the model that somebody names who knows no newer Plan."""
        if self._newest and all(e.plan.model.model_id != model_id for e in self._epochs.values()):
            raise self.moved()

    def moved(self) -> Moved:
        """What a frame of an epoch that is not served here is answered."""
        return Moved(self._newest, self._name)

    def look(self) -> None:
        """Find Workers that say nothing of the experts that they are asked for."""
        for epoch in self._epochs.values():
            epoch.look()

    def all(self) -> list[Epoch]:
        return list(self._epochs.values())

    def pools(self) -> list[KVPool]:
        """Each KV pool once; two epochs may share one."""
        return list({id(e.pool): e.pool for e in self._epochs.values()}.values())

    @property
    def current(self) -> Epoch | None:
        """The newest that serves."""
        return max((e for e in self._epochs.values() if e.serving), key=lambda e: e.number, default=None)
