"""One chat: what is asked, put into the model's format behind all that was said before."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from swarm.client.answer import Answer
from swarm.client.client import Client
from swarm.client.conversation import Piece
from swarm.client.messages import Message, ToolCall, plain_text
from swarm.client.plain_format import PlainFormat
from swarm.client.sampling import Sampling
from swarm.client.spelling import HeldCalls
from swarm.client.tools import Tool
from swarm.errors import SwarmError
from swarm.plan import Plan

T = TypeVar("T")


@dataclass(frozen=True)
class Wishes:
    """How to answer, as the command line says it; None is what the model's own generation_config says."""

    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    raw: bool = False
    """Continue the text as it is: no template, only bos before it."""
    tools: tuple[Tool, ...] = ()
    speculate: bool = True
    """Draft tokens from what was said; changes no token, only when they come."""

    def sampling(self, defaults: Sampling) -> Sampling:
        """The model's defaults with what was wished in their place; a seed of chance where none was."""
        return replace(
            defaults,
            temperature=_first(self.temperature, defaults.temperature),
            top_p=_first(self.top_p, defaults.top_p),
            top_k=_first(self.top_k, defaults.top_k),
            repetition_penalty=_first(self.repetition_penalty, defaults.repetition_penalty),
            seed=secrets.randbits(64) if self.seed is None else self.seed,
        )


class Talk:
    """Questions and answers of one person. A further question costs only its own tokens: those before it stay as they are."""

    def __init__(self, client: Client, wishes: Wishes) -> None:
        self._client = client
        self._wishes = wishes
        self._format = PlainFormat(client.tokenizer) if wishes.raw else client.chat_format
        self._sampling = wishes.sampling(client.defaults)
        self._conversation = client.conversation(wishes.speculate)
        self._said: list[int] = []
        self.prompt: list[int] = []
        """All token ids before the last answer, once its first piece came."""
        self.calls: list[ToolCall] = []
        """The tools that the last answer calls, in order."""

    @property
    def plan(self) -> Plan:
        """In force now."""
        return self._client.plan

    @property
    def model(self) -> str:
        """Its name."""
        return self.plan.model.name

    @property
    def is_plain(self) -> bool:
        """Whether the model was trained on no chat, so that it continues the text."""
        return isinstance(self._format, PlainFormat)

    def ask(self, text: str) -> AsyncGenerator[Piece]:
        """The answer's pieces as they come. A question that fails is forgotten; one that is stopped was said.

        Raises:
            UsageError: nothing is asked, or asked for what the model's format has no place for.
            SwarmError: whatever ends the answer before its end.
        """
        return self._answer(lambda: self._prompt(Message("user", plain_text(text))))

    def tell(self, results: Sequence[str]) -> AsyncGenerator[Piece]:
        """What the model answers to the results of its calls, given in the calls' order. Raises what `ask` raises."""
        called = zip(self.calls, results, strict=True)
        messages = [Message("tool", result, tool_call_id=call.id, name=call.name) for call, result in called]
        return self._answer(lambda: self._format.extend(self._said, messages))

    def chat(self, messages: Sequence[Message]) -> AsyncGenerator[Piece]:
        """What the model answers to a whole chat, in the place of what was said before. Raises what `ask` raises."""
        return self._answer(lambda: self._format.prompt(self._with_system(messages), self._wishes.tools))

    def go_on(self, prompt: Sequence[int], begun: Sequence[int]) -> AsyncGenerator[Piece]:
        """All pieces of an answer of which the first tokens were said elsewhere. Raises what `ask` raises."""
        return self._answer(lambda: list(prompt), begun)

    def restore(self, said: Sequence[int], calls: Sequence[ToolCall]) -> None:
        """Have said these tokens, elsewhere, and called these tools at last."""
        self._said, self.calls = list(said), list(calls)

    @property
    def answer(self) -> Answer:
        """The last answer, once its pieces ended or were stopped."""
        return self._conversation.answer

    async def close(self) -> None:
        """Give the Session back."""
        await self._conversation.close()

    async def _answer(self, prompt: Callable[[], list[int]], begun: Sequence[int] = ()) -> AsyncGenerator[Piece]:
        """Pieces of an answer, without the text of calls, which `calls` has when they ended."""
        self.calls = []
        self.prompt = await asyncio.to_thread(prompt)  # a long chat takes a while, and others may talk on this loop
        wishes = self._wishes
        held = HeldCalls(self._format.call_form if wishes.tools else None, self._client.tokenizer)
        pieces = self._conversation.generate(self.prompt, self._sampling, wishes.max_tokens, wishes.stops, begun)
        failed = False
        try:
            async for piece in pieces:
                yield replace(piece, text=held.push(piece.token, piece.text))
            self.calls = (self._format.tool_calls(self.answer.tokens) if wishes.tools else None) or []
            if not self.calls and (rest := held.finish()):
                yield Piece(rest, -1, 0.0)
        except SwarmError:
            failed = True
            raise
        finally:
            if not failed:
                self._said = list(self._conversation.tokens)

    def _prompt(self, question: Message) -> list[int]:
        if self._said:
            return self._format.extend(self._said, [question])
        return self._format.prompt(self._with_system([question]), self._wishes.tools)

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        """The chat behind the system message that was wished; one of its own stands in that one's place."""
        own = not self._wishes.system or any(message.role == "system" for message in messages)
        return list(messages) if own else [Message("system", self._wishes.system or ""), *messages]


def _first(wished: T | None, default: T) -> T:
    return default if wished is None else wished
