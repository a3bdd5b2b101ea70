"""What is said in a chat, before it is token ids."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TypedDict

from swarm.errors import UsageError

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One message: `role` is one of `ROLES`."""

    role: str
    content: str


def checked_chat(messages: Sequence[Message]) -> list[Message]:
    """The messages, with neighbours of one role joined by an empty line, as mistral-common joins them.

    Raises:
        UsageError: an unknown role, no text where there must be some, a chat that does not begin with the user (after
            any system message), or whose last message is not the user's.
    """
    for message in messages:
        if message["role"] not in ROLES:
            raise UsageError(f"a chat message has the role {message['role']!r}: use one of {', '.join(ROLES)}")
    if not messages or messages[-1]["role"] != "user":
        raise UsageError("the last message of a chat must be the user's: add the question to be answered")
    spoken = [message for message in messages if message["role"] != "system"]
    if spoken[0]["role"] != "user":
        raise UsageError("a chat begins with the user, after any system message: put the question before the answer")
    turns = itertools.groupby(messages, key=lambda message: message["role"])
    return [Message(role=role, content=joined(group)) for role, group in turns]


def joined(messages: Iterable[Message]) -> str:
    """The texts of several messages as one, empty ones left out."""
    return "\n\n".join(message["content"] for message in messages if message["content"])
