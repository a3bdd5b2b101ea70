"""One chat: what is asked, put into the model's format behind all that was said before."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from swarm.client.answer import Answer
from swarm.client.client import Client
from swarm.client.conversation import Piece
from swarm.client.messages import Message, ToolCall
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

    def ask(self, text: str) -> AsyncIterator[Piece]:
        """The answer's pieces as they come. A question that fails is forgotten; one that is stopped was said.

        Raises:
            UsageError: nothing is asked, or asked for what the model's format has no place for.
            SwarmError: whatever ends the answer before its end.
        """
        return self._answer(lambda: self._prompt(Message("user", text)))

    def tell(self, results: Sequence[str]) -> AsyncIterator[Piece]:
        """What the model answers to the results of its calls, given in the calls' order. Raises what `ask` raises."""
        called = zip(self.calls, results, strict=True)
        messages = [Message("tool", result, tool_call_id=call.id, name=call.name) for call, result in called]
        return self._answer(lambda: self._format.extend(self._said, messages))

    @property
    def answer(self) -> Answer:
        """The last answer, once its pieces ended or were stopped."""
        return self._conversation.answer

    async def close(self) -> None:
        """Give the Session back."""
        await self._conversation.close()

    async def _answer(self, prompt: Callable[[], list[int]]) -> AsyncIterator[Piece]:
        """Pieces of an answer, without the text of calls, which `calls` has when they ended."""
        self.calls = []
        wishes = self._wishes
        held = HeldCalls(self._format.call_form if wishes.tools else None, self._client.tokenizer)
        pieces = self._conversation.generate(prompt(), self._sampling, wishes.max_tokens, wishes.stops)
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
        system = [Message("system", self._wishes.system)] if self._wishes.system else []
        return self._format.prompt([*system, question], self._wishes.tools)


def _first(wished: T | None, default: T) -> T:
    return default if wished is None else wished
