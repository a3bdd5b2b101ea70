"""`swarm plan`, as a person runs it: the documented keys, a file that a Worker reads, and one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import is_one_sentence, swarm
from rich.console import Console

from cluster.ports import parse_ports
from swarm.cli.tables import plan_picture, spans
from swarm.errors import UsageError
from swarm.plan import Plan

DEMO = ("--spread", "--device", "cpu=51MiB", "--device", "cpu=27MiB", "--device", "cpu=22MiB")


def test_json_has_the_documented_keys_and_every_byte_is_within_its_device() -> None:
    ran = swarm("plan", "nano", *DEMO, "--json")
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert {"stages", "shards", "predicted", "unused"} <= set(document)
    assert sorted(end - first for first, end in (s["blocks"] for s in document["stages"])) == [1, 2, 5]
    for stage in document["stages"]:
        assert {"worker", "rig", "device", "blocks", "bytes"} <= set(stage)
    assert document["shards"]
    for shard in document["shards"]:
        assert {"worker", "block", "experts", "bytes"} <= set(shard)
        assert shard["bytes"] == len(shard["experts"]) * 3 * 256 * 256 * 2
    held = {w["name"]: w["memory_bytes"] - w["free_bytes"] for w in document["workers"]}
    for stage in document["stages"]:
        extra = sum(s["bytes"] for s in document["shards"] if s["worker"] == stage["worker"])
        assert stage["bytes"] + extra == held[stage["worker"]]
    assert document["predicted"]["one_way_transfers_per_token"] == 4
    assert document["predicted"]["shard_round_trips_per_token"] == len({s["block"] for s in document["shards"]})


def test_a_device_that_is_not_needed_is_in_unused_with_the_reason() -> None:
    document = json.loads(swarm("plan", "--device", "cpu=200MiB", "--device", "cpu=90MiB", "--json").out)
    assert [(u["worker"], u["why"]) for u in document["unused"]] == [("w1", "the model fits without it")]


def test_the_table_shows_where_blocks_and_experts_sit_and_says_why() -> None:
    ran = swarm("plan", "nano", *DEMO)
    assert (ran.code, ran.err) == (0, "")
    for words in ("w0", "0-4", "block 7: ", "MiB", "one round trip a token", "capped at the model's 4096"):
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
        (("--device", "cpu=20MiB"), 1, "needs 74.0 MiB, the devices have 20.0 MiB"),
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


def test_the_picture_is_readable_at_80_columns(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    swarm("plan", *DEMO, "--out", str(path))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(plan_picture(Plan.from_json(path.read_text())))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    for words in ("w0", "w1", "w2", "0-4", "block 7: ", "of 51.0 MiB", "of weights"):
        assert words in text
    assert "…" not in text
