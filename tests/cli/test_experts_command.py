"""`swarm experts`, against a door and Workers over real sockets."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Ran, is_one_sentence, swarm
from fake_swarm import Door, OneWorker, listening, plan_for
from rich.console import Console

from swarm.cli.block_counts import block_counts
from swarm.cli.heat_map import heat_map, one_block
from swarm.plan import ExpertShard, Plan
from swarm.wire.overview import overview
from swarm.wire.v1 import worker_pb2 as pb

COUNTS = {"w0": {0: [70, 10, 15, 5], 1: [25, 25, 25, 25]}, "w1": {2: [0, 0, 1, 3], 3: [1, 2, 3, 4]}}
PLAN = plan_for({"w0": "127.0.0.1:1", "w1": "127.0.0.1:2"})


async def run(*words: str) -> Ran:
    """A command beside the servers of this test's loop."""
    return await asyncio.to_thread(swarm, *words)


def counted(name: str) -> pb.WorkerStatus:
    choices = [pb.BlockChoices(block=block, counts=counts) for block, counts in COUNTS[name].items()]
    return pb.WorkerStatus(name=name, pid=7, epoch=1, epochs=[1], choices=choices)


def with_copy(plan: Plan) -> Plan:
    return replace(plan, shards=(*plan.shards, ExpertShard("w0", 3, (3,), copy=True)))


DOCUMENT = overview(with_copy(PLAN), {name: counted(name) for name in COUNTS})


async def test_each_block_is_a_line_with_the_share_of_each_expert_in_plain_digits_when_piped() -> None:
    async with listening(Door(DOCUMENT), key="k") as address:
        ran = await run("experts", "--swarm", address, "--key", "k")
    assert ran.code == 0 and ran.err == "" and "\x1b" not in ran.out
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["block", "0", "1", "2", "3", "chosen", "where"]
    assert lines[1] == ["0", "70", "10", "15>", "5>", "100", "w0", "·", "2-3", "on", "w1"]
    assert lines[2] == ["1", "25", "25", "25", "25", "100", "w0"]
    assert lines[4] == ["3", "10", "20", "30", "40+", "10", "w1", "·", "copies", "of", "3", "on", "w0"]


async def test_json_has_counts_shares_and_who_holds_what_is_away_or_copied() -> None:
    async with listening(Door(DOCUMENT), key="k") as address:
        ran = await run("experts", "--json", "--swarm", address, "--key", "k")
    document = json.loads(ran.out)
    assert (document["epoch"], document["model"]) == (1, "tiny")
    assert [b["block"] for b in document["blocks"]] == [0, 1, 2, 3]
    first, last = document["blocks"][0], document["blocks"][3]
    assert first == {
        "block": 0, "route": 0, "worker": "w0", "counts": [70, 10, 15, 5], "shares": [0.7, 0.1, 0.15, 0.05],
        "away": {"2": "w1", "3": "w1"}, "copies": {},
    }  # fmt: skip
    assert (last["away"], last["copies"]) == ({}, {"3": "w0"})


async def test_one_block_is_an_expert_a_line_with_who_holds_it() -> None:
    async with listening(Door(DOCUMENT), key="k") as address:
        ran = await run("experts", "--block", "0", "--swarm", address, "--key", "k")
        missing = await run("experts", "--block", "9", "--swarm", address, "--key", "k")
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[1][:3] == ["0", "70", "70.0%"] and lines[1][-1] == "w0"
    assert lines[3][:3] == ["2", "15", "15.0%"] and lines[3][-3:] == ["w1,", "for", "w0"]
    assert missing.code == 2 and is_one_sentence(missing.err) and "0, 1, 2, 3" in missing.err


@pytest.mark.parametrize("words", [("experts",), ("experts", "--block", "3")])
async def test_before_anything_was_counted_it_says_so_and_what_to_do(words: tuple[str, ...]) -> None:
    async with listening(Door(overview(PLAN, {})), key="k") as address:
        ran = await run(*words, "--swarm", address, "--key", "k")
        as_json = await run(*words, "--json", "--swarm", address, "--key", "k")
    assert ran.code == 0 and "chosen anything yet" in ran.out and "swarm chat" in ran.out
    assert json.loads(as_json.out)["blocks"] == []


async def test_workers_of_a_plan_file_are_asked_themselves(tmp_path: Path) -> None:
    async with listening(OneWorker(counted("w1"))) as address:
        path = tmp_path / "plan.json"
        path.write_text(plan_for({"w0": "127.0.0.1:1", "w1": address}).to_json())
        ran = await run("experts", "--json", "--plan-file", str(path))
    assert [b["counts"] for b in json.loads(ran.out)["blocks"]] == [[0, 0, 1, 3], [1, 2, 3, 4]]


def painted(document: dict[str, object], width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True)
    console.print(heat_map(block_counts(document)))
    return console.export_text(styles=True)


def test_a_terminal_shows_the_hottest_expert_in_the_hottest_colour_and_the_coldest_in_the_coldest() -> None:
    lines = painted(DOCUMENT).splitlines()
    assert "48;2;255;176;32m  70" in lines[1]
    assert "48;2;20;28;56m   0" in lines[3]
    assert lines[2].count("48;2;255;176;32m") == 4


def test_many_experts_are_a_digit_each_and_none_is_cut() -> None:
    counts = list(range(1, 129))
    status = pb.WorkerStatus(name="w0", epoch=1, epochs=[1], choices=[pb.BlockChoices(block=0, counts=counts)])
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(heat_map(block_counts(overview(PLAN, {"w0": status}))))
    header, *lines = console.export_text().splitlines()
    digits = "".join(line[header.index("experts") : header.index("chosen")].strip() for line in lines)
    assert digits == "".join(str(round(9 * count / 128)) for count in counts)


def test_one_block_of_a_wide_model_fits_a_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(one_block(block_counts(DOCUMENT)[3]))
    assert "w1, copy on w0" in console.export_text()


def test_two_routes_show_the_same_block_twice_each_with_its_own_shards() -> None:
    document = {
        "workers": [
            {"name": "a", "route": 0, "choices": {"0": [3, 1]}, "shards": []},
            {"name": "b", "route": 1, "choices": {"0": [1, 1]}, "shards": []},
            {"name": "c", "route": None, "choices": {}, "shards": [{"block": 0, "experts": [1], "route": 1, "copy": False}]},
        ]
    }
    first, second = block_counts(document)
    assert (first.route, first.worker, dict(first.away)) == (0, "a", {})
    assert (second.route, second.worker, dict(second.away)) == (1, "b", {1: "c"})
