"""The commands end to end without Ray: a Plan in a file, one Worker process for each of its Workers, and a client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from claimed_ports import claimed_range
from commands import LIMIT_S, is_one_sentence, swarm
from typist import CTRL_C, CTRL_D, Typist

DATA = Path(__file__).parents[1] / "data"
EVAL, STORIES = DATA / "eval.jsonl", DATA / "stories.jsonl"
QUESTION, REFERENCE = "What is the capital of France?", "The capital of France is Paris."


@contextmanager
def worker(plan_file: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """One `swarm worker` that serves; ended as a person would end it."""
    code = "from swarm.cli.main import main; main()"
    command = [sys.executable, "-c", code, "worker", "--plan-file", str(plan_file), "--name", name]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("serves at" in line for line in process.stderr), f"{name} ended before it served"
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code_at_end = process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert code_at_end == 0


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Plan of two Workers that serve the embedded model in fp32: neither has room for all of it."""
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("swarm") / "plan.json"
    first, last, *_ = claimed_range()
    devices = ("--device", "cpu=60MiB", "--device", "cpu=50MiB", "--spread", "--threads", "1")
    made = swarm("plan", "nano", *devices, "--dtype", "fp32", "--context", "512", "--ports", f"{first}-{last}", "--out", str(path))
    assert made.code == 0, made.err
    with worker(path, "w0"), worker(path, "w1"):
        yield path


def test_an_answer_is_the_models_own_and_all_that_standard_output_holds(plan_file: Path) -> None:
    ran = swarm("chat", "--plan-file", str(plan_file), QUESTION)
    assert (ran.code, ran.out, ran.err) == (0, REFERENCE + "\n", "")


def test_json_has_the_references_tokens_and_a_time_for_each_stage(plan_file: Path) -> None:
    reference = json.loads(EVAL.read_text().splitlines()[0])
    ran = swarm("chat", "--json", "--plan-file", str(plan_file), reference["prompt"])
    document = json.loads(ran.out)
    assert (document["text"], document["tokens"]) == (reference["reference"], reference["reference_tokens"])
    assert document["usage"]["prompt_tokens"] == len(reference["prompt_tokens"])
    assert {hop["worker"] for hop in document["timings"]["hops"]} == {"w0", "w1"}


def test_max_tokens_and_stop_end_the_answer(plan_file: Path) -> None:
    cut = json.loads(swarm("chat", "--json", "--max-tokens", "3", "--plan-file", str(plan_file), QUESTION).out)
    assert (cut["finish_reason"], len(cut["tokens"])) == ("length", 3)
    stopped = json.loads(swarm("chat", "--json", "--stop", " of", "--plan-file", str(plan_file), QUESTION).out)
    assert (stopped["finish_reason"], stopped["text"]) == ("stop", "The capital")


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(plan_file: Path) -> None:
    words = ("chat", "--raw", "--temperature", "1.5", "--max-tokens", "24", "--plan-file", str(plan_file), "The", "--seed")
    one, again, other = (swarm(*words, seed) for seed in ("5", "5", "6"))
    assert one.code == 0 and one == again and one.out != other.out


def test_score_agrees_with_the_logprobs_that_chat_gave(plan_file: Path) -> None:
    prompt = f"[INST] {QUESTION} [/INST]"
    answer = json.loads(swarm("chat", "--json", "--raw", "--plan-file", str(plan_file), prompt).out)
    assert answer["text"] == REFERENCE
    scored = json.loads(swarm("score", "--json", "--plan-file", str(plan_file), text=f"{prompt} {REFERENCE}").out)
    said = answer["tokens"][:-1]  # the model's end is no text
    assert scored["tokens"][-len(said) :] == said
    assert scored["logprobs"][-len(said) :] == pytest.approx(answer["logprobs"][:-1], abs=1e-4)


def test_an_answer_stopped_with_ctrl_c_leaves_a_chat_that_answers_right(plan_file: Path) -> None:
    story = json.loads(STORIES.read_text().splitlines()[0])
    for _ in range(5):
        with Typist("from swarm.cli.main import main; main()", "chat", "--plan-file", str(plan_file)) as typist:
            typist.see("> ")
            typist.type(story["prompt"] + "\n")
            typist.see(story["reference"][:20])
            typist.type(CTRL_C)
            shown = typist.see("> ")
            if story["reference"][-20:] in shown:
                continue  # it was over before the key was pressed: this process had to wait
            assert len(shown) < len(story["reference"])
            typist.type(QUESTION + "\n")
            typist.see(REFERENCE)
            typist.see("> ")
            typist.type(CTRL_D)
            assert typist.leave()[0] == 0
            return
    pytest.fail("no answer was stopped before its end")


def test_a_person_watches_the_swarm_while_another_chats(plan_file: Path) -> None:
    code = "from swarm.cli.main import main; main()"
    with Typist(code, "status", "--watch", "--plan-file", str(plan_file), terminal="xterm") as watcher:
        watcher.see("nano")
        watcher.see("weights")
        with Typist(code, "chat", "--plan-file", str(plan_file)) as chatter:
            chatter.see("> ")
            chatter.type(QUESTION + "\n")
            chatter.see(REFERENCE)
            watcher.see("1 session")
            chatter.see("> ")
            chatter.type(CTRL_D)
            assert chatter.leave()[0] == 0
        watcher.see("0 sessions")
        watcher.type(CTRL_C)
        ended, rest = watcher.leave()
        assert ended == 130 and "Traceback" not in rest


def test_status_shows_every_block_with_a_worker_that_lives(plan_file: Path) -> None:
    document = json.loads(swarm("status", "--json", "--plan-file", str(plan_file)).out)
    workers = document["workers"]
    assert all(w["alive"] and w["pid"] > 0 and w["memory"]["weights_bytes"] > 0 for w in workers)
    assert sorted(b for w in workers for b in range(*w["blocks"])) == list(range(8))


def test_a_prompt_longer_than_the_context_is_one_sentence(plan_file: Path) -> None:
    ran = swarm("chat", "--plan-file", str(plan_file), text="word " * 2000)
    assert ran.code == 1 and ran.out == "" and is_one_sentence(ran.err)


def test_a_worker_that_never_was_is_one_sentence(plan_file: Path, tmp_path: Path) -> None:
    raw = json.loads(plan_file.read_text())
    raw["workers"][1]["address"] = "127.0.0.1:1"
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(raw))
    ran = swarm("chat", "--plan-file", str(path), QUESTION)
    assert ran.code == 1 and ran.out == ""
    assert is_one_sentence(ran.err.splitlines(keepends=True)[-1]) and "w1" in ran.err and "Traceback" not in ran.err


def test_a_port_in_use_is_one_sentence(plan_file: Path) -> None:
    ran = swarm("worker", "--plan-file", str(plan_file), "--name", "w0")
    assert ran.code == 1 and is_one_sentence(ran.err) and "port" in ran.err
