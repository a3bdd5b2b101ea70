"""Promise 1, said over the wire: whatever happens to a Session's Steps, it ends as a fresh Session would."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from plans import plan_of
from raw_client import RawClient, bits, raw, step
from swarm_processes import workers_here

from swarm.errors import Moved, Refused, StepError
from swarm.plan import Plan
from swarm.prefix_hash import prefix_hashes
from swarm.wire.status import from_rpc
from swarm.wire.v1 import stage_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = [(37 * i) % 2900 + 20 for i in range(20)]
EDITED = [*TEXT[:12], 5, 6, 7, 8, *TEXT[16:]]
CUTS = [0, 10, 16, 17, 18, 19, 20]
"""Where Steps begin and end; rows in a Step may change last bits, so every Session here is cut alike."""


@dataclass
class Swarm:
    """Three Stages, and what a fresh Session answers to the Steps of TEXT and EDITED."""

    plan: Plan
    client: RawClient
    fresh: dict[tuple[int, ...], list[list[bytes]]]

    def whole(self, session: bytes, text: list[int], first: int, last: int) -> list[pb.StepHeader]:
        return [step(session, text, CUTS[i], CUTS[i + 1]) for i in range(first, last)]

    async def say(self, session: bytes, text: list[int], first: int, last: int) -> None:
        """Send Steps `first` to `last` of a text, one after the other: each is answered as in a fresh Session."""
        for i, each in zip(range(first, last), self.whole(session, text, first, last), strict=True):
            assert bits(*await self.client.ask(each)) == [self.fresh[tuple(text)][i]]

    async def begun(self, steps: int = 2) -> bytes:
        session = await self.client.open(64)
        await self.say(session, TEXT, 0, steps)
        return session

    def answers_to(self, session: bytes, serial: int) -> int:
        return sum((c.session, c.serial) == (session, serial) for c in self.client.came)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def swarm() -> AsyncIterator[Swarm]:
    plan = plan_of([3, 6, 8], [("w3", b, (1, 6)) for b in range(8)], sessions=64, context=256)
    async with workers_here(plan), raw(plan) as client:
        made = Swarm(plan, client, {})
        for text in (TEXT, EDITED):
            session = await client.open(64)
            steps = [bits(*await client.ask(each))[0] for each in made.whole(session, text, 0, 6)]
            made.fresh[tuple(text)] = steps
        yield made


async def test_a_step_sent_again_is_answered_again_with_the_same_candidates(swarm: Swarm) -> None:
    session = await swarm.begun()
    again = step(session, TEXT, 16, 17)
    first = await swarm.client.ask(again)
    second = await swarm.client.ask(again)
    assert bits(*first) == bits(*second) == [swarm.fresh[tuple(TEXT)][2]]
    await swarm.say(session, TEXT, 3, 6)


async def test_a_step_sent_twice_before_its_answer_is_computed_once(swarm: Swarm) -> None:
    session = await swarm.begun()
    twice = step(session, TEXT, 16, 17)
    await swarm.client.send(twice)
    assert bits(*await swarm.client.ask(twice)) == [swarm.fresh[tuple(TEXT)][2]]
    await swarm.say(session, TEXT, 3, 6)


async def test_a_late_duplicate_after_newer_steps_is_dropped(swarm: Swarm) -> None:
    session = await swarm.begun()
    old, new = swarm.whole(session, TEXT, 2, 4)
    await swarm.client.ask(old)
    await swarm.client.ask(new)
    await swarm.client.send(old)
    await swarm.say(session, TEXT, 4, 6)
    assert swarm.answers_to(session, old.serial) == 1


async def test_a_frame_lost_between_two_pipelined_steps_is_a_gap_that_names_what_is_held(swarm: Swarm) -> None:
    session = await swarm.client.open(64)
    first, _, third = swarm.whole(session, TEXT, 0, 3)
    await swarm.client.send(first)
    status = await swarm.client.fails(third)
    assert (status.code, status.held, status.worker) == (pb.GAP, 10, "w0")
    assert status.held_hashes[10] == prefix_hashes(TEXT)[10]
    await swarm.say(session, TEXT, 1, 6)


async def test_pipelined_steps_are_computed_in_order(swarm: Swarm) -> None:
    session = await swarm.client.open(64)
    answers = await swarm.client.ask(*swarm.whole(session, TEXT, 0, 6))
    assert bits(*answers) == swarm.fresh[tuple(TEXT)]


async def test_a_rewound_session_goes_on_as_if_nothing_had_been_behind(swarm: Swarm) -> None:
    session = await swarm.begun(5)
    await swarm.say(session, TEXT, 1, 4)
    await swarm.say(session, TEXT, 0, 6)


async def test_an_edited_prefix_is_a_gap_whose_landmarks_find_what_is_shared(swarm: Swarm) -> None:
    session = await swarm.begun(4)
    status = await swarm.client.fails(step(session, EDITED, 18, 19))
    assert (status.code, status.held) == (pb.GAP, 18)
    hashes = prefix_hashes(EDITED)
    shared = [p for p, value in status.held_hashes.items() if hashes[p] == value]
    assert max(shared) == 10, f"landmarks at {sorted(status.held_hashes)}"
    await swarm.say(session, EDITED, 1, 6)


async def test_opening_again_tells_how_much_of_an_edited_text_is_held(swarm: Swarm) -> None:
    session = await swarm.begun(4)
    assert await swarm.client.reopen(session, 64, EDITED) == 12
    assert await swarm.client.reopen(session, 64, TEXT) == 18
    await swarm.say(session, EDITED, 1, 6)


async def test_a_session_that_nobody_opened_is_a_gap_with_nothing_held(swarm: Swarm) -> None:
    status = await swarm.client.fails(step(os.urandom(16), TEXT, 16, 17))
    assert (status.code, status.held) == (pb.GAP, 0)


def bad(**changed: object) -> dict[str, object]:
    return changed


BAD_STEPS = {
    "beyond the reservation": bad(text=TEXT * 4, end=65),
    "no rows": bad(end=16),
    "more rows than the plan allows": bad(text=TEXT * 30, end=600),
    "a token id beyond the vocabulary": bad(text=[*TEXT[:16], 3072]),
    "more rows asked than sent": bad(ask=pb.Ask(rows=2, k=1)),
    "more candidates than there may be": bad(ask=pb.Ask(rows=1, k=1025)),
    "more logits than one answer may have": bad(ask=pb.Ask(rows=1, named=[0] * 2**18, named_per_row=2**18, k=1)),
    "named ids that do not fit": bad(ask=pb.Ask(rows=1, named=[1, 2, 3], named_per_row=2)),
    "a named id beyond the vocabulary": bad(ask=pb.Ask(rows=1, named=[3072], named_per_row=1)),
    "whole rows of several positions": bad(text=TEXT, end=18, ask=pb.Ask(rows=2, whole_row=True)),
    "a temperature below zero": bad(ask=pb.Ask(rows=1, temperature=-1.0)),
    "a temperature that is no number": bad(ask=pb.Ask(rows=1, temperature=math.nan)),
    "a deadline that is no number": bad(seconds_left=math.nan),
    "a deadline without end": bad(seconds_left=math.inf),
}


@pytest.mark.parametrize("what", BAD_STEPS)
async def test_a_step_against_the_plan_is_refused_and_fails_nobody_else(swarm: Swarm, what: str) -> None:
    session, others = await swarm.begun(), [await swarm.begun() for _ in range(4)]  # so many that it shares a micro-batch
    changed = {"text": TEXT, "start": 16, "end": 17} | BAD_STEPS[what]
    wrong, right = step(session, **changed), [step(other, TEXT, 16, 17) for other in others]  # type: ignore[arg-type]
    seen = len(swarm.client.came)
    await swarm.client.send(wrong, *right)
    status = await swarm.client.next(wrong, seen)
    assert isinstance(status, pb.StepStatus)
    assert status.code == pb.REFUSED
    assert status.message
    for each in right:
        assert isinstance(await swarm.client.next(each, seen), pb.StepAnswer)
    await swarm.say(session, TEXT, 2, 6)
    for each in (session, *others):
        await swarm.client.release(each)


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"model_id": "another"}, pb.REFUSED), ({"epoch": 7}, pb.MOVED), ({"epoch": 0}, pb.MOVED), ({"route": 1}, pb.REFUSED)],
    ids=str,
)
async def test_a_frame_of_another_plan_is_told_so(swarm: Swarm, changed: dict[str, object], code: pb.Code) -> None:
    session = await swarm.begun()
    status = await swarm.client.fails(step(session, TEXT, 16, 17), **changed)
    assert status.code == code
    assert code != pb.MOVED or status.epoch == swarm.plan.epoch
    await swarm.say(session, TEXT, 2, 6)


async def test_a_step_that_came_too_late_may_be_sent_again_as_it_was(swarm: Swarm) -> None:
    session = await swarm.begun()
    late = step(session, TEXT, 16, 17, seconds_left=0.0)
    assert (await swarm.client.fails(late)).code == pb.EXPIRED
    late.seconds_left = 60.0
    assert bits(*await swarm.client.ask(late)) == [swarm.fresh[tuple(TEXT)][2]]
    await swarm.say(session, TEXT, 3, 6)


async def test_what_was_pipelined_behind_a_step_that_came_too_late_is_a_gap(swarm: Swarm) -> None:
    session = await swarm.begun()
    late, behind = step(session, TEXT, 16, 17, seconds_left=0.0), step(session, TEXT, 17, 18)
    seen = len(swarm.client.came)
    await swarm.client.send(late, behind)
    status = await swarm.client.next(behind, seen)
    assert isinstance(status, pb.StepStatus)
    assert (status.code, status.held) == (pb.GAP, 16)
    await swarm.say(session, TEXT, 2, 6)


async def test_a_frame_beyond_the_message_limit_costs_only_its_sender_the_stream(swarm: Swarm) -> None:
    session = await swarm.begun()
    generous = [("grpc.max_send_message_length", 2**28), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(swarm.plan.workers[0].address, options=generous) as channel:
        submit = channel.stream_stream(
            "/swarm.v1.StageService/Submit",
            request_serializer=pb.MicroBatch.SerializeToString,
            response_deserializer=pb.Report.FromString,
        )()
        await submit.write(pb.MicroBatch(model_id="x" * (65 * 2**20)))
        assert await submit.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await swarm.say(session, TEXT, 2, 6)


async def test_the_whole_row_of_the_last_asked_position_can_be_had_until_the_next_step(swarm: Swarm) -> None:
    session = await swarm.begun()
    asked = step(session, TEXT, 16, 17, ask=pb.Ask(rows=1, whole_row=True))
    [answer] = await swarm.client.ask(asked)
    wanted = pb.WholeRowRequest(session=session, serial=asked.serial, model_id=swarm.plan.model.model_id)
    reply = await swarm.client.last.WholeRow(wanted)
    assert reply.row == answer.rows[0].row
    await swarm.say(session, TEXT, 3, 4)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await swarm.client.last.WholeRow(wanted)
    assert raised.value.code() == grpc.StatusCode.ABORTED


async def test_a_call_that_names_another_model_or_route_is_told_so_and_changes_nothing(swarm: Swarm) -> None:
    session = await swarm.begun()
    asked = step(session, TEXT, 16, 17)
    await swarm.client.ask(asked)
    client, epoch, model = swarm.client, swarm.plan.epoch, swarm.plan.model.model_id
    calls: dict[type[StepError], list[Callable[[], Any]]] = {
        Refused: [
            lambda: client.last.WholeRow(pb.WholeRowRequest(session=session, serial=asked.serial, model_id="another")),
            lambda: client.entry.Close(pb.CloseRequest(session=session, epoch=epoch, route=1)),
            lambda: client.last.Release(pb.CloseRequest(session=session, epoch=epoch, route=1)),
            lambda: client.last.Reserve(client.opening(session, route=1)),
            lambda: client.entry.Open(client.opening(session, route=1)).read(),
            lambda: client.entry.Open(client.opening(session, model_id="another")).read(),
        ],
        Moved: [lambda: client.last.Listen(pb.ListenRequest(client=b"c" * 16, model_id=f"not {model}")).read()],
    }
    for error, those in calls.items():
        for call in those:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call()
            assert isinstance(from_rpc(raised.value, "it"), error)
    await swarm.say(session, TEXT, 3, 6)


async def test_asking_again_for_nothing_answers_nothing_and_goes_on(swarm: Swarm) -> None:
    session = await swarm.client.open(64)
    silent = step(session, TEXT, 0, 10, ask=pb.Ask())
    await swarm.client.send(silent)
    await swarm.client.send(silent)
    await swarm.say(session, TEXT, 1, 6)
    assert swarm.answers_to(session, silent.serial) == 0
