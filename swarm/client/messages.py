"""What is said in a chat, before it is token ids."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.errors import UsageError

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants called."""

    name: str
    arguments: str
    """A JSON object, as text."""
    id: str = ""
    """What a result names it by."""

    @property
    def values(self) -> dict[str, Any]:
        """The arguments by name. Raises UsageError where they are no JSON object."""
        try:
            values = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise UsageError(f"the arguments of the tool call {self.name} are no JSON object: give one, such as {{}}")
        return values


def plain_text(text: str) -> str:
    """The same text. Raises UsageError where it has bytes that are none, as Python keeps them in some locales."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("what is said has bytes that are no text: give it as UTF-8") from None
    return text


@dataclass(frozen=True)
class Message:
    """One message: `role` is one of `ROLES`."""

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """An assistant's."""
    tool_call_id: str = ""
    """Of a tool's message: the call whose result it is."""
    name: str = ""
    """Of a tool's message: the tool."""


def checked_chat(messages: Sequence[Message]) -> list[Message]:
    """The messages, with neighbours of one role joined by an empty line, as mistral-common joins them; tools' stay apart.

    Raises:
        UsageError: an unknown role; a chat that does not begin with the user (after any system message), or whose last
            message is neither the user's nor a tool's; a tool's message that answers no call; calls with no JSON object.
    """
    for message in messages:
        if message.role not in ROLES:
            raise UsageError(f"a chat message has the role {message.role!r}: use one of {', '.join(ROLES)}")
    if not messages or messages[-1].role not in ("user", "tool"):
        raise UsageError("the last message of a chat must be the user's, or a tool's result: add what is to be answered")
    spoken = [message for message in messages if message.role != "system"]
    if spoken[0].role != "user":
        raise UsageError("a chat begins with the user, after any system message: put the question before the answer")
    _check_calls(spoken)
    chat: list[Message] = []
    for role, group in itertools.groupby(messages, key=lambda message: message.role):
        turns = list(group)
        chat += turns if role == "tool" else [_one(role, turns)]
    return chat


def checked_next(messages: Sequence[Message]) -> list[Message]:
    """What is said after an answer: a question of the user, or results of the tools that the answer called.

    Raises:
        UsageError: it is neither.
    """
    roles = {message.role for message in messages}
    if roles == {"user"}:
        return [_one("user", messages)]
    if roles == {"tool"}:
        return list(messages)
    raise UsageError("what follows an answer must be the user's, or the results of the tools that it called: give one of them")


def joined(messages: Iterable[Message]) -> str:
    """The texts of several messages as one, empty ones left out."""
    return "\n\n".join(message.content for message in messages if message.content)


def _one(role: str, group: Sequence[Message]) -> Message:
    return Message(role, joined(group), tuple(call for message in group for call in message.tool_calls))


def _check_calls(spoken: Sequence[Message]) -> None:
    open_calls = 0
    for message in spoken:
        if message.tool_calls and message.role != "assistant":
            raise UsageError(f"a message of the role {message.role} calls tools: only the assistant's can")
        for call in message.tool_calls:
            call.values  # noqa: B018  (raises)
        open_calls = open_calls - 1 if message.role == "tool" else len(message.tool_calls)
        if open_calls < 0:
            which = message.name or message.tool_call_id
            raise UsageError(f"the result of the tool {which} answers no call: put the call before it")
