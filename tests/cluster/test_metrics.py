"""What is told to Ray's metrics of a Worker, and that the dashboard and its document name nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.metrics import METRICS, Reading, Readings
from swarm.config import ModelConfig
from swarm.plan import Model, Plan, Prediction, Route, Stage, WorkerSpec
from swarm.wire.v1 import worker_pb2 as pb

DOCS = Path(__file__).parents[2] / "docs"
CONFIG = ModelConfig(
    architecture="MixtralForCausalLM", hidden=16, ffn=16, num_blocks=2, num_heads=2, num_kv_heads=1, head_dim=8, num_experts=2,
    top_k=1, vocab=32, max_positions=128, norm_eps=1e-5, rope_theta=1e6, tied_head=False, dtype="fp32", bos_id=1, eos_ids=(2,),
)  # fmt: skip
PLAN = Plan(
    epoch=5,
    model=Model("tiny", "tiny", "0" * 8, "fp32", CONFIG),
    workers=tuple(WorkerSpec(name, name.partition("/")[0], "cpu", f"{name}:1", 1000) for name in ("attic/cpu", "desk/cuda:0")),
    routes=(Route((Stage("attic/cpu", 0, 1), Stage("desk/cuda:0", 1, 2))),),
    sessions=2,
    context=64,
    predicted=Prediction(0.5, 20.0, 30.0, "attic/cpu"),
)
TAGS = {"rig": "desk", "device": "cuda:0", "worker": "desk/cuda:0"}


def status(up_s: float, **more: Any) -> pb.WorkerStatus:
    base: dict[str, Any] = {"name": "desk/cuda:0", "pid": 7, "epoch": 5, "first": 1, "end": 2, "plan": PLAN.to_json()}
    return pb.WorkerStatus(**(base | {"up_s": up_s} | more))


def gauges(readings: list[Reading]) -> dict[str, float]:
    assert all(r.tags == TAGS for r in readings if not METRICS[r.name].counter)
    return {r.name: r.value for r in readings if not METRICS[r.name].counter}


def counters(readings: list[Reading]) -> dict[tuple[str, ...], float]:
    found = (r for r in readings if METRICS[r.name].counter)
    return {(r.name, *(v for k, v in r.tags.items() if k not in TAGS)): r.value for r in found}


def test_each_look_sets_every_gauge_and_adds_only_to_counters_that_exist() -> None:
    readings = Readings("desk/cuda:0")
    for look in (None, status(1.0, tokens=3), status(2.0, tokens=5), None):
        found = readings.of(look)
        assert set(gauges(found)) == {name for name, metric in METRICS.items() if not metric.counter}
        assert {r.name for r in found} <= METRICS.keys()
        assert all(set(r.tags) == set(METRICS[r.name].tags) for r in found)


def test_what_a_worker_holds_is_told_in_bytes_and_pages() -> None:
    shard = pb.BlockExperts(block=0, experts=[0, 1])
    look = status(1.0, weights_bytes=400, kv_bytes=200, kv_used_bytes=50, sessions=1, shards=[shard])
    told = gauges(Readings("desk/cuda:0").of(look))
    assert (told["swarm_up"], told["swarm_blocks"], told["swarm_experts_held"]) == (1, 1, 2)
    assert (told["swarm_memory_bytes"], told["swarm_weights_bytes"], told["swarm_kv_bytes"]) == (1000, 400, 200)
    assert (told["swarm_kv_pages"], told["swarm_kv_pages_used"], told["swarm_sessions"]) == (PLAN.kv_pages, PLAN.kv_pages // 4, 1)


def test_busy_share_and_rates_are_of_the_time_between_two_looks() -> None:
    readings = Readings("desk/cuda:0")
    readings.of(status(10.0, busy_s=5.0, tokens=100, steps=pb.Work(count=10, seconds=1.0)))
    work = {"steps": pb.Work(count=14, seconds=1.2), "hops": pb.Work(count=4, seconds=0.01)}
    told = gauges(readings.of(status(14.0, busy_s=6.0, tokens=120, **work)))
    assert (told["swarm_busy_share"], told["swarm_tokens_per_s"], told["swarm_route_tokens_per_s"]) == (0.25, 5.0, 5.0)
    assert (round(told["swarm_step_s"], 6), told["swarm_hop_s"], told["swarm_shard_step_s"]) == (0.05, 0.0025, 0)
    idle = gauges(readings.of(status(18.0, busy_s=6.0, tokens=120, **work)))
    assert (idle["swarm_busy_share"], idle["swarm_tokens_per_s"], round(idle["swarm_step_s"], 6)) == (0, 0, 0.05)


def test_the_prediction_stands_beside_what_the_last_worker_measures_and_nowhere_else() -> None:
    last = gauges(Readings("desk/cuda:0").of(status(1.0)))
    assert (last["swarm_predicted_tokens_per_s"], last["swarm_predicted_total_tokens_per_s"]) == (20, 30)
    assert last["swarm_predicted_ttft_s"] == 0.5
    first = {r.name: r.value for r in Readings("attic/cpu").of(status(1.0, name="attic/cpu"))}
    assert first["swarm_predicted_tokens_per_s"] == first["swarm_route_tokens_per_s"] == 0


def test_choices_are_those_that_the_worker_counted_and_from_zero_when_a_block_comes_back() -> None:
    def choices(*counts: int) -> list[pb.BlockChoices]:
        return [pb.BlockChoices(block=1, counts=counts)]

    readings = Readings("desk/cuda:0")
    first = {("swarm_choices", "1", "0"): 10, ("swarm_choices", "1", "1"): 20}
    assert counters(readings.of(status(1.0, choices=choices(10, 20)))) == first
    assert counters(readings.of(status(2.0, choices=choices(10, 23)))) == {("swarm_choices", "1", "1"): 3}
    assert counters(readings.of(status(3.0, choices=choices(2, 0)))) == {("swarm_choices", "1", "0"): 2}
    assert counters(readings.of(status(4.0, choices=choices(2, 1), tokens=1))) == {
        ("swarm_choices", "1", "1"): 1,
        ("swarm_tokens",): 1,
    }


def test_a_worker_that_started_anew_or_is_gone_is_no_negative_count() -> None:
    readings = Readings("desk/cuda:0")
    assert counters(readings.of(status(10.0, tokens=100))) == {("swarm_tokens",): 100}
    assert counters(readings.of(status(1.0, tokens=3, pid=8))) == {("swarm_tokens",): 3}
    assert counters(readings.of(status(2.0, tokens=4, pid=8))) == {("swarm_tokens",): 1}
    gone = gauges(readings.of(None))
    assert set(gone.values()) == {0.0}


def test_a_plan_that_this_version_does_not_read_leaves_the_rest_told() -> None:
    told = gauges(Readings("desk/cuda:0").of(status(1.0, plan="{}", weights_bytes=9)))
    assert (told["swarm_weights_bytes"], told["swarm_predicted_tokens_per_s"]) == (9, 0)
    nothing = replace(PLAN, predicted=None)
    assert gauges(Readings("desk/cuda:0").of(status(1.0, plan=nothing.to_json())))["swarm_predicted_ttft_s"] == 0


def exported(name: str) -> str:
    """As Ray exports a metric of ours."""
    return f"ray_{name}_total" if METRICS[name].counter else f"ray_{name}"


def test_the_dashboard_asks_for_metrics_that_exist_and_shows_each_of_them() -> None:
    text = (DOCS / "grafana" / "swarm.json").read_text(encoding="utf-8")
    asked = {target["expr"] for panel in json.loads(text)["panels"] for target in panel.get("targets", ())}
    named = {name for expression in asked for name in re.findall(r"ray_swarm_\w+", expression)}
    assert named == {exported(name) for name in METRICS}


def test_the_dashboard_is_whole() -> None:
    board = json.loads((DOCS / "grafana" / "swarm.json").read_text(encoding="utf-8"))
    panels = board["panels"]
    assert board["title"] and board["uid"] and board["schemaVersion"] >= 36
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = board["templating"]["list"][0]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken
        taken |= cells
        assert panel["title"] and panel["type"] in ("timeseries", "stat", "table", "heatmap", "bargauge", "row")
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": f"${{{source['name']}}}"}


def test_the_document_lists_every_metric_with_its_tags_and_no_other() -> None:
    text = (DOCS / "dashboard.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(" `"): line for line in text.splitlines() if line.startswith("| `ray_swarm")}
    assert set(rows) == {exported(name) for name in METRICS}
    for name, metric in METRICS.items():
        assert ("block, expert" in rows[exported(name)]) == ("expert" in metric.tags)
