"""`swarm status` and `swarm load`, against a door and Workers over real sockets."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from commands import Ran, is_one_sentence, swarm
from fake_swarm import GIB, Door, OneWorker, listening, plan_for
from rich.console import Console
from typist import CTRL_C, Typist

from swarm.cli.status_measured import limit_text
from swarm.cli.status_table import Rates, picture
from swarm.errors import DoesNotFit
from swarm.plan import WAY_ROUND
from swarm.wire.overview import overview
from swarm.wire.v1 import worker_pb2 as pb

KEYS = {"name", "rig", "device", "pid", "address", "blocks", "experts", "memory", "sessions", "alive"}


async def run(*words: str) -> Ran:
    """A command beside the servers of this test's loop."""
    return await asyncio.to_thread(swarm, *words)


def serving(name: str) -> pb.WorkerStatus:
    shard = pb.BlockExperts(block=0, experts=[2, 3])
    return pb.WorkerStatus(
        name=name, pid=77, epoch=1, epochs=[1], first=2, end=4, shards=[shard], weights_bytes=100, kv_bytes=200, sessions=3
    )  # fmt: skip


async def test_a_swarm_that_answered_needs_no_name_from_then_on_and_one_that_did_not_is_not_remembered() -> None:
    async with listening(Door({"workers": []}), "s3cret") as address:
        wrong = await run("status", "--json", "--swarm", address, "--key", "an0ther")
        assert (wrong.code, (await run("status", "--json")).code) == (1, 1)
        assert (await run("status", "--json", "--swarm", address, "--key", "s3cret")).code == 0
        assert (await run("status", "--json")).code == 0


async def test_status_of_a_plan_file_asks_each_worker_and_has_the_documented_keys(tmp_path: Path) -> None:
    async with listening(OneWorker(serving("w1"))) as address:
        plan = plan_for({"w0": "127.0.0.1:1", "w1": address})
        path = tmp_path / "plan.json"
        path.write_text(plan.to_json())
        ran = await run("status", "--json", "--plan-file", str(path))
    assert ran.code == 0 and ran.err == ""
    document = json.loads(ran.out)
    assert (document["epoch"], document["model"], document["dtype"]) == (1, "tiny", "fp32")
    dead, alive = document["workers"]
    assert set(dead) >= KEYS and set(alive) >= KEYS
    assert (dead["alive"], dead["pid"], dead["blocks"]) == (False, None, [0, 2])
    assert (alive["alive"], alive["pid"], alive["sessions"]) == (True, 77, 3)
    assert (alive["blocks"], alive["experts"]) == ([2, 4], {"0": [2, 3]})
    assert alive["memory"] == {
        "total_bytes": GIB,
        "weights_bytes": 100,
        "kv_bytes": 200,
        "kv_used_bytes": 0,
        "workspace_bytes": 30,
        "free_bytes": GIB - 330,
    }


async def test_a_person_sees_what_each_worker_holds_and_which_does_not_answer(tmp_path: Path) -> None:
    async with listening(OneWorker(serving("w1"))) as address:
        path = tmp_path / "plan.json"
        path.write_text(plan_for({"w0": "127.0.0.1:1", "w1": address}).to_json())
        ran = await run("status", "--plan-file", str(path))
    lines = {line.split()[0]: line for line in ran.out.splitlines() if line.startswith("w")}
    assert "does not answer" in lines["w0"] and "0-1" in lines["w0"]
    assert "0: 2,3" in lines["w1"] and "2-3" in lines["w1"]


def test_what_is_used_and_what_is_free_add_up_to_what_there_is() -> None:
    mib = 2**20
    status = pb.WorkerStatus(name="w1", pid=77, epoch=1, epochs=[1], weights_bytes=100 * mib, kv_bytes=200 * mib)
    document = overview(plan_for({"w0": "127.0.0.1:1", "w1": "127.0.0.1:2"}), {"w1": status})
    memory = document["workers"][1]["memory"] | {"workspace_bytes": 24 * mib, "free_bytes": GIB - 324 * mib}
    document["workers"][1]["memory"] = memory
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(picture(document))
    line = next(line for line in console.export_text().splitlines() if line.startswith("w1"))
    assert "324.0 MiB 700.0 MiB 1.0 GiB" in " ".join(line.split())


async def test_status_of_a_swarm_is_the_document_that_it_serves() -> None:
    document = overview(plan_for({"w0": "127.0.0.1:1", "w1": "127.0.0.1:2"}), {"w1": serving("w1")})
    async with listening(Door(document), key="k") as address:
        ran = await run("status", "--json", "--swarm", address, "--key", "k")
    assert json.loads(ran.out) == document


async def test_a_swarm_without_a_model_says_what_it_waits_for() -> None:
    document = {
        "epoch": 0,
        "model": "",
        "dtype": "",
        "workers": [],
        "waiting": "needs 26.1 GiB, has 22.4: waiting for `swarm join`",
    }
    async with listening(Door(document), key="k") as address:
        ran = await run("status", "--swarm", address, "--key", "k")
    assert ran.code == 0 and "needs 26.1 GiB" in ran.out


@pytest.mark.parametrize("words", [("status",), ("load", "nano")])
async def test_a_wrong_key_is_one_sentence(words: tuple[str, ...]) -> None:
    async with listening(Door({}), key="right") as address:
        ran = await run(*words, "--swarm", address, "--key", "wrong")
    assert ran.code == 1 and ran.out == ""
    assert is_one_sentence(ran.err) and "key" in ran.err


@pytest.mark.parametrize("words", [("status",), ("load", "nano")])
async def test_no_key_is_one_sentence(words: tuple[str, ...]) -> None:
    ran = await run(*words, "--swarm", "127.0.0.1:1")
    assert ran.code == 1 and is_one_sentence(ran.err) and "--key-file" in ran.err


@pytest.mark.parametrize("words", [("status",), ("load", "nano")])
async def test_a_dead_port_is_one_sentence(words: tuple[str, ...]) -> None:
    ran = await run(*words, "--swarm", "127.0.0.1:1", "--key", "k")
    assert ran.code == 1 and is_one_sentence(ran.err) and "127.0.0.1:1" in ran.err


async def test_a_port_that_speaks_something_else_is_one_sentence() -> None:
    async with listening(OneWorker(serving("w1")), key="k") as address:
        ran = await run("status", "--swarm", address, "--key", "k")
    assert ran.code == 1 and is_one_sentence(ran.err) and "does not speak swarm" in ran.err


async def test_watch_and_json_together_are_refused() -> None:
    ran = await run("status", "--watch", "--json", "--swarm", "127.0.0.1:1", "--key", "k")
    assert ran.code == 2 and is_one_sentence(ran.err)


async def test_load_sends_a_folder_here_as_an_absolute_path_and_prints_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    door = Door({})
    async with listening(door, key="k") as address:
        ran = await run("load", "model", "--context", "512", "--swarm", address, "--key", "k")
    assert (ran.code, ran.out, ran.err) == (0, f"{tmp_path}/model serves\n", "")
    assert (door.loads[0].model, door.loads[0].context, door.loads[0].sessions) == (f"{tmp_path}/model", 512, 0)


async def test_load_passes_on_why_a_model_does_not_fit() -> None:
    async with listening(Door({}, DoesNotFit(30 * GIB, 20 * GIB, "big")), key="k") as address:
        ran = await run("load", "big", "--swarm", address, "--key", "k")
    assert ran.code == 1 and is_one_sentence(ran.err) and "30.0 GiB" in ran.err and "20.0 GiB" in ran.err


def test_rates_are_tokens_between_two_looks_and_unknown_at_first() -> None:
    rates = Rates()
    assert rates.of({"workers": [{"name": "w0", "tokens": 10}]}, 1.0) == {}
    assert rates.of({"workers": [{"name": "w0", "tokens": 40}, {"name": "w1", "tokens": 5}]}, 3.0) == {"w0": 15.0}
    assert rates.of({"workers": [{"name": "w0", "tokens": 2}]}, 4.0) == {}


async def test_watch_shows_the_workers_again_and_again_until_ctrl_c(tmp_path: Path) -> None:
    worker = OneWorker(serving("w1"))
    async with listening(worker) as address:
        path = tmp_path / "plan.json"
        path.write_text(plan_for({"w0": "127.0.0.1:1", "w1": address}).to_json())
        await asyncio.to_thread(watch, path, worker)


def watch(path: Path, worker: OneWorker) -> None:
    words = ("status", "--watch", "--plan-file", str(path))
    with Typist("from swarm.cli.main import main; main()", *words, terminal="xterm") as typist:
        typist.see("experts 0: 2,3")
        worker.status.loading.append("reading block 2")
        typist.see("reading")
        typist.type(CTRL_C)
        code, rest = typist.leave()
        assert code == 130 and "Traceback" not in rest


MEASURED = {"bandwidth_gb_s": 782.4, "tflops": 61.2, "start_us": 6.1, "slowed": 1.0, "dtypes": ["bf16"], "at": 1795327870.0}


def shown(document: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(picture(document))
    return console.export_text()


def measured_document() -> dict[str, Any]:
    """Two Rigs of which one serves slower than it was measured, and a third that nobody reaches."""
    document = overview(plan_for({"w0": "127.0.0.1:1", "w1": "127.0.0.1:2"}), {"w1": serving("w1")})
    first, second = document["workers"]
    first |= {
        "name": "gaming-pc/cuda:0",
        "blocks": [0, 17],
        "measured": MEASURED,
        "tokens_per_s": 12.25,
        "alive": True,
        "experts": {},
    }
    second |= {"name": "attic/cuda:1", "blocks": [17, 32], "measured": MEASURED | {"slowed": 2.13}, "experts": {}}
    for worker in (first, second):
        worker["memory"] = {"total_bytes": 24 * GIB, "weights_bytes": 0, "kv_bytes": 0, "free_bytes": GIB // 2}
    links = [
        {"between": ["attic", "gaming-pc"], "rtt_ms": 0.612, "gbit_s": 0.94, "why": "", "at": 0.0},
        {"between": ["attic", "attic"], "rtt_ms": 0.31, "gbit_s": 7.9, "why": "", "at": 0.0},
        {"between": ["attic", "cellar"], "rtt_ms": None, "gbit_s": None, "why": "cellar does not answer", "at": 0.0},
    ]
    return document | {
        "links": links,
        "objective": "latency",
        "tokens_per_s": 5.9,
        "predicted": {"ttft_s": 0.8234, "tokens_per_s": 6.14, "total_tokens_per_s": 18.31},
        "bottleneck": "attic/cuda:1",
        "standbys": [{"worker": "attic/cuda:1", "blocks": [0, 12]}],
    }


def test_what_was_measured_and_what_was_predicted_is_shown_beside_what_is_so_now() -> None:
    text = shown(measured_document())
    rows = {" ".join(line.split()) for line in text.splitlines()}
    assert "gaming-pc/cuda:0 782.4 61.20 6.1 as measured" in rows and "attic/cuda:1 782.4 61.20 6.1 2.1 times slower" in rows
    assert any(row.startswith("attic - gaming-pc 0.61 0.94 ") for row in rows)
    assert any(row.startswith("inside attic 0.31 7.90 ") for row in rows) and "cellar does not answer" in text
    joined = " ".join(text.split())
    assert "planned for latency bottleneck: attic/cuda:1, full when all chat at once: a faster device there brings most" in joined
    assert limit_text("link a/cpu to b/cpu").endswith("a faster link brings most")
    assert limit_text(WAY_ROUND) == "no device is full: more chats at once bring more tok/s in all"
    assert "one stream 6.1 tok/s, all 18.3, first token 0.82 s; now: 5.9 tok/s" in joined
    assert "standby copy of blocks 0-11 on attic/cuda:1" in joined


def test_status_says_how_far_a_rig_is_that_fetches() -> None:
    coming = {"rig": "attic", "files": ["1", "2"], "done_bytes": GIB, "total_bytes": 4 * GIB, "bytes_per_s": 95e6}
    out = io.StringIO()
    rigs = [{"name": "attic", "devices": ["attic/cpu"]}, {"name": "cellar", "devices": ["cellar/cpu"]}]
    Console(file=out, width=120).print(picture({"model": "", "rigs": rigs, "fetching": [coming]}))
    (line,) = [line for line in out.getvalue().splitlines() if "fetches" in line]
    assert "attic" in line and "fetches 2 files: 1.0 GiB of 4.0 GiB, 95.0 MB/s" in line


def test_status_is_readable_at_80_columns() -> None:
    lines = shown(measured_document()).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("gaming-pc/cuda:0" in line and "0-16" in line and "24.0 GiB" in line and "12.2" in line for line in lines)


@pytest.mark.parametrize("words", [("load", "nano"), ("up", "nano")])
async def test_an_objective_that_is_none_is_one_sentence(words: tuple[str, ...]) -> None:
    ran = await run(*words, "--objective", "speed")
    assert ran.code == 2 and is_one_sentence(ran.err) and "latency, throughput, balanced" in ran.err


async def test_load_sends_what_it_was_told_and_leaves_the_rest_as_before() -> None:
    door = Door({})
    async with listening(door, key="k") as address:
        await run("load", "nano", "--swarm", address, "--key", "k")
        await run("load", "nano", "--objective", "latency", "--no-standby", "--swarm", address, "--key", "k")
    before, told = door.loads
    assert (before.objective, before.HasField("standby")) == ("", False)
    assert (told.objective, told.HasField("standby"), told.standby) == ("latency", True, False)
