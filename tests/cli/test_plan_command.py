"""`swarm plan`, as a person runs it: the documented keys, a file that a Worker reads, and one sentence for each mistake."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import is_one_sentence, python, swarm
from rich.console import Console

pytest.importorskip("scipy", reason="planning needs it")

from cluster.ports import parse_ports
from swarm.cli.plan_model import model_to_plan
from swarm.cli.plan_picture import rigs_picture
from swarm.cli.tables import plan_picture, spans, stage_text
from swarm.errors import UsageError, rate
from swarm.plan import ExpertShard, Plan, Route, Stage, Standby, WorkerSpec

DEMO = ("--spread", "--device", "cpu=51MiB", "--device", "cpu=27MiB", "--device", "cpu=22MiB")


def test_json_has_the_documented_keys_and_every_byte_is_within_its_device() -> None:
    ran = swarm("plan", "nano", *DEMO, "--json")
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert {"stages", "shards", "predicted", "unused"} <= set(document)
    assert sum(end - first for first, end in (s["blocks"] for s in document["stages"])) == 8
    assert {"ttft_s", "tokens_per_s", "total_tokens_per_s"} <= set(document["predicted"])
    assert isinstance(document["bottleneck"], str) and isinstance(document["advice"], list)
    for stage in document["stages"]:
        assert {"worker", "rig", "device", "blocks", "bytes"} <= set(stage)
    for shard in document["shards"]:
        assert {"worker", "block", "experts", "bytes"} <= set(shard)
        assert shard["bytes"] == len(shard["experts"]) * 3 * 256 * 256 * 2
    held = {w["name"]: w["memory_bytes"] - w["free_bytes"] for w in document["workers"]}
    for stage in document["stages"]:
        extra = sum(s["bytes"] for s in document["shards"] if s["worker"] == stage["worker"])
        assert stage["bytes"] + extra == held[stage["worker"]]
    assert document["predicted"]["one_way_transfers_per_token"] == len(document["stages"]) + 1
    assert document["predicted"]["shard_round_trips_per_token"] == len({s["block"] for s in document["shards"]})


def test_a_device_that_is_not_needed_is_in_unused_with_the_reason() -> None:
    document = json.loads(swarm("plan", "--device", "cpu=200MiB", "--device", "cpu=9MiB", "--json").out)
    assert [(u["worker"], u["device"], bool(u["why"])) for u in document["unused"]] == [("w1", "cpu", True)]


def test_the_table_shows_where_blocks_and_experts_sit_and_says_why() -> None:
    ran = swarm("plan", "nano", *DEMO)
    assert (ran.code, ran.err) == (0, "")
    for words in ("w0 cpu", "w2 cpu", "block", "MiB", "predicted: ", "bottleneck: ", "capped at the model's 4096"):
        assert words in ran.out
    assert "\x1b" not in ran.out


def test_out_writes_a_plan_for_workers_on_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.json"
    assert (
        swarm(
            "plan", *DEMO, "--threads", "2", "--ports", "9100-9102", "--dtype", "fp32", "--context", "64", "--out", str(path)
        ).code
        == 0
    )
    plan = Plan.from_json(path.read_text())
    assert sorted((w.name, w.address, w.device, w.threads) for w in plan.workers) == [
        (f"w{i}", f"127.0.0.1:910{i}", "cpu", 2) for i in range(3)
    ]
    assert (plan.model.dtype, plan.context, plan.epoch) == ("fp32", 64, 1)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--device", "cpu=20MiB", "--dtype", "int4/128"), 1, "nano in int4/128 needs 53.8 MiB, the devices have 20.0 MiB"),
        (("--device", "gpu"), 2, "--device gpu"),
        (("--device", "cpu=4"), 2, "20GiB"),
        (("--device", "cpu=900TiB"), 1, "of RAM"),
        (("--device", "cpu=1GiB", "--ram", "much"), 2, "--ram"),
        (("--device", "cpu=1GiB", "--ports", "80"), 2, "--ports 80"),
        ((*DEMO, "--ports", "7700-7701"), 2, "3 devices"),
        (("--device", "cpu=1GiB", "--sessions", "0"), 2, "at least 1"),
        (("--device", "cpu=1GiB", "--threads", "0"), 2, "--threads 0"),
        (("--device", "cpu=1GiB", "--exclude", "cpu"), 1, "no device is left"),
        (("--device", "cpu=1GiB", "--dtype", "int3"), 2, "int3"),
        (("no-such-folder", "--device", "cpu=1GiB"), 2, "no-such-folder"),
        (("--device", "cpu=1GiB", "--out", "/proc/plan.json"), 1, "--out"),
    ],
)
def test_each_mistake_gets_one_sentence_and_its_exit_code(words: tuple[str, ...], code: int, says: str) -> None:
    ran = swarm("plan", *words)
    assert (ran.code, ran.out) == (code, "")
    assert is_one_sentence(ran.err)
    assert says in ran.err


@pytest.mark.parametrize("text", ["", "7700", "7700-", "9-8", "0-10", "80-120", "1024-65536", "a-b", "-1-5", "7700-7731-1"])
def test_ports_that_are_no_range_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="7700-7731"):
        parse_ports(text)


def test_ports_include_both_ends() -> None:
    assert list(parse_ports("7700-7702")) == [7700, 7701, 7702]


def test_runs_of_ids_are_drawn_together() -> None:
    assert spans((0, 1, 2, 5, 7, 8)) == "0-2,5,7-8"
    assert spans((3,)) == "3"


def split_plan() -> Plan:
    """Two Stages, four experts of one Block away, a copy and a standby."""
    model = model_to_plan("nano", "bf16")
    workers = tuple(WorkerSpec(f"w{i}", "rig", "cpu", "", 64 * 2**20, weights_bytes=(60 - 9 * i) * 2**20) for i in range(3))
    return Plan(
        epoch=1,
        model=model,
        workers=workers,
        routes=(Route((Stage("w0", 0, 5), Stage("w1", 5, 8))),),
        shards=(ExpertShard("w2", 7, (4, 5, 6, 7)), ExpertShard("w2", 0, (1,), copy=True), ExpertShard("w2", 1, (3,), copy=True)),
        standbys=(Standby("w2", 5, 6),),
    )


def test_a_stage_of_any_route_is_in_the_table() -> None:
    plan = replace(split_plan(), routes=(Route((Stage("w0", 0, 8),)), Route((Stage("w1", 0, 5), Stage("w2", 5, 8)))), shards=())
    assert [stage_text(plan, name) for name in ("w0", "w1", "w2")] == ["0-7", "0-4", "5-7"]


def test_table_and_picture_are_readable_at_80_columns() -> None:
    for picture in (plan_picture(split_plan()), rigs_picture(split_plan(), {"w0": "RTX 3060 12GB"})):
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(picture)
        text = console.export_text()
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "…" not in text
        for words in ("w0", "w1", "w2", "0-4", "block 7", "of 64.0 MiB"):
            assert words in text


def test_the_picture_has_a_bar_of_blocks_and_says_what_each_device_holds() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rigs_picture(split_plan(), {"w0": "RTX 3060 12GB"}))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert [" ".join(line.split()) for line in lines[1:9]] == [
        "rig",
        "w0 cpu RTX 3060 12GB 60.0 MiB of 64.0 MiB, 4.0 MiB free",
        "████████████████████············ blocks 0-4",
        "w1 cpu 51.0 MiB of 64.0 MiB, 13.0 MiB free",
        "····················████████▓▓▓▓ blocks 5-7",
        "w2 cpu 42.0 MiB of 64.0 MiB, 22.0 MiB free",
        "░░░░░░░░············▫▫▫▫····░░░░ experts 4-7 of block 7; copies of an",
        "expert each of blocks 0-1; standby for",
    ]
    assert lines[8].index("expert") == lines[7].index("experts")


def test_what_the_solver_prints_past_python_is_not_seen() -> None:
    code = "import ctypes; from swarm.cli.silence import silence\nwith silence(): ctypes.CDLL(None).puts(b'noise')\nprint('answer')"
    assert python(code).out == "answer\n"


def test_a_slow_swarm_is_not_said_to_give_nothing() -> None:
    assert (rate(6.14), rate(0.1), rate(0.044), rate(0.004)) == ("6.1 tok/s", "0.1 tok/s", "0.04 tok/s", "250 s a token")
    assert (rate(0.05, 1.5), rate(0.001, 0.02)) == ("0.05 → 1.50 tok/s", "1000 → 50 s a token")
