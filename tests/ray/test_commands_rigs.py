"""Rigs that come and go, politely or not, and Ray and the head that are killed, while somebody chats: commands on two machines."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from commands_harness import NOISE, Person, Ran, Running, join_words, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
SKY = "The sky is blue. The grass is green. The sky is blue. The grass is green."
LONG = ("chat", "--raw", "--no-speculate", "--temperature", "0", "--max-tokens", "600", SKY)
UP = ("nano", "--spread", "--device", "cpu=60MiB", "--dtype", "fp32", "--sessions", "2", "--context", "2048", "--threads", "1")
ENOUGH = ("--device", "cpu=46MiB")
"""For two rigs with just one cut between them: on a busy machine one may read slower than it did, and nothing moves for that."""
BACK_S = 200.0
"""Longer than a Coordinator that starts waits for Rigs whose Workers serve."""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Person]]:
    """One user on each of three machines."""
    people: dict[str, Person] = {}
    for name in ("attic", "desk", "cellar"):
        people[name] = Person(tmp_path_factory.mktemp(name))
    yield people
    for person in people.values():
        person.close()
    for person in people.values():
        person.nothing_is_left()


@pytest.fixture(scope="module")
def attic(people: dict[str, Person]) -> Person:
    return people["attic"]


@pytest.fixture(scope="module")
def up(attic: Person) -> Running:
    """A swarm whose head alone has too little memory."""
    return attic.up(*UP, "--name", "attic")


@pytest.fixture(scope="module")
def desk(up: Running, people: dict[str, Person]) -> Running:
    """A rig that brings enough."""
    return join(up, people["attic"], people["desk"], "desk")


@pytest.fixture(scope="module")
def long_answer(attic: Person, desk: Running) -> str:
    """What nobody disturbed."""
    ran = attic.run(*LONG)
    assert ran.code == 0, ran.err
    return ran.out


def join(up: Running, head: Person, person: Person, name: str) -> Running:
    """A rig that joined where the head is now, with the key that it first printed, and has its part of the Plan."""
    where = ("join", head.address, "--key", join_words(up)[-1])
    rig = person.start(*where, "--spread", *ENOUGH, *person.place, "--threads", "1", "--name", name)
    rig.shows(f" {name} cpu ")
    return rig


def chat_long(person: Person) -> Running:
    chat = person.start(*LONG)
    wait_for(lambda: len(chat.out) > 100, "beginning of an answer", instead=lambda: chat.err)
    return chat


@contextmanager
def chatting(person: Person) -> Iterator[list[Ran]]:
    """Chats one after the other, the first of which streams now, until the block ends; how each ended."""
    first, over, chats = chat_long(person), threading.Event(), list[Ran]()

    def go_on() -> None:
        chats.append(first.ended())
        while not over.is_set():
            chats.append(person.run(*LONG))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield chats
    finally:
        over.set()
        thread.join()


def rigs_of(person: Person) -> set[str]:
    """The rigs that hold a part of the Plan."""
    return {w["rig"] for w in person.status()["workers"] if range(*w["blocks"]) or w["experts"]}


def in_one_sentence(ran: Ran) -> str:
    assert ran.failed_in_one_sentence, ran
    return ran.err


def found(person: Person, what: str) -> int | None:
    """The id of the process whose program is called so, if there is one."""
    return next((pid for pid, line in person.processes().items() if line.split(" ")[0].rpartition("/")[2] == what), None)


def process(person: Person, what: str) -> int:
    """The same, once there is one: after all of Ray has ended, a rig may start its own twice."""
    return wait_for(lambda: found(person, what), what, BACK_S, person.processes)


def raylet_is_back(person: Person) -> bool:
    return found(person, "raylet") is not None


def first_status(person: Person) -> dict[str, Any]:
    """The first of a Coordinator that has a Plan, and has heard from both rigs' Workers: one may come a moment after the other."""
    found: dict[str, Any] = wait_for(lambda: _planned(person), "status with a plan and both rigs' workers", BACK_S)
    return found


def _planned(person: Person) -> Any:
    ran = person.run("status", "--json")
    document: dict[str, Any] = json.loads(ran.out) if ran.code == 0 else {}
    heard_of = [w for w in document.get("workers", ()) if w["pid"]]
    return document if document.get("epoch") and len(heard_of) == len(document["workers"]) == 2 else None


def _without_coordinator(person: Person) -> Any:
    ran = person.run("status", "--json")
    return ran if ran.code == 1 and ran.out else None


def holds(status: dict[str, Any]) -> dict[str, Any]:
    return {w["name"]: (w["pid"], w["blocks"], w["memory"]["weights_bytes"]) for w in status["workers"]}


def said(status: dict[str, Any]) -> list[str]:
    return [note for note in status["notes"] if "Ray node" in note]


def test_up_with_too_little_memory_waits_and_says_for_what(attic: Person, up: Running) -> None:
    up.shows("the swarm needs ")
    line = next(line for line in up.err.splitlines() if "needs" in line)
    assert "has 60.0 MiB: waiting for `swarm join ...`" in line
    said = in_one_sentence(attic.run("chat", QUESTION))
    assert "needs" in said and "waiting for `swarm join ...`" in said
    status = attic.status()
    assert "needs" in status["waiting"] and status["epoch"] == 0 and status["workers"][0]["alive"]
    refused = in_one_sentence(attic.run("load", "nano", "--context", "4096"))
    assert "needs" in refused and "60.0 MiB" in refused
    assert up.process.poll() is None


def test_a_join_brings_enough_and_the_swarm_answers(attic: Person, up: Running, desk: Running) -> None:
    ran = attic.run("chat", QUESTION)
    assert (ran.code, ran.out, ran.err) == (0, ANSWER + "\n", "")
    assert rigs_of(attic) == {"attic", "desk"}
    up.shows(" desk cpu ")
    up.shows("desk joined\n")
    assert not any(noise in desk.out + desk.err for noise in NOISE)


def test_whoever_joined_needs_neither_address_nor_key(people: dict[str, Person], desk: Running) -> None:
    ran = people["desk"].run("chat", QUESTION)
    assert (ran.code, ran.out) == (0, ANSWER + "\n")


def test_a_rig_joins_and_leaves_while_chats_stream_and_their_text_is_the_same(
    attic: Person, up: Running, people: dict[str, Person], long_answer: str
) -> None:
    cellar = people["cellar"]
    with chatting(attic) as chats:
        rig = join(up, attic, cellar, "cellar")
        assert rigs_of(attic) == {"attic", "desk", "cellar"}
        rig.send(signal.SIGINT)
        left = rig.ended()
        assert left.code == 0 and "cellar left" in left.err and "Traceback" not in left.err
        assert {r["name"] for r in attic.status()["rigs"]} == {"attic", "desk"} == rigs_of(attic)
        up.shows("cellar is no longer in the swarm\n")
    cellar.nothing_is_left()
    assert chats and all((chat.code, chat.out) == (0, long_answer) for chat in chats), chats


def test_all_of_ray_ends_chats_go_on_status_says_so_and_the_plan_is_taken_over_as_it_was(
    people: dict[str, Person], up: Running, desk: Running, long_answer: str
) -> None:
    attic = people["attic"]
    chat = chat_long(attic)
    os.kill(process(attic, "gcs_server"), signal.SIGKILL)
    for person in (attic, people["desk"]):
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


def test_after_sigkill_of_up_nothing_is_left_and_a_head_at_another_address_is_followed_by_the_rig_with_its_worker(
    people: dict[str, Person], up: Running, desk: Running
) -> None:
    attic, other = people["attic"], people["desk"]
    before, old = holds(attic.status_where(lambda s: bool(s["epoch"]), "plan")), attic.address
    up.send(signal.SIGKILL)
    attic.nothing_is_left()
    desk.shows(f"the swarm at {old} does not answer; the workers go on")
    ran = other.run("status")
    assert (
        ran.code == 1 and "1 of 2 workers serve on, attic/cpu not" in ran.err and "run `swarm up` on the head rig again" in ran.err
    )
    assert old in in_one_sentence(other.run("chat", QUESTION)) and "is gone" in in_one_sentence(attic.run("down"))
    elsewhere = Person(attic.folder / "elsewhere")
    attic.address, attic.place = elsewhere.address, elsewhere.place
    attic.up(*UP, "--name", "attic")
    desk.shows(f"the swarm is at {attic.address} now")
    desk.shows(f"joined the swarm at {attic.address} again")
    after = holds(first_status(attic))
    assert after["desk/cpu"][0] == before["desk/cpu"][0] and after["attic/cpu"][0] != before["attic/cpu"][0]
    ran = other.run("chat", QUESTION)
    assert (ran.code, ran.out) == (0, ANSWER + "\n"), ran.err


def test_after_sigkill_of_a_join_nothing_of_it_is_left_and_the_swarm_serves_without_it(
    attic: Person, up: Running, people: dict[str, Person], desk: Running
) -> None:
    rig = join(up, attic, people["cellar"], "cellar")
    assert "cellar" in rigs_of(attic)
    rig.send(signal.SIGKILL)
    people["cellar"].nothing_is_left()
    wait_for(lambda: rigs_of(attic) == {"attic", "desk"}, "plan without the lost rig", instead=attic.status)
    ran = attic.run("chat", QUESTION)
    assert (ran.code, ran.out) == (0, ANSWER + "\n")


def test_a_joined_rig_waits_for_a_head_that_was_killed_until_ctrl_c_which_leaves_nothing(
    people: dict[str, Person], desk: Running
) -> None:
    attic, other = people["attic"], people["desk"]
    os.kill(next(pid for pid, line in attic.processes().items() if "swarm.cli.main up" in line), signal.SIGKILL)
    attic.nothing_is_left()
    desk.shows(f"the swarm at {attic.address} does not answer")
    assert desk.process.poll() is None
    desk.send(signal.SIGINT)
    ended = desk.ended()
    assert ended.code == 0 and "Traceback" not in ended.err
    other.nothing_is_left()
