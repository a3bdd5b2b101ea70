"""The commands as a person runs them against one real swarm: answers, documents, models that change, processes that die."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands_harness import NOISE, Person, Running, join_words, wait_for

from cluster.ports import Ports, parse_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
DEVICES = ("--device", "cpu=52MiB", "--device", "cpu=34MiB", "--device", "cpu=27MiB")
LONG = (
    "chat",
    "--raw",
    "--no-speculate",
    "--temperature",
    "0",
    "The sky is blue. The grass is green. The sky is blue. The grass is green.",
)
TOKENS = 600


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    person = Person(tmp_path_factory.mktemp("commands"))
    yield person
    person.close()
    person.nothing_is_left()


@pytest.fixture(scope="module")
def up(person: Person) -> Running:
    """A swarm of three unequal Devices that serves the embedded model in fp32."""
    budget = ("--dtype", "fp32", "--sessions", "2", "--context", "2048")
    up = person.up("nano", "--spread", *DEVICES, *budget, "--threads", "1", "--name", "attic")
    up.shows("blocks  experts")
    return up


@pytest.fixture(scope="module")
def long_answer(person: Person, up: Running) -> str:
    """What nobody disturbed."""
    ran = person.run(*LONG, "--max-tokens", str(TOKENS))
    assert ran.code == 0, ran.err
    return ran.out


def chat_long(person: Person) -> Running:
    """A chat that streams now, and for some seconds more."""
    chat = person.start(*LONG, "--max-tokens", str(TOKENS))
    wait_for(lambda: len(chat.out) > 100, "beginning of an answer", instead=lambda: chat.err)
    return chat


def answers(person: Person) -> bool:
    ran = person.run("chat", QUESTION)
    assert (ran.code, ran.out) == (0, ANSWER + "\n"), ran.err
    return True


def test_up_prints_the_join_line_the_devices_and_the_plan_and_no_noise(person: Person, up: Running) -> None:
    assert join_words(up)[:2] == ("join", person.address)
    for line in ("swarm chat", "http://127.0.0.1:", "attic/cpu:0"):
        assert line in up.out
    assert re.search(r"block \d: \d", up.out)  # a block has experts elsewhere
    assert not any(noise in up.out + up.err for noise in NOISE)
    assert f"starting a swarm at {person.address}" in up.err


def heard(port: int, said: bytes) -> bytes:
    """What a port of this machine answers to plain text; nothing where nobody listens, or hangs up."""
    answer = b""
    for host in ("127.0.0.1", "127.0.0.2"):
        with contextlib.suppress(OSError), socket.create_connection((host, port), 2) as there:
            there.settimeout(2)
            there.sendall(said)
            answer += there.recv(64)
    return answer


def test_no_port_answers_a_stranger_but_rays_pages(person: Person, up: Running) -> None:
    ports = Ports.lay_out(person.ports, len(DEVICES) // 2)
    pages = {ports.ray[name] for name in ("dashboard", "agent_http", "metrics", "runtime_env", "dashboard_metrics")}
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    answering = {port for port in parse_ports(person.ports) if heard(port, preface)}
    assert answering <= pages and ports.ray["metrics"] in answering  # which shows that asking so is heard
    told = {port for port in pages if b" 200 " in heard(port, b"GET /metrics HTTP/1.0\r\n\r\n")}
    assert told <= {ports.ray["metrics"], ports.ray["dashboard_metrics"]}


def test_an_answer_is_all_that_standard_output_holds(person: Person, up: Running) -> None:
    ran = person.run("chat", QUESTION)
    assert (ran.code, ran.out, ran.err) == (0, ANSWER + "\n", "")


def test_the_document_of_a_chat_has_the_references_tokens_and_a_time_for_each_stage(person: Person, up: Running) -> None:
    reference = json.loads((Path(__file__).parents[1] / "data" / "eval.jsonl").read_text().splitlines()[0])
    document = person.run("chat", "--json", "--temperature", "0", reference["prompt"]).document
    assert set(document) >= {"text", "tokens", "logprobs", "finish_reason", "usage", "timings"}
    assert (document["text"], document["tokens"]) == (reference["reference"], reference["reference_tokens"])
    assert len(document["logprobs"]) == len(document["tokens"]) and all(p <= 0 for p in document["logprobs"])
    assert document["finish_reason"] == "stop" and document["usage"]["prompt_tokens"] == len(reference["prompt_tokens"])
    assert {"ttft_s", "tokens_per_s", "hops"} <= set(document["timings"])
    assert {hop["worker"] for hop in document["timings"]["hops"]} == with_blocks(person.status())


def test_a_score_is_that_of_transformers(person: Person, up: Running) -> None:
    import torch
    from transformers import MixtralForCausalLM

    from swarm.weights.source import NANO_FOLDER

    document = person.run("score", "--json", "-", text=f"{ANSWER} The sky is blue.").document
    assert set(document) >= {"tokens", "logprobs", "perplexity", "model"} and document["model"] == "nano"
    oracle = MixtralForCausalLM.from_pretrained(NANO_FOLDER, dtype=torch.float32)
    with torch.no_grad():
        rows = oracle(torch.tensor([document["tokens"]])).logits[0].log_softmax(-1)
    expected = [float(row[token]) for row, token in zip(rows, document["tokens"][1:], strict=False)]
    assert document["tokens"][0] == 1 and document["logprobs"][0] is None
    assert document["logprobs"][1:] == pytest.approx(expected, abs=1e-4)
    assert document["perplexity"] == pytest.approx(float(torch.tensor(expected).mean().neg().exp()), rel=1e-4)


def test_the_document_of_a_status_has_the_promised_keys_and_is_true(person: Person, up: Running) -> None:
    answers(person)
    status = person.status_where(lambda s: not any(w["sessions"] for w in s["workers"]), "end of the sessions")
    assert (status["model"], status["dtype"]) == ("nano", "fp32") and status["epoch"] > 0
    keys = {"name", "rig", "device", "pid", "address", "blocks", "experts", "memory", "sessions", "alive"}
    for worker in status["workers"]:
        assert keys <= set(worker) and worker["rig"] == "attic" and worker["alive"] is True and worker["device"] == "cpu"
        command = Path(f"/proc/{worker['pid']}/cmdline").read_text().split("\0")
        assert worker["name"] in command and worker["address"] in command
        memory = worker["memory"]
        assert memory["total_bytes"] == sum(memory[part] for part in ("weights_bytes", "kv_bytes", "workspace_bytes", "free_bytes"))
        assert memory["weights_bytes"] > 0 and memory["free_bytes"] > 0
        assert (memory["kv_bytes"] > 0) is (worker["name"] in with_blocks(status))  # the others hold experts
    ranges = sorted(tuple(w["blocks"]) for w in status["workers"] if w["name"] in with_blocks(status))
    assert (ranges[0][0], ranges[-1][1]) == (0, 8) and all(a[1] == b[0] for a, b in pairwise(ranges))
    assert len(ranges) > 1
    shards = [(int(block), ids) for w in status["workers"] for block, ids in w["experts"].items()]
    assert shards and all(0 <= block < 8 and set(ids) <= set(range(8)) for block, ids in shards)
    assert sum(w["memory"]["weights_bytes"] for w in status["workers"]) == pytest.approx(2 * _nano_bytes(), rel=0.01)


def with_blocks(status: dict[str, Any]) -> set[str]:
    """The Workers that have a Stage: how many of three those are depends on what was measured."""
    return {w["name"] for w in status["workers"] if range(*w["blocks"])}


def _nano_bytes() -> int:
    from swarm.weights.source import NANO_FOLDER

    return (NANO_FOLDER / "model.safetensors").stat().st_size


def test_status_and_plan_draw_what_their_documents_hold(person: Person, up: Running) -> None:
    ran = person.run("status")
    assert ran.code == 0 and not ran.err and "attic/cpu:2" in ran.out and "does not answer" not in ran.out
    document = person.run("plan", "nano", "--spread", *DEVICES, "--json").document
    assert set(document) >= {"stages", "shards", "predicted", "unused"}


@pytest.mark.parametrize("command", [("chat", QUESTION), ("status",), ("load", "nano"), ("score", "-")], ids=lambda c: c[0])
def test_a_wrong_key_is_one_sentence(person: Person, up: Running, command: tuple[str, ...]) -> None:
    ran = person.run(*command, "--key", "guess", text="Hello")
    assert ran.failed_in_one_sentence and "key" in ran.err


def test_a_prompt_longer_than_the_context_is_one_sentence_with_both_lengths(person: Person, up: Running) -> None:
    ran = person.run("chat", "-", text="blue " * 3000)
    assert ran.failed_in_one_sentence and "2048" in ran.err


def test_a_second_up_of_the_same_user_is_one_sentence_and_leaves_the_first_alone(person: Person, up: Running) -> None:
    note = (person.home / "head.json").read_text()
    other = Person(person.folder / "other")
    ran = person.run("up", "nano", "--device", "cpu=80MiB", *other.place)
    assert ran.failed_in_one_sentence and "swarm down" in ran.err and person.address in ran.err
    assert (person.home / "head.json").read_text() == note and answers(person)
    assert set(json.loads((person.home / "swarms.json").read_text())["keys"]) == {person.address}


def test_a_join_with_a_wrong_key_starts_nothing(person: Person, up: Running, tmp_path: Path) -> None:
    stranger = Person(tmp_path / "stranger")
    ran = stranger.run("join", person.address, "--key", "guess", "--device", "cpu=80MiB", *stranger.place)
    assert ran.code == 1 and "key" in ran.err and "Traceback" not in ran.err and ran.err.count("swarm: ") == 1
    stranger.nothing_is_left()
    assert len(person.status()["rigs"]) == 1


def test_a_killed_worker_is_started_again_and_the_chat_ends_with_the_same_text(
    person: Person, up: Running, long_answer: str
) -> None:
    before = person.status()
    chat = chat_long(person)
    os.kill(victim := next(w["pid"] for w in before["workers"] if w["name"] in with_blocks(before)), signal.SIGKILL)
    assert chat.ended().out == long_answer
    after = person.status_where(
        lambda s: s["epoch"] and all(w["alive"] for w in s["workers"]) and with_blocks(s) == with_blocks(before),
        "the plan of before",
    )
    assert victim not in {w["pid"] for w in after["workers"]}
    assert "starting it again" in up.err and "Traceback" not in up.err


def test_a_killed_coordinator_comes_back_with_the_same_plan_and_workers_while_a_chat_goes_on(
    person: Person, up: Running, long_answer: str
) -> None:
    before = person.status()
    chat = chat_long(person)
    os.kill(next(pid for pid, line in person.processes().items() if line.startswith("ray::Coordinator")), signal.SIGKILL)
    assert chat.ended().out == long_answer
    after = wait_for(lambda: _status_or_none(person), "status of the new coordinator")
    assert after["epoch"] == before["epoch"]
    assert [(w["name"], w["pid"], w["blocks"]) for w in after["workers"]] == [
        (w["name"], w["pid"], w["blocks"]) for w in before["workers"]
    ]
    assert answers(person)


def _status_or_none(person: Person) -> dict[str, Any] | None:
    ran = person.run("status", "--json")
    document: dict[str, Any] = json.loads(ran.out) if ran.code == 0 else {}
    return document if document.get("epoch") else None


def test_logs_tell_what_all_processes_said_with_a_silent_coordinator_too_and_hold_no_prompt(person: Person, up: Running) -> None:
    assert answers(person)
    coordinator = next(pid for pid, line in person.processes().items() if line.startswith("ray::Coordinator"))
    os.kill(coordinator, signal.SIGSTOP)
    try:
        ran = person.run("logs", "attic", "--json")
    finally:
        os.kill(coordinator, signal.SIGCONT)
    assert ran.code == 0 and "these are the logs that can be had without it" in ran.err
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [r["at"] for r in records] == sorted(r["at"] for r in records)
    processes = {"up", "coordinator", "agent cpu:0", "worker cpu:0", "worker cpu:1", "worker cpu:2"}
    assert processes <= {r["process"] for r in records}
    assert any("serves at" in r["said"] for r in records) and any("is in force: nano" in r["said"] for r in records)
    assert not [word for word in ("France", "Paris", "grass", "ray start") if word in ran.out]


def test_what_was_unloaded_comes_back_with_the_next_question(person: Person, up: Running) -> None:
    ran = person.run("unload")
    assert ran.code == 0 and "MiB given back" in ran.out, ran.err
    assert "unloaded nano" in person.run("models").out
    ran = person.run("chat", QUESTION, "--temperature", "0")
    assert (ran.code, ran.out) == (0, f"{ANSWER}\n") and "is bringing nano back" in ran.err


@pytest.mark.timeout(300)
def test_a_running_swarm_gets_another_key_and_ray_with_it_while_a_chat_goes_on_and_the_old_key_is_refused(
    person: Person, up: Running, long_answer: str
) -> None:
    old, before, rays = join_words(up)[-1], person.status(), ray_processes(person)
    chat = chat_long(person)
    ran = person.start("key", "rotate").ended(240)  # it is Ray's start that takes so long
    assert ran.code == 0 and "attic use it; the old key and its invitations are refused from now on" in ran.err, ran.err
    assert chat.ended().out == long_answer
    refused = person.run("chat", QUESTION, "--key", old)
    assert refused.failed_in_one_sentence and "key" in refused.err
    assert answers(person) and old not in ran.out
    after = person.status()
    assert [w["pid"] for w in after["workers"]] == [w["pid"] for w in before["workers"]] and after["epoch"] == before["epoch"]
    assert rays and not rays & ray_processes(person)


def ray_processes(person: Person) -> set[int]:
    """What a token and certificates are read by once, at their start."""
    return {pid for pid, line in person.processes().items() if "gcs_server" in line or "raylet/raylet" in line}


def test_down_ends_everything_and_says_so(person: Person, up: Running) -> None:
    ran = person.run("down")
    assert (ran.code, ran.err) == (0, "") and person.address in ran.out
    ended = up.ended()
    assert ended.code == 0 and "Traceback" not in ended.err
    person.nothing_is_left()
    assert not (person.home / "head.json").exists()
    again = person.run("down")
    assert again.failed_in_one_sentence
    lost = person.run("chat", QUESTION)
    assert lost.failed_in_one_sentence and person.address in lost.err
