"""What the swarm tells Ray's metrics of a Worker, from what it says of itself and from the Plan. No Ray in here.

Ray exports every name with `ray_` before it, and counters with `_total` behind. docs/dashboard.md lists them for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from swarm.errors import PlacementError
from swarm.plan import Plan
from swarm.wire.v1 import worker_pb2 as pb

WORKER = ("rig", "device", "worker")


@dataclass(frozen=True)
class Metric:
    """One metric: what it says, and by which tags beside the Worker's own. A counter only grows."""

    about: str
    tags: tuple[str, ...] = WORKER
    counter: bool = False


METRICS: Mapping[str, Metric] = {
    "swarm_up": Metric("1 while the Worker answers its Agent, else 0"),
    "swarm_blocks": Metric("Blocks of the Worker's Stage"),
    "swarm_experts_held": Metric("experts that it holds for Blocks of others, copies included"),
    "swarm_memory_bytes": Metric("bytes that the Plan may use on the Device"),
    "swarm_weights_bytes": Metric("bytes of weights"),
    "swarm_kv_bytes": Metric("bytes of the KV pool"),
    "swarm_kv_used_bytes": Metric("of the KV pool, bytes that Sessions have reserved"),
    "swarm_kv_pages": Metric("KV pages of each Block"),
    "swarm_kv_pages_used": Metric("of them, those that Sessions have reserved"),
    "swarm_sessions": Metric("Sessions that hold KV"),
    "swarm_busy_share": Metric("share of the last seconds in which the Worker computed, 0 to 1"),
    "swarm_tokens_per_s": Metric("rows a second through the Worker in the last seconds"),
    "swarm_tokens": Metric("rows served", counter=True),
    "swarm_micro_batches": Metric("micro-batches served", counter=True),
    "swarm_step_s": Metric("seconds of its Stage for one row, mean of the last ones, waits for shards left out"),
    "swarm_shard_step_s": Metric("seconds of a one-row request to its ExpertShards, mean of the last ones"),
    "swarm_hop_s": Metric("seconds of a Hop to the next Worker, there and back, less its work in between; mean of the last ones"),
    "swarm_choices": Metric("rows whose router chose the expert", (*WORKER, "block", "expert"), counter=True),
    "swarm_route_tokens_per_s": Metric(
        "the same of the last Worker of a Route, prompts included: what the swarm gives; 0 of others"
    ),
    "swarm_predicted_tokens_per_s": Metric("what the Plan expects of one stream alone; told by the last Worker of route 0"),
    "swarm_predicted_total_tokens_per_s": Metric("what the Plan expects of all Sessions together; told by the same"),
    "swarm_predicted_ttft_s": Metric("seconds to the first token that the Plan expects; told by the same"),
}
GAUGES = tuple(name for name, metric in METRICS.items() if not metric.counter)


@dataclass(frozen=True)
class Reading:
    """A value to set a gauge to, or to add to a counter."""

    name: str
    value: float
    tags: Mapping[str, str]


class Readings:
    """One Worker's metrics, look by look; a gauge that does not apply to it is 0.

    The first look adds to counters all that the Worker counted before, so that the counters of each of its Agents, which
    follow one another and overlap, say what the Worker itself does.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._before: pb.WorkerStatus | None = None
        self._served: tuple[int, Plan | None] = 0, None
        self._means: dict[str, float] = {}

    def of(self, now: pb.WorkerStatus | None) -> list[Reading]:
        """What to report after a look; None where the Worker did not answer: it holds nothing."""
        before, self._before = self._before, now
        if now is None:
            self._means.clear()
            return self._gauges({})
        plan = self._plan(now)
        held = {"swarm_up": 1.0} | self._held(now, plan) | _predicted(plan, self.worker)
        if before is None or before.pid != now.pid:
            return [*self._gauges(held), *self._counted(pb.WorkerStatus(), now)]
        return [*self._gauges(held | self._rates(before, now, plan)), *self._counted(before, now)]

    def _gauges(self, values: Mapping[str, float]) -> list[Reading]:
        return [Reading(name, values.get(name, 0.0), self._tags()) for name in GAUGES]

    def _tags(self, **more: str) -> dict[str, str]:
        rig, _, device = self.worker.rpartition("/")
        return {"rig": rig, "device": device, "worker": self.worker, **more}

    def _plan(self, status: pb.WorkerStatus) -> Plan | None:
        """The Plan that it serves, parsed once an epoch; None where it serves none that this version reads."""
        if status.epoch != self._served[0]:
            try:
                self._served = status.epoch, Plan.from_json(status.plan) if status.plan else None
            except PlacementError:
                self._served = status.epoch, None
        return self._served[1]

    def _held(self, now: pb.WorkerStatus, plan: Plan | None) -> dict[str, float]:
        pages = plan.kv_pages if plan and now.kv_bytes else 0
        return {
            "swarm_blocks": now.end - now.first,
            "swarm_experts_held": sum(len(shard.experts) for shard in now.shards),
            "swarm_memory_bytes": next((w.memory_bytes for w in plan.workers if w.name == self.worker), 0) if plan else 0,
            "swarm_weights_bytes": now.weights_bytes,
            "swarm_kv_bytes": now.kv_bytes,
            "swarm_kv_used_bytes": now.kv_used_bytes,
            "swarm_kv_pages": pages,
            "swarm_kv_pages_used": round(pages * now.kv_used_bytes / now.kv_bytes) if pages else 0,
            "swarm_sessions": now.sessions,
        }

    def _rates(self, before: pb.WorkerStatus, now: pb.WorkerStatus, plan: Plan | None) -> dict[str, float]:
        """Over the time since the look before; means stay as they are while nothing is served."""
        works = {
            "swarm_step_s": (before.steps, now.steps),
            "swarm_shard_step_s": (before.shard_steps, now.shard_steps),
            "swarm_hop_s": (before.hops, now.hops),
        }
        for name, (old, new) in works.items():
            if new.count > old.count:
                self._means[name] = (new.seconds - old.seconds) / (new.count - old.count)
        elapsed_s = max(now.up_s - before.up_s, 1e-3)
        tokens_per_s = (now.tokens - before.tokens) / elapsed_s
        is_last = plan is not None and any(route.last == self.worker for route in plan.routes)
        return self._means | {
            "swarm_busy_share": min(1.0, (now.busy_s - before.busy_s) / elapsed_s),
            "swarm_tokens_per_s": tokens_per_s,
            "swarm_route_tokens_per_s": tokens_per_s if is_last else 0.0,
        }

    def _counted(self, before: pb.WorkerStatus, now: pb.WorkerStatus) -> Iterator[Reading]:
        """What came on since the look before; counters take nothing but more."""
        grown = {"swarm_tokens": now.tokens - before.tokens, "swarm_micro_batches": now.micro_batches - before.micro_batches}
        yield from (Reading(name, more, self._tags()) for name, more in grown.items() if more > 0)
        known = {(c.block, len(c.counts)): c.counts for c in before.choices}
        for choices in now.choices:
            old = known.get((choices.block, len(choices.counts))) or [0] * len(choices.counts)
            for expert, (count, less) in enumerate(zip(choices.counts, old, strict=True)):
                more = count - less if count >= less else count  # fewer: the Block left and came back in between
                if more:
                    yield Reading("swarm_choices", more, self._tags(block=str(choices.block), expert=str(expert)))


def _predicted(plan: Plan | None, worker: str) -> dict[str, float]:
    if plan is None or plan.predicted is None or plan.routes[0].last != worker:
        return {}
    return {
        "swarm_predicted_tokens_per_s": plan.predicted.tokens_per_s,
        "swarm_predicted_total_tokens_per_s": plan.predicted.total_tokens_per_s,
        "swarm_predicted_ttft_s": plan.predicted.ttft_s,
    }
