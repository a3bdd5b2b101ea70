"""One chat: what is asked, put into the model's format behind all that was said before."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TypeVar

from swarm.client.client import Client
from swarm.client.conversation import Answer, Piece
from swarm.client.messages import Message
from swarm.client.sampling import Sampling
from swarm.errors import SwarmError

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
        self._sampling = wishes.sampling(client.defaults)
        self._conversation = client.conversation()
        self._said: list[int] = []

    async def ask(self, text: str) -> AsyncIterator[Piece]:
        """The answer's pieces as they come. A question that fails is forgotten; one that is stopped was said.

        Raises:
            UsageError: nothing is asked.
            SwarmError: whatever ends the answer before its end.
        """
        pieces = self._conversation.generate(self._prompt(text), self._sampling, self._wishes.max_tokens, self._wishes.stops)
        failed = False
        try:
            async for piece in pieces:
                yield piece
        except SwarmError:
            failed = True
            raise
        finally:
            if not failed:
                self._said = list(self._conversation.tokens)

    @property
    def answer(self) -> Answer:
        """The last answer, once its pieces ended or were stopped."""
        return self._conversation.answer

    async def close(self) -> None:
        """Give the Session back."""
        await self._conversation.close()

    def _prompt(self, text: str) -> list[int]:
        said = self._said
        if self._wishes.raw:
            tokenizer = self._client.tokenizer
            return [*said, *tokenizer.encode_after(text)] if said else [tokenizer.bos_id, *tokenizer.encode(text)]
        question = Message(role="user", content=text)
        if said:
            return self._client.chat_format.extend(said, question)
        system = [Message(role="system", content=self._wishes.system)] if self._wishes.system else []
        return self._client.chat_format.encode([*system, question])


def _first(wished: T | None, default: T) -> T:
    return default if wished is None else wished
