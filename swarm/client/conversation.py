"""The token loop: one question answered, token by token, on a Session that is kept for the next one."""

from __future__ import annotations

import array
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from swarm.client.sampling import Candidates, Choice, NeedsRow, Sampling, choose, needed_k, needs_row
from swarm.client.seat import Swarm
from swarm.client.session import Session
from swarm.client.stops import StopScanner
from swarm.client.tokenizer import Tokenizer
from swarm.errors import Expired, Gap, Lost, Moved, UsageError
from swarm.wire.v1 import stage_pb2 as pb


@dataclass(frozen=True)
class Piece:
    """One token of an answer, with the text that it made certain (often none, inside a character or a stop string)."""

    text: str
    token: int
    logprob: float


@dataclass
class Answer:
    """An answer, whole or as far as it came."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "cancelled"
    """stop (the model's end or a stop string), length, or cancelled."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, held by the Stages already."""
    ttft_s: float = 0.0
    tokens_per_s: float = 0.0
    """After the first token."""
    hops: list[dict[str, float | str]] = field(default_factory=list)
    """For each Stage the mean seconds a token: compute, queue, shard wait; and the whole traversal's."""


class Conversation:
    """A Session and its answers. Not for two questions at once."""

    def __init__(self, swarm: Swarm, tokenizer: Tokenizer) -> None:
        self._swarm = swarm
        self._session = Session(swarm)
        self._tokenizer = tokenizer
        self.answer = Answer()

    @property
    def tokens(self) -> list[int]:
        """Everything said so far, as token ids."""
        return self._session.tokens

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int | None = None, stops: Sequence[str] = ()
    ) -> AsyncIterator[Piece]:
        """Answer a prompt. `answer` is complete when the iterator ends, and holds what came when it is closed early.

        Args:
            prompt: all token ids before the answer; what earlier ones share with it is not computed again.
            max_tokens: the most tokens of the answer; None for all that the context holds.
            stops: texts that end the answer, not part of it.

        Raises:
            UsageError: an empty prompt. TooLong: it does not fit the context. StepError: see `Session.traverse`.
        """
        if not prompt:
            raise UsageError("the prompt is empty: say something")
        self._session.replace(prompt)
        room = self._swarm.plan.context - len(prompt)
        await self._session.reserve(len(prompt) + (min(room, max_tokens) if max_tokens is not None and room > 0 else max(room, 1)))
        limit = room if max_tokens is None else min(room, max_tokens)
        self.answer = Answer(prompt_tokens=len(prompt), cached_tokens=min(self._session.held, len(prompt)))
        async for piece in self._stream(sampling, limit, StopScanner(stops)):
            yield piece

    async def close(self) -> None:
        """Give the Session's pages back."""
        await self._session.close()

    async def _stream(self, sampling: Sampling, limit: int, scanner: StopScanner) -> AsyncIterator[Piece]:
        clock, text = _Clock(self.answer), self._tokenizer.stream()
        try:
            for _ in range(limit):
                choice = await self._next(sampling)
                clock.token(self._session)
                self._session.append(choice.token)
                self.answer.tokens.append(choice.token)
                self.answer.logprobs.append(choice.logprob)
                ended = choice.token in self._tokenizer.eos_ids
                shown, hit = scanner.push(text.finish() if ended else text.push(choice.token))
                if ended and not hit:
                    shown += scanner.finish()
                self.answer.text += shown
                if ended or hit:
                    self.answer.finish_reason = "stop"
                yield Piece(shown, choice.token, choice.logprob)
                if ended or hit:
                    return
            shown, hit = scanner.push(text.finish())
            shown += "" if hit else scanner.finish()
            self.answer.text += shown
            self.answer.finish_reason = "stop" if hit else "length"
            if shown:
                yield Piece(shown, -1, 0.0)
        finally:
            clock.stop()

    async def _next(self, sampling: Sampling) -> Choice:
        """The next token: from the Candidates, or from the whole row where they do not decide."""
        position, history = len(self._session.tokens), self._session.tokens
        found = await self._candidates(sampling, needs_row(sampling))
        choice = choose(found, sampling, position, history)
        if isinstance(choice, NeedsRow):
            try:
                found = _with_row(found, floats(await self._session.whole_row()))
            except (Gap, Lost, Expired, Moved):  # it was forgotten since: ask for it with the Step
                found = await self._candidates(sampling, whole_row=True)
            choice = choose(found, sampling, position, history)
        assert isinstance(choice, Choice), "a whole row always decides"
        return choice

    async def _candidates(self, sampling: Sampling, whole_row: bool) -> Candidates:
        """For the position behind the last token."""
        end = len(self._session.tokens)
        k = needed_k(sampling, self._tokenizer.vocab_size)
        ask = pb.Ask(rows=1, k=k, temperature=sampling.temperature, whole_row=whole_row)
        answers = await self._session.traverse(end - 1, lambda _, upto: ask if upto == end else pb.Ask())
        return candidates_from(answers[-1].rows[-1])


class _Clock:
    """Takes an answer's times."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._started = time.monotonic()
        self._first = self._last = 0.0
        self._count = 0
        self._stages: dict[str, list[float]] = {}
        self._traversal_s = 0.0

    def token(self, session: Session) -> None:
        self._last = time.monotonic()
        if self._count == 0:
            self._first = self._last
            self._answer.ttft_s = self._first - self._started
        else:
            self._traversal_s += session.traversal_s
            for timing in session.timings:
                sums = self._stages.setdefault(timing.worker, [0.0, 0.0, 0.0])
                for i, seconds in enumerate((timing.compute_s, timing.queue_s, timing.shard_wait_s)):
                    sums[i] += seconds
        self._count += 1

    def stop(self) -> None:
        """Write the means into the answer."""
        decoded = self._count - 1
        if decoded < 1:
            return
        self._answer.tokens_per_s = decoded / max(self._last - self._first, 1e-9)
        for worker, (compute, queue, shards) in self._stages.items():
            means = {"compute_s": compute / decoded, "queue_s": queue / decoded, "shard_wait_s": shards / decoded}
            self._answer.hops.append({"worker": worker, **means, "traversal_s": self._traversal_s / decoded})


def candidates_from(message: pb.Candidates) -> Candidates:
    """Candidates as they came."""
    row = floats(message.row) if message.row else None
    return Candidates(tuple(message.ids), tuple(message.logits), message.logsumexp, message.logsumexp_t, tuple(message.named), row)


def floats(data: bytes) -> array.array[float]:
    """Little-endian fp32 as an array."""
    row = array.array("f", data)
    if sys.byteorder == "big":
        row.byteswap()
    return row


def _with_row(found: Candidates, row: array.array[float]) -> Candidates:
    return Candidates(found.ids, found.logits, found.logsumexp, found.logsumexp_t, found.named, row)
