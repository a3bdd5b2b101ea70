"""Rigs that come and go, politely or not, while somebody chats; the commands as people run them on two machines."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from commands_harness import NOISE, Person, Ran, Running, join_words, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
LONG = (
    "chat",
    "--raw",
    "--no-speculate",
    "--temperature",
    "0",
    "The sky is blue. The grass is green. The sky is blue. The grass is green.",
)
TOKENS = 1000
BUDGET = ("--dtype", "fp32", "--sessions", "2", "--context", "2048")
TOO_LITTLE, ENOUGH = ("--device", "cpu=60MiB"), ("--device", "cpu=70MiB")


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
    return attic.up("nano", "--spread", *TOO_LITTLE, *BUDGET, "--threads", "1", "--name", "attic")


@pytest.fixture(scope="module")
def desk(up: Running, people: dict[str, Person]) -> Running:
    """A rig that brings enough."""
    return join(up, people["desk"], "desk")


@pytest.fixture(scope="module")
def long_answer(attic: Person, desk: Running) -> str:
    """What nobody disturbed."""
    ran = attic.run(*LONG, "--max-tokens", str(TOKENS))
    assert ran.code == 0, ran.err
    return ran.out


def join(up: Running, person: Person, name: str) -> Running:
    """A rig that joined and has its part of the Plan."""
    rig = person.start(*join_words(up), "--spread", *ENOUGH, *person.place, "--threads", "1", "--name", name)
    rig.shows(f" {name} cpu ")
    return rig


@contextmanager
def chatting(person: Person) -> Iterator[list[Ran]]:
    """Chats one after the other, the first of which streams now, until the block ends; how each ended."""
    words, over, chats = (*LONG, "--max-tokens", str(TOKENS)), threading.Event(), list[Ran]()
    first = person.start(*words)
    wait_for(lambda: len(first.out) > 100, "beginning of an answer", instead=lambda: first.err)

    def go_on() -> None:
        chats.append(first.ended())
        while not over.is_set():
            chats.append(person.run(*words))

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
    assert not any(noise in desk.out + desk.err for noise in NOISE)


def test_whoever_joined_needs_neither_address_nor_key(people: dict[str, Person], desk: Running) -> None:
    ran = people["desk"].run("chat", QUESTION)
    assert (ran.code, ran.out) == (0, ANSWER + "\n")


def test_a_rig_joins_and_leaves_while_chats_stream_and_their_text_is_the_same(
    attic: Person, up: Running, people: dict[str, Person], long_answer: str
) -> None:
    cellar = people["cellar"]
    with chatting(attic) as chats:
        rig = join(up, cellar, "cellar")
        assert rigs_of(attic) == {"attic", "desk", "cellar"}
        rig.send(signal.SIGINT)
        left = rig.ended()
        assert left.code == 0 and "cellar left" in left.err and "Traceback" not in left.err
        assert {r["name"] for r in attic.status()["rigs"]} == {"attic", "desk"} == rigs_of(attic)
    cellar.nothing_is_left()
    assert chats and all((chat.code, chat.out) == (0, long_answer) for chat in chats), chats


def test_after_sigkill_of_a_join_nothing_of_it_is_left_and_the_swarm_serves_without_it(
    attic: Person, up: Running, people: dict[str, Person], desk: Running
) -> None:
    rig = join(up, people["cellar"], "cellar")
    assert "cellar" in rigs_of(attic)
    rig.send(signal.SIGKILL)
    people["cellar"].nothing_is_left()
    wait_for(lambda: rigs_of(attic) == {"attic", "desk"}, "plan without the lost rig", instead=attic.status)
    ran = attic.run("chat", QUESTION)
    assert (ran.code, ran.out) == (0, ANSWER + "\n")


def test_after_sigkill_of_up_nothing_of_it_is_left_and_a_joined_rig_waits_for_it(
    attic: Person, up: Running, people: dict[str, Person], desk: Running
) -> None:
    up.send(signal.SIGKILL)
    attic.nothing_is_left()
    desk.shows(f"the swarm at {attic.address} does not answer")
    assert desk.process.poll() is None
    assert attic.address in in_one_sentence(people["desk"].run("chat", QUESTION))
    assert "is gone" in in_one_sentence(attic.run("down"))
    desk.send(signal.SIGINT)
    ended = desk.ended()
    assert ended.code == 0 and "Traceback" not in ended.err
    people["desk"].nothing_is_left()
