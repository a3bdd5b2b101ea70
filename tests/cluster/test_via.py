"""Chats whose Decoder runs on a rig: `swarm chat --via`, over real Workers and sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from capture import can_capture, captured
from real_workers import CREDENTIALS, RealSwarm, real_swarm
from relay import Relay

from cluster.target import Target

pytest.importorskip("torch")

from swarm.api import open_conversations
from swarm.api.last_plan import LastPlan
from swarm.api.text_servicer import serving_text
from swarm.api.turns import wishes_of
from swarm.client.client import open_client
from swarm.client.far_talk import FarTalk
from swarm.client.messages import Message
from swarm.client.plan_source import SwarmPlan
from swarm.client.roving_talk import RovingTalk
from swarm.client.talk import Talk, Wishes
from swarm.errors import Full, SwarmError, TooLong, UsageError
from swarm.wire import invitation
from swarm.wire.authority import Authority
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import text_pb2 as pb
from swarm.wire.v1.text_pb2_grpc import TextServiceStub

MEMORY = 400 * 2**20
THREE = ("Tell me a story about a dog.", "Tell me a long story about a cat.", "And then?")
QUESTIONS = ("Tell me a story about a dog.", "And then?")
DEADLINE_S = 60.0


@asynccontextmanager
async def text_of(swarm: RealSwarm) -> AsyncIterator[str]:
    async with serving_text("127.0.0.1:0", lambda: swarm.address, CREDENTIALS) as address:
        yield address


@asynccontextmanager
async def text_without_a_door(swarm: RealSwarm, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The Decoder of a rig that nobody talked to before the swarm's door was gone for good."""
    heard, hear = asyncio.Event(), LastPlan._with_assets

    async def hearing(last: LastPlan, stub: Any, raw: str) -> Any:
        known = await hear(last, stub, raw)
        asyncio.get_running_loop().call_soon(heard.set)  # when it is kept
        return known

    monkeypatch.setattr(LastPlan, "_with_assets", hearing)
    door = Relay(swarm.address)
    await door.open()
    async with serving_text("127.0.0.1:0", lambda: door.address, CREDENTIALS) as address:
        await asyncio.wait_for(heard.wait(), DEADLINE_S)
        await door.die()
        yield address


@asynccontextmanager
async def far(address: str, wishes: Wishes, credentials: Credentials = CREDENTIALS) -> AsyncIterator[FarTalk]:
    channel = credentials.channel(address)
    talk = FarTalk(channel, "attic", wishes, lambda news: None)
    try:
        await talk.open()
        yield talk
    finally:
        await talk.close()
        await channel.close(None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealSwarm]:
    """A swarm of one Rig."""
    async with real_swarm(Target("nano", "fp32", sessions=4, context=512), tmp_path_factory.mktemp("one")) as swarm:
        await swarm.join("a", MEMORY)
        yield swarm


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.skipif(not can_capture(), reason="a capture of loopback wants root")
async def test_a_capture_of_loopback_shows_no_word_of_a_chat_via_a_rig(one: RealSwarm) -> None:
    async with text_of(one) as address:
        with captured([address, one.address]) as packets:
            async with far(address, Wishes()) as talk:
                answer = await said(talk, THREE[0])
    assert len(packets) > len(answer) > 20
    words = [part for text in (THREE[0], answer) for part in text.split() if len(part) > 4]
    assert words and not [word for word in words if word.encode() in packets]


async def said(talk: Talk | FarTalk | RovingTalk, question: str) -> str:
    return "".join([piece.text async for piece in talk.ask(question)])


async def sessions_are(swarm: RealSwarm, number: int) -> None:
    """On the Route that has most of them."""
    async with asyncio.timeout(DEADLINE_S):
        while max(w["sessions"] for w in swarm.coordinator.status()["workers"]) != number:
            await asyncio.sleep(0.1)


@pytest.mark.timeout(170)
async def test_a_chat_via_a_rig_says_the_same_stops_where_it_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    wishes = Wishes(seed=7, temperature=1.2, max_tokens=24)
    async with real_swarm(Target("nano", "fp32", sessions=4, context=512), tmp_path) as swarm:
        await swarm.join("a", MEMORY)
        await swarm.join("b", MEMORY)
        async with text_of(swarm) as address:
            async with open_client(SwarmPlan(swarm.address, CREDENTIALS), CREDENTIALS) as client:
                near = Talk(client, wishes)
                here = [await said(near, question) for question in QUESTIONS]
                counted = near.answer
                await near.close()
            async with far(address, wishes) as talk:
                assert [await said(talk, question) for question in QUESTIONS] == here
                assert talk.model == "nano" and not talk.is_plain
                assert talk.answer.tokens == counted.tokens and talk.answer.logprobs == pytest.approx(counted.logprobs, abs=1e-3)
                assert talk.answer.finish_reason == counted.finish_reason
                assert talk.answer.prompt_tokens == counted.prompt_tokens > 0
                assert counted.cached_tokens > 0 < talk.answer.cached_tokens  # the second question cost its own tokens only
                # Given up after its first words, it is stopped there, and the chat goes on.
                pieces = talk.ask("Tell me a long story.")
                await anext(pieces)
                await pieces.aclose()
                assert talk.answer.finish_reason in ("cancelled", "length", "stop")
                assert await said(talk, QUESTIONS[1])
                await sessions_are(swarm, 1)
            await sessions_are(swarm, 0)

            # Who hangs up in the middle of an answer leaves nothing behind, either.
            channel = CREDENTIALS.channel(address)
            call = TextServiceStub(channel).Converse()
            await call.write(pb.Turn(question=pb.Question(text="Tell me a story."), options=pb.Options(max_tokens=400)))
            async for reply in call:
                if reply.HasField("piece"):
                    break
            await sessions_are(swarm, 1)
            await channel.close(None)
            await sessions_are(swarm, 0)

            # What makes no sense ends its answer with the sentence that it would end with here.
            async with far(address, Wishes(temperature=-1.0)) as talk:
                with pytest.raises(UsageError, match="temperature"):
                    await said(talk, "hello")
            async with far(address, Wishes()) as talk:
                with pytest.raises(UsageError, match="a token id is beyond"):
                    [_ async for _ in talk.go_on([1, 2**31], [3])]
                with pytest.raises(UsageError, match="1 results answer 0 tool calls"):
                    [_ async for _ in talk.tell(["sunny"])]
                assert await said(talk, "What is the capital of France?")
                with pytest.raises(TooLong, match="the chat is longer than the 512 positions"):
                    [_ async for _ in talk.go_on([1] * 600, [3])]
                with pytest.raises(TooLong, match="the chat is longer than the 512 positions"):
                    await said(talk, "word " * 50_000)
            with pytest.raises(SwarmError, match="the list of tools"):
                wishes_of(pb.Options(tools="["))

            # An invitation is enough, and another swarm's key is not.
            guest = Credentials(invite())
            async with far(address, wishes, guest) as talk:
                assert await said(talk, QUESTIONS[0]) == here[0]
            with pytest.raises(SwarmError):
                async with far(address, wishes, Credentials("another")):
                    raise AssertionError("it was let in")


async def test_a_rig_without_a_model_says_so_and_one_that_dies_ends_the_chat_with_a_sentence(tmp_path: Path) -> None:
    async with real_swarm(Target("nano", "fp32", sessions=2, context=256), tmp_path) as swarm:
        async with text_of(swarm) as address:
            with pytest.raises(SwarmError, match="no model loaded"):
                async with far(address, Wishes()):
                    raise AssertionError("it said hello")
        await swarm.join("a", MEMORY)
        async with text_of(swarm) as address:
            channel = CREDENTIALS.channel(address)
            talk = FarTalk(channel, "attic", Wishes(max_tokens=200), lambda news: None)
            await talk.open()
            pieces = talk.ask("Tell me a story.")
            await anext(pieces)
        with pytest.raises(SwarmError, match="the chat via attic is lost"):
            [_ async for _ in pieces]
            await said(talk, "And then?")  # where the story was told to its end before the rig was gone
        await talk.close()
        await channel.close(None)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_program_sends_whole_chats_as_messages_and_gives_its_session_back_as_it_hangs_up(
    one: RealSwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = asyncio.Event()

    class Closing(Talk):
        async def close(self) -> None:
            await super().close()
            closed.set()

    monkeypatch.setattr("swarm.api.conversing.Talk", Closing)
    chats = [
        [Message("user", QUESTIONS[0])],
        [Message("user", QUESTIONS[0]), Message("assistant", "There was a dog."), Message("user", QUESTIONS[1])],
        [Message("user", QUESTIONS[0]), Message("assistant", "There was a dog.")],
    ]
    wishes = Wishes(seed=7, temperature=1.2, max_tokens=24)
    async with text_of(one) as address, open_client(SwarmPlan(one.address, CREDENTIALS), CREDENTIALS) as client:
        near = Talk(client, wishes)
        here = ["".join([piece.text async for piece in near.chat(chat)]) for chat in chats[:2]]
        await near.close()
        channel = CREDENTIALS.channel(address)
        call = TextServiceStub(channel).Converse()
        assert [await reply(call, chat) for chat in chats[:2]] == here
        assert "the last message of a chat must be the user's" in await reply(call, chats[2])
        call.cancel()
        await asyncio.wait_for(closed.wait(), DEADLINE_S)  # by itself, and not by a lease that runs out
        await channel.close(None)


async def reply(call: Any, chat: Sequence[Message]) -> str:
    """What a whole chat is answered, or why not."""
    messages = [pb.Message(role=message.role, content=message.content) for message in chat]
    await call.write(pb.Turn(chat=pb.Chat(messages=messages), options=pb.Options(seed=7, temperature=1.2, max_tokens=24)))
    text = ""
    async for said in call:
        text += said.piece.text + said.error
        if said.HasField("end") or said.HasField("error"):
            return text
    raise AssertionError("the call ended")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_chat_whose_rig_is_gone_with_the_door_goes_on_over_another_and_from_here_with_the_same_text(
    one: RealSwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes = Wishes(system="Be brief.", seed=7, temperature=1.2, max_tokens=40)
    async with (
        text_without_a_door(one, monkeypatch) as doorless,
        text_of(one) as address,
        open_client(SwarmPlan(one.address, CREDENTIALS), CREDENTIALS) as client,
    ):
        near = Talk(client, wishes)
        here = []
        for question in THREE:
            here.append((await said(near, question), near.answer.tokens, near.answer.finish_reason, near.answer.logprobs))
        await near.close()
        relays = [Relay(address), Relay(doorless)]
        for relay in relays:
            await relay.open()
        channels = [CREDENTIALS.channel(relay.address) for relay in relays]
        places: list[Talk | FarTalk] = [FarTalk(channel, "attic", wishes, print) for channel in channels]
        places.append(Talk(client, wishes))
        first, second, last = places
        assert isinstance(first, FarTalk) and isinstance(second, FarTalk)
        await first.open()

        async def elsewhere(why: SwarmError) -> Talk | FarTalk:
            if roving.moves == 0:
                await second.open()
            roving.moves += 1
            return second if roving.moves == 1 else last

        roving = Moving(first, elsewhere)
        assert await said(roving, THREE[0]) == here[0][0]
        text = ""
        async for piece in roving.ask(THREE[1]):  # cut in the middle of an answer
            text += piece.text
            if len(roving.answer.tokens) == 3:
                await relays[0].die()
        assert roving.moves == 1 and text == roving.answer.text
        assert (text, roving.answer.tokens, roving.answer.finish_reason) == here[1][:3]
        assert roving.answer.logprobs == pytest.approx(here[1][3], abs=1e-3)
        await relays[1].die()  # and between two
        assert (await said(roving, THREE[2]), roving.answer.tokens, roving.answer.finish_reason) == here[2][:3]
        assert roving.moves == 2
        await asyncio.gather(*(place.close() for place in places), *(channel.close(None) for channel in channels))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_client_has_so_many_conversations_with_a_rig_and_is_told_when_it_wants_more(
    one: RealSwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_conversations, "OF_ONE", 2)
    monkeypatch.setattr(open_conversations, "OF_ALL", 3)
    async with text_of(one) as address, AsyncExitStack() as rest:
        async with far(address, Wishes()) as first:
            await rest.enter_async_context(far(address, Wishes()))
            with pytest.raises(Full, match="you have 2 conversations with this rig and may have no more: end some"):
                await rest.enter_async_context(far(address, Wishes()))
            await rest.enter_async_context(far(address, Wishes(), Credentials(invite())))
            with pytest.raises(Full, match="3 conversations go over this rig already"):
                await rest.enter_async_context(far(address, Wishes(), Credentials(invite())))
            assert first.model == "nano"
        async with asyncio.timeout(DEADLINE_S):  # until the rig has seen that the first one ended
            while True:
                with suppress(Full):
                    await rest.enter_async_context(far(address, Wishes()))
                    break
                await asyncio.sleep(0.05)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_turn_says_becomes_tokens_in_a_thread_and_the_rig_goes_on_meanwhile(
    one: RealSwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()

    class Slow(Talk):
        def _prompt(self, question: Message) -> list[int]:
            assert going_on.wait(DEADLINE_S), "the loop stands still"
            return super()._prompt(question)

    monkeypatch.setattr("swarm.api.conversing.Talk", Slow)
    async with text_of(one) as address, far(address, Wishes(max_tokens=4)) as talk:
        answering = asyncio.create_task(said(talk, QUESTIONS[0]))
        async with far(address, Wishes()) as other:  # said hello on the same loop
            assert other.model == "nano"
        going_on.set()
        assert await answering


class Moving(RovingTalk):
    """Counts how often it went on elsewhere."""

    moves = 0


def invite() -> str:
    until = datetime.now(UTC) + timedelta(hours=1)
    return invitation.write(Authority.of(CREDENTIALS.key).client("guest", until))
