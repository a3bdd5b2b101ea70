"""What `swarm bench` found, and its document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from swarm.client.bench import Work
from swarm.client.bench_run import Figures
from swarm.client.limit import least_s
from swarm.client.waterfall import Span, Waterfall
from swarm.plan import Plan, Stage


@dataclass(frozen=True)
class Run:
    """So many Sessions at once, and where their time went.

    Args:
        falls: the mean token of each way that Sessions went, the most used first.
        busy: by Worker, the share of the run that its compute thread worked; who could not be asked is left out.
        drafts: tokens that were guessed, and how many of them were right.
        watts: of all cards together; None where no card says what it draws.
    """

    figures: Figures
    falls: tuple[Waterfall, ...]
    busy: Mapping[str, float]
    drafts: tuple[int, int] = (0, 0)
    watts: float | None = None

    @property
    def joules_a_token(self) -> float | None:
        """What a token of all Sessions took; None where it is not known."""
        rate = self.figures.total_tokens_per_s
        return self.watts / rate if self.watts is not None and rate > 0 else None

    def span(self, worker: str) -> Span | None:
        """What a Worker's Stage took of a token; None where no Session passed it."""
        return next((span for fall in self.falls for span in fall.stages if span.worker == worker), None)

    def document(self, plan: Plan) -> dict[str, Any]:
        """One of the document's `runs`; seconds."""
        ways = [fall.document() for fall in self.falls]
        stages = [stage_document(stage, self.span(stage.worker), self.busy) for stage in stages_of(plan)]
        drafted, kept = self.drafts
        power = {"watts": self.watts, "joules_a_token": self.joules_a_token}
        return {**asdict(self.figures), "stages": stages, "ways": ways, "drafted": drafted, "kept": kept, **power}


@dataclass
class Found:
    """What was measured so far.

    Args:
        bandwidths: measured bytes/s by Worker; `unmeasured` says why one lacks.
        notes: what the reader should know of how it was measured.
    """

    plan: Plan
    work: Work
    bandwidths: Mapping[str, float] = field(default_factory=dict)
    unmeasured: str = ""
    notes: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def fewest(self) -> Run:
        """The run with the fewest Sessions: whose token is shown."""
        return min(self.runs, key=lambda run: run.figures.sessions)

    @property
    def most(self) -> Run:
        """The run with the most Sessions."""
        return max(self.runs, key=lambda run: run.figures.sessions)

    def bandwidth(self) -> tuple[float | None, str]:
        """The share of what bandwidth alone allows that one stream reached, or None and why it is not known."""
        alone = self.fewest
        if alone.figures.sessions > 1 or not alone.falls:
            return None, "it is of one stream: run it with --sessions 1"
        if self.unmeasured:
            return None, self.unmeasured
        fall = alone.falls[0]
        workers = [span.worker for span in fall.stages]
        if lacking := [name for name in workers if name not in self.bandwidths]:
            return None, f"{', '.join(lacking)} was not measured"
        least = least_s(self.plan, workers, self.work.prompt + self.work.new // 2, self.bandwidths)
        return least / (fall.traversal_s + fall.client_s), ""

    def document(self) -> dict[str, Any]:
        """For `--json`; seconds."""
        plan, (share, why) = self.plan, self.bandwidth()
        stages = [self._stage(stage) for stage in stages_of(plan)]
        routed = {stage.worker for stage in stages_of(plan)}
        others = [{"worker": w.name, "busy": self.most.busy.get(w.name)} for w in plan.workers if w.name not in routed]
        return {
            "model": plan.model.name,
            "dtype": plan.model.dtype,
            "epoch": plan.epoch,
            "speculate": self.work.speculate,
            "runs": [run.document(plan) for run in self.runs],
            "stages": stages,
            "stages_sessions": {"busy": self.most.figures.sessions, "times": self.fewest.figures.sessions},
            "others": others,
            "bandwidth_share": share,
            "bandwidth_why": why,
            "predicted": asdict(plan.predicted) if plan.predicted else None,
            "notes": self.notes,
        }

    def _stage(self, stage: Stage) -> dict[str, Any]:
        """Its share of a token where the fewest Sessions were, how busy it was where the most were."""
        return stage_document(stage, self.fewest.span(stage.worker) or self.most.span(stage.worker), self.most.busy)


def stages_of(plan: Plan) -> Iterator[Stage]:
    """Of all Routes, in their order."""
    return (stage for route in plan.routes for stage in route.stages)


def stage_document(stage: Stage, span: Span | None, busy: Mapping[str, float]) -> dict[str, Any]:
    """One of the document's `stages`; nulls where nothing is known."""
    times = ("compute_s", "queue_s", "hop_s", "shard_wait_s", "hop_by")
    return {
        "worker": stage.worker,
        "blocks": [stage.first, stage.end],
        "busy": busy.get(stage.worker),
        **{name: getattr(span, name) if span else None for name in times},
    }
