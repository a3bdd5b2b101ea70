"""What the way to the swarm adds to a token, and what its cards draw."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from swarm.client.answer import Answer
from swarm.client.counters import Counters, Look
from swarm.client.own_link import OwnLink, link_of
from swarm.client.power import Power, measured
from swarm.client.trace import Trace, Way
from swarm.wire.v1 import worker_pb2 as pb

RIGS = {"attic/cuda:0": "attic", "gaming-pc/cuda:0": "gaming-pc", "attic/cuda:1": "attic"}


def answer(workers: tuple[str, ...], traversal_s: float = 0.05, traversals: int = 20, tokens: int = 21) -> Answer:
    found = Answer(tokens=[5] * tokens, traversals=traversals)
    trace = Trace()
    trace._ways[workers] = Way(workers, traversals, traversals * traversal_s)
    found.trace = trace
    return found


def test_a_slow_link_is_told_with_what_it_adds_and_who_would_spare_it() -> None:
    link = link_of(answer(("attic/cuda:0", "attic/cuda:1")), {"attic/cuda:0": 0.014, "attic/cuda:1": 0.014}, RIGS)
    assert link == OwnLink(pytest.approx(0.014), "attic", True)
    assert link.hint == "your link adds 14 ms a token; --via attic avoids it"
    far = link_of(answer(("attic/cuda:0", "gaming-pc/cuda:0")), {"attic/cuda:0": 0.004, "gaming-pc/cuda:0": 0.02}, RIGS)
    assert far is not None and far.rig == "gaming-pc" and far.hint.endswith("--via gaming-pc avoids most of it")


def test_a_traversal_that_brings_two_tokens_costs_each_of_them_half() -> None:
    link = link_of(answer(("attic/cuda:0",), traversals=10), {"attic/cuda:0": 0.014}, RIGS)
    assert link is not None and link.seconds == pytest.approx(0.007)


def test_nothing_is_said_of_a_quick_link_of_a_short_answer_or_of_one_that_is_not_known() -> None:
    way = ("attic/cuda:0",)
    assert link_of(answer(way), {"attic/cuda:0": 0.001}, RIGS) is None
    assert link_of(answer(way, traversal_s=1.0), {"attic/cuda:0": 0.014}, RIGS) is None
    assert link_of(answer(way, traversals=2), {"attic/cuda:0": 0.014}, RIGS) is None
    assert link_of(answer(way), {}, RIGS) is None
    assert link_of(Answer(), {"attic/cuda:0": 0.014}, RIGS) is None


class Cards:
    """Counters whose cards draw what is said."""

    def __init__(self, *watts: float) -> None:
        self.watts = watts

    async def look(self) -> Look:
        return {str(number): pb.WorkerStatus(watts=watts) for number, watts in enumerate(self.watts)}


async def test_watts_are_those_of_all_cards_and_nobody_is_asked_where_none_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.client.power.LOOK_S", 0.0)
    cards = Cards(200.0, 0.0, 150.5)
    async with asyncio.timeout(60), measured(cast(Counters, cards), await Cards(20.0).look()) as power:
        while power.watts != 350.5:
            await asyncio.sleep(0)
    async with measured(cast(Counters, None), await Cards(0.0).look()) as power:
        await asyncio.sleep(0)
    assert power.watts is None and Power().watts is None
