"""The Plan: one immutable assignment of a model to Workers. Shared by both planes; standard library only.

A Plan is JSON, in a file and on the wire alike, so that a person can read what the Workers were told.
`Plan.from_json` is the only door: it checks every invariant before anything believes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from swarm.config import ModelConfig, OwnCodes, Sizes, number_bytes, said_again
from swarm.errors import PlacementError
from swarm.plan_check import problems

PAGE_POSITIONS = 32
"""Positions in one KV page."""
CHUNK_ROWS = 448
"""The most prompt tokens in one Step, and rows in one micro-batch's prompt share."""
MAX_WAIT_S = 86_400.0
"""The most that a Step may say it waits."""
PIECE_ROWS = 32
"""Tokens of a prompt in one Step as a client sends it; the entry Stage makes chunks of pieces."""
START_ROWS = 256
"""See `Plan.start_rows`; of the CPUs that docs/performance.md is about."""
MAX_ROWS = 512
"""The most rows in one micro-batch."""
MESSAGE_BYTES = 64 * 2**20
"""The largest message on any wire. A Plan whose micro-batches would not fit is refused (`Plan.frame_bytes`)."""
STEP_BYTES = 4096
"""Room for a Step's header, ids and asks beside its hidden states; a frame has at most one Step a row."""


@dataclass(frozen=True)
class Model:
    """Which model, from where, in which dtype."""

    name: str
    source: str
    """A folder, a Hub id, or `nano`; each Rig resolves it for itself."""
    model_id: str
    """Checksum over the config and the headers of all weight files; goes into every frame."""
    dtype: str
    config: ModelConfig
    kv: str = ""
    """How keys and values are kept, one of `swarm.config.KV_DTYPES`; empty: as what is computed in."""
    own_codes: tuple[OwnCodes, ...] = ()
    """Its matrices that have few bits in its files already."""

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Model:
        """The inverse of `asdict`."""
        own = tuple(OwnCodes(**each) for each in raw.get("own_codes", ()))
        return cls(**{**raw, "config": ModelConfig.from_json(raw["config"]), "own_codes": own})

    @property
    def kept_as(self) -> str:
        """Its dtype, and how keys and values are kept where that is said, for people."""
        return f"{self.dtype} with KV in {self.kv}" if self.kv else self.dtype

    @property
    def again(self) -> str:
        """What its dtype quantizes a second time, for people; empty: nothing."""
        return said_again(self.own_codes, self.dtype)

    @property
    def sizes(self) -> Sizes:
        """What its parts weigh."""
        return Sizes(self.config, self.dtype, self.kv)


@dataclass(frozen=True)
class WorkerSpec:
    """One Worker: its Device, where it listens, and what it may hold."""

    name: str
    rig: str
    """The Rig's name, for people."""
    device: str
    """`cpu` or `cuda:0`, as torch names it."""
    address: str
    """host:port that other Workers and clients dial."""
    memory_bytes: int
    """Usable on the Device for weights, KV and workspace together."""
    weights_bytes: int = 0
    kv_bytes: int = 0
    workspace_bytes: int = 0
    threads: int = 0
    """torch threads on a CPU Device; 0 leaves torch's choice."""

    @property
    def planned_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.workspace_bytes


@dataclass(frozen=True)
class Stage:
    """Blocks `first` (inclusive) to `end` (exclusive) on one Worker."""

    worker: str
    first: int
    end: int

    @property
    def blocks(self) -> range:
        return range(self.first, self.end)


@dataclass(frozen=True)
class ExpertShard:
    """Some experts of one Block on a Worker other than the one whose Stage has the Block."""

    worker: str
    block: int
    experts: tuple[int, ...]
    route: int = 0
    """Of the Route whose Stage has the Block."""
    copy: bool = False
    """The owner holds these experts too, and asks for them here only where that is quicker."""


@dataclass(frozen=True)
class Standby:
    """A copy of Blocks `first` to `end`, weights only and room for their KV, on a Worker of another Rig: nobody asks it now."""

    worker: str
    first: int
    end: int
    ends: bool = False
    """With the embedding where it has Block 0 and the head where it has the last: it could serve them."""

    @property
    def blocks(self) -> range:
        return range(self.first, self.end)


WAY_ROUND = "the way round"
"""What Sessions wait for where no Worker and no link is busy all the time: a token's ways and works, one after the other."""


@dataclass(frozen=True)
class Prediction:
    """What the planner expects of a Plan, at its context and for its Sessions."""

    ttft_s: float
    """Time to first token for a prompt of `chunk_rows` tokens, on an idle swarm."""
    tokens_per_s: float
    """Of one stream alone."""
    total_tokens_per_s: float
    """Of all Sessions together, when all of them answer."""
    bottleneck: str
    """What all Sessions wait for: a Worker, `link A to B`, or `WAY_ROUND`."""


@dataclass(frozen=True)
class Route:
    """Stages in order that cover every Block once."""

    stages: tuple[Stage, ...]

    @property
    def entry(self) -> str:
        return self.stages[0].worker

    @property
    def last(self) -> str:
        return self.stages[-1].worker


@dataclass(frozen=True)
class Plan:
    """One assignment. `epoch` only grows; a frame of a retired epoch is answered MOVED."""

    epoch: int
    model: Model
    workers: tuple[WorkerSpec, ...]
    routes: tuple[Route, ...]
    shards: tuple[ExpertShard, ...] = ()
    standbys: tuple[Standby, ...] = ()
    sessions: int = 4
    """Sessions that hold KV at the same time, shared out evenly between the Routes."""
    context: int = 8192
    """Positions that KV is budgeted for, a Session."""
    page_positions: int = PAGE_POSITIONS
    chunk_rows: int = CHUNK_ROWS
    max_rows: int = MAX_ROWS
    start_rows: int = START_ROWS
    """Rows of a prompt that take the slowest Stage or link as long as a micro-batch takes it however few its rows are."""
    in_flight: int = 0
    """Micro-batches of a Route in flight at once; 0: as many as keep every Stage busy."""
    follows: int = 0
    """The epoch before it, whose Sessions go on under this one; 0: nothing is known of any."""
    objective: str = "balanced"
    """What it was decided for: latency, throughput or balanced."""
    predicted: Prediction | None = None
    notes: tuple[str, ...] = field(default=())
    """Why it is so, for people: Devices left out, pauses to expect."""

    def worker(self, name: str) -> WorkerSpec:
        """The Worker of that name. Raises PlacementError where the Plan has none."""
        for worker in self.workers:
            if worker.name == name:
                return worker
        raise PlacementError(f"the plan has no worker {name}: it has {', '.join(w.name for w in self.workers)}")

    def stage_of(self, name: str, route: int = 0) -> Stage | None:
        """The Stage that a Worker has on a Route, if any."""
        return next((s for s in self.routes[route].stages if s.worker == name), None)

    def shards_of(self, name: str) -> tuple[ExpertShard, ...]:
        """The ExpertShards that a Worker holds for others."""
        return tuple(s for s in self.shards if s.worker == name)

    def route_of(self, name: str) -> int | None:
        """The Route on which a Worker has a Stage, if any."""
        return next((r for r in range(len(self.routes)) if self.stage_of(name, r)), None)

    def remote_experts(self, name: str, block: int) -> dict[int, str]:
        """Expert id → Worker, for the experts of a Block that a Stage's Worker does not hold itself."""
        return {e: s.worker for s in self._shards_for(name, block) if not s.copy for e in s.experts}

    def copied_experts(self, name: str, block: int) -> dict[int, str]:
        """Expert id → Worker, for the experts of a Block that a Stage's Worker holds and another one too."""
        return {e: s.worker for s in self._shards_for(name, block) if s.copy for e in s.experts}

    def _shards_for(self, name: str, block: int) -> Iterator[ExpertShard]:
        route = self.route_of(name)
        return (s for s in self.shards if s.block == block and s.route == route and s.worker != name)

    def local_experts(self, name: str, block: int) -> tuple[int, ...]:
        """The experts of a Block that a Worker holds, for its own Stage or for others, in ascending order."""
        everyone = set(range(self.model.config.experts_in(block)))
        mine = {e for s in self.shards if s.worker == name and s.block == block for e in s.experts} & everyone
        if any((stage := self.stage_of(name, r)) and block in stage.blocks for r in range(len(self.routes))):
            mine |= everyone - set(self.remote_experts(name, block))
        if any(s.worker == name and block in s.blocks for s in self.standbys):
            mine = everyone
        return tuple(sorted(mine))

    @property
    def sessions_a_route(self) -> int:
        """Sessions that hold KV at the same time on each Route."""
        return -(-self.sessions // len(self.routes))

    @property
    def kv_pages(self) -> int:
        """KV pages of each Block: what a Route's share of the Sessions needs, each with `context` positions."""
        return self.sessions_a_route * -(-self.context // self.page_positions)

    @property
    def message_bytes(self) -> int:
        """The largest message that any wire takes."""
        return MESSAGE_BYTES

    @property
    def frame_bytes(self) -> int:
        """The largest message that this Plan can need: a full micro-batch, or what a shard answers for it."""
        config = self.model.config
        hidden = self.max_rows * config.hidden * number_bytes(self.model.dtype)
        return max(hidden * (config.top_k if self.shards else 1) + self.max_rows * STEP_BYTES, 4 * config.vocab + STEP_BYTES)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, where: str = "the plan") -> Plan:
        """Parse and check a Plan. Raises PlacementError, naming what is wrong."""
        try:
            raw = json.loads(text)
            plan = _parse(raw)
            plan.check(where)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise PlacementError(f"{where} is not a Plan ({why}): write it with `swarm plan --out`") from None
        return plan

    def check(self, where: str = "the plan") -> None:
        """Raise PlacementError unless every invariant holds.

        Every Block has one owner in each Route, Stages are contiguous and in order, a Worker has at most one Stage,
        shards name experts that exist and Workers that do not own the Block, and no Worker is planned beyond its memory.
        """
        problem = next(problems(self), None)
        if problem:
            raise PlacementError(f"{where}: {problem}")


def _parse(raw: dict[str, Any]) -> Plan:
    rest = {k: v for k, v in raw.items() if k not in ("model", "workers", "routes", "shards", "standbys", "predicted", "notes")}
    return Plan(
        model=Model.from_json(raw["model"]),
        workers=tuple(WorkerSpec(**w) for w in raw["workers"]),
        routes=tuple(Route(tuple(Stage(**s) for s in r["stages"])) for r in raw["routes"]),
        shards=tuple(ExpertShard(**{**s, "experts": tuple(s["experts"])}) for s in raw.get("shards", ())),
        standbys=tuple(Standby(**s) for s in raw.get("standbys", ())),
        predicted=Prediction(**raw["predicted"]) if raw.get("predicted") else None,
        notes=tuple(raw.get("notes", ())),
        **rest,
    )
