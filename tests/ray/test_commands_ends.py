"""Ray's parts and the head itself are killed while somebody chats: Workers serve on, status says how it stands, all comes back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from commands_harness import Person, Running, join_words, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
SKY = "The sky is blue. The grass is green. The sky is blue. The grass is green."
LONG = ("chat", "--raw", "--no-speculate", "--temperature", "0", "--max-tokens", "1000", SKY)
UP = ("nano", "--spread", "--device", "cpu=60MiB", "--dtype", "fp32", "--sessions", "2", "--context", "2048", "--threads", "1")
BACK_S = 120.0


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Person]]:
    """One user on each of two machines."""
    people = {name: Person(tmp_path_factory.mktemp(name)) for name in ("attic", "desk")}
    yield people
    for person in people.values():
        person.close()
    for person in people.values():
        person.nothing_is_left()


@pytest.fixture(scope="module")
def up(people: dict[str, Person]) -> Running:
    """A head that has too little memory alone."""
    return people["attic"].up(*UP, "--name", "attic")


@pytest.fixture(scope="module")
def desk(people: dict[str, Person], up: Running) -> Running:
    """A rig that brings enough."""
    person = people["desk"]
    rig = person.start(*join_words(up), "--spread", "--device", "cpu=70MiB", *person.place, "--threads", "1", "--name", "desk")
    rig.shows(" desk cpu ")
    return rig


@pytest.fixture(scope="module")
def long_answer(people: dict[str, Person], desk: Running) -> str:
    """What nobody disturbed."""
    ran = people["attic"].run(*LONG)
    assert ran.code == 0, ran.err
    return ran.out


def chat_long(person: Person) -> Running:
    chat = person.start(*LONG)
    wait_for(lambda: len(chat.out) > 100, "beginning of an answer", instead=lambda: chat.err)
    return chat


def process(person: Person, what: str) -> int:
    """The id of the one process whose program is called so."""
    return next(pid for pid, line in person.processes().items() if line.split(" ")[0].rpartition("/")[2] == what)


def raylet_is_back(person: Person) -> bool:
    return any(line.split(" ")[0].rpartition("/")[2] == "raylet" for line in person.processes().values())


def first_status(person: Person) -> dict[str, Any]:
    """The first of a Coordinator that has a Plan, and has heard of both rigs: one may join a moment after the other."""
    found: dict[str, Any] = wait_for(lambda: _planned(person), "status with a plan and both rigs' workers", BACK_S)
    return found


def _planned(person: Person) -> Any:
    ran = person.run("status", "--json")
    document: dict[str, Any] = json.loads(ran.out) if ran.code == 0 else {}
    return document if document.get("epoch") and len(document["workers"]) == 2 else None


def _without_coordinator(person: Person) -> Any:
    ran = person.run("status", "--json")
    return ran if ran.code == 1 and ran.out else None


def holds(status: dict[str, Any]) -> dict[str, Any]:
    return {w["name"]: (w["pid"], w["blocks"], w["memory"]["weights_bytes"]) for w in status["workers"]}


def test_all_of_ray_ends_chats_go_on_status_says_so_and_the_plan_is_taken_over_as_it_was(
    people: dict[str, Person], up: Running, desk: Running, long_answer: str
) -> None:
    attic = people["attic"]
    chat = chat_long(attic)
    os.kill(process(attic, "gcs_server"), signal.SIGKILL)
    for person in people.values():
        ran = wait_for(lambda p=person: _without_coordinator(p), "status without a coordinator")  # type: ignore[misc]
        assert "all 2 workers serve on, so running chats go on; new chats, joining and leaving wait" in ran.err
        assert ran.err.count("\n") == 1
    before = json.loads(ran.out)  # what the Workers serve while nobody plans
    assert chat.ended().out == long_answer
    after = first_status(attic)
    assert after["epoch"] == before["epoch"] and holds(after) == holds(before)
    desk.shows("joined the swarm at")
    assert {r["name"] for r in attic.status()["rigs"]} >= {"attic"}


def test_the_raylet_of_a_rig_ends_chats_go_on_and_status_says_so_until_it_is_back(
    people: dict[str, Person], desk: Running, long_answer: str
) -> None:
    attic, other = people["attic"], people["desk"]
    attic.status_where(lambda s: len(s["rigs"]) == 2 and not said(s), "both rigs with their ray nodes")
    chat, pids = chat_long(attic), {w["name"]: w["pid"] for w in attic.status()["workers"]}
    os.kill(dead := process(other, "raylet"), signal.SIGKILL)
    notes: list[str] = []  # there may be none, where the node is back between two looks
    after = attic.status_where(
        lambda s: (not (now := said(s)) and dead not in other.processes() and raylet_is_back(other)) or notes.extend(now),
        "another ray node and no note",
    )
    assert all(note.startswith("desk has no Ray node now: its workers serve on and chats go on") for note in notes)
    assert chat.ended().out == long_answer
    assert {w["name"]: w["pid"] for w in after["workers"]} == pids


def said(status: dict[str, Any]) -> list[str]:
    return [note for note in status["notes"] if "Ray node" in note]


def test_a_killed_head_comes_back_at_another_address_and_the_rig_follows_with_its_worker(
    people: dict[str, Person], up: Running, desk: Running
) -> None:
    attic, other = people["attic"], people["desk"]
    before, old = holds(attic.status_where(lambda s: bool(s["epoch"]), "plan")), attic.address
    up.send(signal.SIGKILL)
    wait_for(lambda: not attic.processes(), "end of all processes of the head", instead=attic.processes)
    desk.shows(f"the swarm at {old} does not answer; the workers go on")
    ran = other.run("status")
    assert (
        ran.code == 1 and "1 of 2 workers serve on, attic/cpu not" in ran.err and "run `swarm up` on the head rig again" in ran.err
    )
    elsewhere = Person(attic.folder / "elsewhere")
    attic.address, attic.place = elsewhere.address, elsewhere.place
    attic.up(*UP, "--name", "attic")
    desk.shows(f"the swarm is at {attic.address} now")
    desk.shows(f"joined the swarm at {attic.address} again")
    after = holds(attic.status_where(lambda s: bool(s["epoch"]) and len(s["rigs"]) == 2, "plan of both"))
    assert after["desk/cpu"][0] == before["desk/cpu"][0] and after["attic/cpu"][0] != before["attic/cpu"][0]
    ran = other.run("chat", QUESTION)
    assert (ran.code, ran.out) == (0, ANSWER + "\n"), ran.err
