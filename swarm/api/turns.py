"""What a Turn asks for, in the client's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from swarm.client.conversation import Piece
from swarm.client.messages import Message, ToolCall
from swarm.client.talk import Talk, Wishes
from swarm.client.tools import read_tools
from swarm.errors import TooLong, UsageError
from swarm.wire.v1 import text_pb2 as pb

BYTES_A_TOKEN = 64
"""The longest words of any tokenizer are about so long."""
ROOM_BYTES = 64 * 2**10
"""For tools, calls and options beside the text."""


def pieces_of(talk: Talk, turn: pb.Turn) -> AsyncIterator[Piece]:
    """The answer that a Turn asks for.

    Raises:
        UsageError: it makes no sense.
        TooLong: it is longer than what the Plan has room for, which is looked at before anything is made of it.
    """
    vocab = talk.plan.model.config.vocab
    _check_length(turn, talk.plan.context)
    if turn.HasField("history"):
        talk.restore(_tokens(turn.history.tokens, vocab), _calls(turn.history.calls))
    if turn.HasField("question"):
        return talk.ask(turn.question.text)
    if turn.HasField("chat"):
        return talk.chat([_message(message) for message in turn.chat.messages])
    if turn.HasField("go_on"):
        return talk.go_on(_tokens(turn.go_on.prompt, vocab), _tokens(turn.go_on.answer, vocab))
    if len(turn.results.results) != len(talk.calls):
        raise UsageError(f"{len(turn.results.results)} results answer {len(talk.calls)} tool calls: give one for each")
    return talk.tell(turn.results.results)


def wishes_of(options: pb.Options) -> Wishes:
    """How to answer. Raises UsageError for tools that are none."""
    o = options
    return Wishes(
        system=o.system or None,
        temperature=o.temperature if o.HasField("temperature") else None,
        top_p=o.top_p if o.HasField("top_p") else None,
        top_k=o.top_k if o.HasField("top_k") else None,
        repetition_penalty=o.repetition_penalty if o.HasField("repetition_penalty") else None,
        seed=o.seed if o.HasField("seed") else None,
        max_tokens=o.max_tokens if o.HasField("max_tokens") else None,
        stops=tuple(o.stops),
        raw=o.raw,
        tools=read_tools(o.tools, "the list of tools") if o.tools else (),
        speculate=not o.no_speculation,
    )


def _check_length(turn: pb.Turn, context: int) -> None:
    tokens = len(turn.history.tokens) + len(turn.go_on.prompt) + len(turn.go_on.answer)
    if tokens > context or turn.ByteSize() > context * BYTES_A_TOKEN + ROOM_BYTES:
        raise TooLong(f"the chat is longer than the {context} positions that the plan has a session: shorten it, or begin it again")


def _message(message: pb.Message) -> Message:
    return Message(message.role, message.content, tuple(_calls(message.calls)), message.tool_call_id, message.name)


def _calls(calls: Iterable[pb.Call]) -> list[ToolCall]:
    return [ToolCall(call.name, call.arguments, call.id) for call in calls]


def _tokens(tokens: Sequence[int], vocab: int) -> list[int]:
    if any(token >= vocab for token in tokens):
        raise UsageError(f"a token id is beyond the {vocab} of the model that the swarm holds: begin the chat again")
    return list(tokens)
