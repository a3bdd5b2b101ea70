"""`swarm bench` and `swarm chat --trace` over real Workers in processes; and what is shown of what they find."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import LIMIT_S, is_one_sentence, swarm
from fake_swarm import plan_for
from rich.console import Console

from swarm.cli.bench import session_counts
from swarm.cli.bench_found import Found, Run
from swarm.cli.bench_picture import picture
from swarm.client.bench import Work
from swarm.client.bench_run import Figures
from swarm.client.limit import least_s
from swarm.client.waterfall import COUNTED, ONE_CLOCK, REST, SHARED, Span, Waterfall
from swarm.errors import UsageError
from swarm.plan import Prediction

QUICK = ("--sessions", "1,3", "--prompt", "20", "--new", "6")
FALL = Waterfall((Span("w0", 0.002, REST, 0.001, 0.010, 0.003), Span("w1", 0.001, ONE_CLOCK, 0.0, 0.020, 0.0)), 0.037, 0.001, 63)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Plan of two Workers that serve the embedded model, with KV for 2 Sessions of 64 positions, which is 4 of 32."""
    pytest.importorskip("torch")
    from plans import plan_of
    from swarm_processes import processes

    with processes(plan_of([3, 8], sessions=2, context=64), tmp_path_factory.mktemp("bench")) as serving:
        yield serving.plan_file


@pytest.fixture(scope="module")
def document(plan_file: Path) -> dict[str, Any]:
    """Of a run with one Session, and one with three."""
    ran = swarm("bench", "--json", "--plan-file", str(plan_file), *QUICK)
    assert ran.code == 0, ran.err
    return dict(json.loads(ran.out))


def test_the_document_has_its_keys_and_every_session_all_its_tokens(document: dict[str, Any]) -> None:
    assert [(r["sessions"], r["prompt_tokens"], r["new_tokens"], r["cut"]) for r in document["runs"]] == [
        (1, 20, 6, False),
        (3, 20, 6, False),
    ]
    for run in document["runs"]:
        assert 0 < run["itl_p50_s"] <= run["itl_p99_s"] and run["ttft_s"] > 0
        assert sum(way["traversals"] for way in run["ways"]) == 5 * run["sessions"]
        assert [s["worker"] for s in run["stages"]] == ["w0", "w1"]
    alone = document["runs"][0]
    assert alone["tokens_per_s"] == pytest.approx(alone["total_tokens_per_s"])
    assert (document["bandwidth_share"], document["predicted"]) == (None, None)
    assert "not measured" in document["bandwidth_why"]


def test_a_tokens_pieces_add_up_to_its_time_and_each_stage_was_busy_for_a_share(document: dict[str, Any]) -> None:
    (way,) = document["runs"][0]["ways"]
    pieces = sum(s["compute_s"] + s["queue_s"] + s["shard_wait_s"] + s["hop_s"] for s in way["stages"])
    assert pieces == pytest.approx(way["traversal_s"])
    assert way["traversal_s"] + way["client_s"] == pytest.approx(1 / document["runs"][0]["tokens_per_s"], rel=0.5)
    assert [s["hop_by"] for s in way["stages"]] == [REST, ONE_CLOCK]
    assert [s["compute_s"] > 0 and 0 < s["busy"] <= 1 for s in document["stages"]] == [True, True]


def test_a_hop_between_rigs_is_known_from_what_its_sender_counts(plan_file: Path, tmp_path: Path) -> None:
    plan = json.loads(plan_file.read_text())
    plan["workers"][1]["rig"] = "elsewhere"
    (path := tmp_path / "apart.json").write_text(json.dumps(plan))
    (way,) = json.loads(swarm("bench", "--json", "--plan-file", str(path), *QUICK).out)["runs"][0]["ways"]
    assert [s["hop_by"] for s in way["stages"]] in ([REST, COUNTED], [SHARED, SHARED])  # the latter, should the count exceed it
    assert all(0 < s["hop_s"] < way["traversal_s"] for s in way["stages"])


def test_sessions_without_room_are_measured_when_their_turn_comes_and_that_is_said(plan_file: Path) -> None:
    ran = swarm("bench", "--plan-file", str(plan_file), "--sessions", "5", "--prompt", "20", "--new", "6")
    assert ran.code == 0, ran.err
    assert "room for 4 sessions of 26 positions" in ran.out and "5 sessions:" in ran.err
    assert max(map(len, ran.out.splitlines())) <= 130  # a note is a line of its own


def test_speculation_makes_as_many_tokens_and_says_how_many_guesses_were_right(plan_file: Path) -> None:
    ran = swarm("bench", "--speculate", "--json", "--plan-file", str(plan_file), "--sessions", "1", "--prompt", "20", "--new", "40")
    (run,) = json.loads(ran.out)["runs"]
    assert not run["cut"] and run["kept"] <= run["drafted"]


def test_ctrl_c_shows_what_was_measured_so_far(plan_file: Path) -> None:
    code = "from swarm.cli.main import main; main()"
    words = ("bench", "--json", "--plan-file", str(plan_file), "--sessions", ",".join(["1"] * 30), "--prompt", "4")
    command = [sys.executable, "-c", code, *words, "--new", "60"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        assert any("1 session:" in line for line in process.stderr)  # the first run is over
        process.send_signal(signal.SIGINT)
        out = process.stdout.read()
        assert process.wait(LIMIT_S) == 130
    assert json.loads(out)["runs"][0]["cut"] is False


def test_a_prompt_and_tokens_beyond_the_context_are_one_sentence(plan_file: Path) -> None:
    ran = swarm("bench", "--plan-file", str(plan_file), "--prompt", "60", "--new", "5")
    assert ran.code == 1 and ran.out == ""
    assert is_one_sentence(ran.err) and "65 positions" in ran.err and "--context" in ran.err


def test_an_answers_waterfall_follows_it_on_standard_error_and_stands_in_its_document(plan_file: Path) -> None:
    words = ("chat", "--trace", "--raw", "--max-tokens", "5", "--no-speculate", "--plan-file", str(plan_file), "The capital")
    shown, told = swarm(*words), swarm(*words, "--json")
    assert shown.code == 0 and "compute" not in shown.out
    assert all(piece in shown.err for piece in ("w0 compute", "w1 compute", "w0 → w1", "client"))
    trace = json.loads(told.out)["timings"]["trace"]
    assert [s["worker"] for s in trace["stages"]] == ["w0", "w1"] and told.err == ""
    assert trace["traversals"] == 4 and trace["other_ways"] == []


@pytest.mark.parametrize("text", ["", "0", "1,", "a", "1,-4", "1,99999", "1.5"])
def test_numbers_of_sessions_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sessions"):
        session_counts(text)


def found(busy: dict[str, float]) -> Found:
    """One stream of 26 tokens a second, and then four."""
    plan = plan_for({"w0": "127.0.0.1:1", "w1": "127.0.0.1:2"})
    plan = replace(plan, predicted=Prediction(0.5, 30.0, 80.0, "w1"))
    found = Found(plan, Work(20, 64), {"w0": 1e9, "w1": 2e9})
    for sessions in (1, 4):
        figures = Figures(sessions, 20, 64, 0.4, 0.5, 26.3, 26.3 * sessions, 0.038, 0.04)
        found.runs.append(Run(figures, (FALL,), busy))
    return found


def shown(found: Found) -> list[str]:
    console = Console(file=(out := io.StringIO()), width=80, color_system=None)
    console.print(picture(found))
    return out.getvalue().splitlines()


def test_the_picture_fits_80_columns_and_has_runs_prediction_waterfall_and_busy_shares() -> None:
    lines = shown(found({"w0": 0.25, "w1": 1.0}))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "the Plan" in text and "80.0 for 1" in text and "100%" in text and "25%" in text
    bars = {re.sub(r" +[0-9.]+ ms.*", "", line): line for line in lines if "█" in line and " ms " in line}
    assert list(bars) == [
        "w0 queue", "w0 compute", "w0 shard wait", "w0 → w1", "w1 compute", "client's two ways", "client",
    ]  # fmt: skip
    assert bars["w1 compute"].count("█") > bars["w0 compute"].count("█") > bars["w0 → w1"].count("█") == 1
    assert bars["w0 compute"].rindex("█") <= bars["w1 compute"].index("█")


def test_a_worker_that_does_not_say_is_unknown_and_not_idle() -> None:
    measured = found({"w0": 0.25})
    assert any("did not say" in line for line in shown(measured))
    assert [s["busy"] for s in measured.document()["stages"]] == [0.25, None]


def test_the_bandwidth_share_is_of_one_stream_and_needs_every_stage_measured() -> None:
    measured = found({})
    least = least_s(measured.plan, ("w0", "w1"), 20 + 32, measured.bandwidths)
    share, why = measured.bandwidth()
    assert share == pytest.approx(least / 0.038) and why == ""
    measured.bandwidths = {"w0": 1e9}
    assert measured.bandwidth() == (None, "w1 was not measured")
    measured.runs = measured.runs[1:]
    assert measured.bandwidth()[0] is None and "--sessions 1" in measured.bandwidth()[1]
