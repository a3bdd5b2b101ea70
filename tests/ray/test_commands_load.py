"""`swarm load`: another model in the place of the one before, and back; what cannot be had changes nothing."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from checkpoints import WEIGHTS, write_mixtral
from commands_harness import Person, Running, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
LONG = (
    "chat",
    "--raw",
    "--no-speculate",
    "--temperature",
    "0",
    "The sky is blue. The grass is green. The sky is blue. The grass is green.",
)
MIB = 2**20
BLOCKS = 40
"""Five times the embedded model."""
SLACK_BYTES = 120 * MIB
"""What the allocators of both Workers may keep of what they were given back: less than the larger model."""


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    person = Person(tmp_path_factory.mktemp("load"))
    yield person
    person.close()
    person.nothing_is_left()


@pytest.fixture(scope="module")
def up(person: Person) -> Running:
    devices = ("--device", "cpu=190MiB", "--device", "cpu=120MiB")
    up = person.up("nano", "--spread", *devices, "--sessions", "2", "--context", "512", "--threads", "1", "--name", "attic")
    up.shows("blocks  experts")
    return up


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that fits in the place of the embedded one, and not beside it."""
    return write_mixtral(tmp_path_factory.mktemp("models") / "other-moe", BLOCKS, seed=1)


def answers(person: Person) -> bool:
    ran = person.run("chat", QUESTION)
    assert (ran.code, ran.out) == (0, ANSWER + "\n"), ran.err
    return True


def held(person: Person) -> dict[str, int]:
    """Bytes of weights by Worker, once nothing but one Plan's are there."""
    return {w["name"]: w["memory"]["weights_bytes"] for w in person.status()["workers"]}


def resident(person: Person) -> dict[str, int]:
    return {w["name"]: psutil.Process(w["pid"]).memory_info().rss for w in person.status()["workers"]}


def perplexity(person: Person) -> float:
    return float(person.run("score", "--json", "-", text=ANSWER).document["perplexity"])


def test_another_model_and_back_gives_the_memory_back(person: Person, up: Running, other: Path) -> None:
    assert answers(person)
    before, weights, memory, score = person.status(), held(person), resident(person), perplexity(person)
    the_other_and_back(person, other, before, weights)
    wait_for(lambda: held(person) == weights, "weights of before", instead=lambda: (held(person), weights))
    wait_for(
        lambda: sum(resident(person).values()) - sum(memory.values()) < SLACK_BYTES,
        "memory given back",
        instead=lambda: (memory, resident(person)),
    )
    assert perplexity(person) == pytest.approx(score)


def the_other_and_back(person: Person, other: Path, before: dict[str, Any], weights: dict[str, int]) -> None:
    score = perplexity(person)
    ran = person.run("load", str(other))
    assert (ran.code, ran.out) == (0, "other-moe is loaded\n"), ran.err
    between = person.status()
    assert between["model"] == "other-moe" and between["epoch"] > before["epoch"]
    assert [w["pid"] for w in between["workers"]] == [w["pid"] for w in before["workers"]]
    assert sum(held(person).values()) > 2 * sum(weights.values())  # where two Routes hold the embedded model, twice
    assert abs(perplexity(person) - score) > 1
    ran = person.run("load", "nano")
    assert (ran.code, ran.out) == (0, "nano is loaded\n"), ran.err
    assert answers(person)


def test_a_chat_that_streams_while_the_model_changes_ends_in_one_sentence(person: Person, up: Running, other: Path) -> None:
    chat = person.start(*LONG, "--max-tokens", "400")
    wait_for(lambda: len(chat.out) > 40, "beginning of an answer", instead=lambda: chat.err)
    chat.send(signal.SIGSTOP)
    assert person.run("load", str(other)).code == 0
    chat.send(signal.SIGCONT)
    ended = chat.ended()
    assert ended.code == 1 and "other-moe" in ended.err and "Traceback" not in ended.err and ended.err.count("\n") <= 2, ended.err
    assert person.run("load", "nano").code == 0 and answers(person)


def broken(kind: str, folder: Path) -> Path:
    """A model's folder with one thing wrong."""
    write_mixtral(folder, 2, seed=2)
    if kind == "a missing shard":
        index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    elif kind == "a truncated file":
        with (folder / WEIGHTS).open("r+b") as file:
            file.truncate(MIB)
    elif kind == "an unknown architecture":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}))
    elif kind == "too large a model":
        shutil.rmtree(folder)
        write_mixtral(folder, 100)
    return folder


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a missing shard", ("model-00002-of-00002.safetensors",)),
        ("a truncated file", (WEIGHTS,)),
        ("an unknown architecture", ("MambaForCausalLM",)),
        ("too large a model", ("needs", "310.0 MiB", "swarm join")),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence_and_the_model_before_answers(
    person: Person, up: Running, tmp_path: Path, kind: str, words: tuple[str, ...]
) -> None:
    before = person.status()
    ran = person.run("load", str(broken(kind, tmp_path / "broken-moe")), "--dtype", "bf16")  # int8 would fit
    assert ran.failed_in_one_sentence and all(word in ran.err for word in words), ran.err
    after = person.status()
    assert (after["epoch"], after["waiting"], after["activity"]) == (before["epoch"], "", "") and answers(person)


def test_a_model_that_is_nowhere_is_one_sentence(person: Person, up: Running) -> None:
    ran = person.run("load", "no such folder")
    assert ran.code == 2 and ran.err.startswith("swarm: ") and "no such folder" in ran.err and answers(person)


def test_ctrl_c_on_up_ends_everything(person: Person, up: Running) -> None:
    up.send(signal.SIGINT)
    ended = up.ended()
    assert ended.code == 0 and "Traceback" not in ended.err
    person.nothing_is_left()
