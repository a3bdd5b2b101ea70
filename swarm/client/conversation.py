"""The token loop: one question answered, token by token, on a Session that is kept for the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from swarm.client.answer import Answer, Clock
from swarm.client.draft import Draft
from swarm.client.draft_length import DraftLength
from swarm.client.next_tokens import NextTokens
from swarm.client.sampling import Choice, Sampling
from swarm.client.seat import Swarm
from swarm.client.session import Session
from swarm.client.stops import StopScanner
from swarm.client.tokenizer import Tokenizer
from swarm.errors import UsageError


@dataclass(frozen=True)
class Piece:
    """One token of an answer, with the text that it made certain (often none, inside a character or a stop string)."""

    text: str
    token: int
    logprob: float


class Conversation:
    """A Session and its answers. Not for two questions at once.

    Args:
        draft: guesses the next tokens, so that one traversal may bring several; None: one traversal a token.
        length: decides how many guessed tokens are sent; by default as many as pay.
    """

    def __init__(self, swarm: Swarm, tokenizer: Tokenizer, draft: Draft | None = None, length: DraftLength | None = None) -> None:
        self._swarm = swarm
        self._session = Session(swarm)
        self._tokenizer = tokenizer
        self._draft = draft
        self._length = length or DraftLength(swarm.plan.model.config)
        self.answer = Answer()

    @property
    def tokens(self) -> list[int]:
        """Everything said so far, as token ids."""
        return self._session.tokens

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        max_tokens: int | None = None,
        stops: Sequence[str] = (),
        begun: Sequence[int] = (),
    ) -> AsyncIterator[Piece]:
        """Answer a prompt. `answer` is complete when the iterator ends, and holds what came when it is closed early.

        Args:
            prompt: all token ids before the answer; what earlier ones share with it is not computed again.
            max_tokens: the most tokens of the answer; None for all that the context holds.
            stops: texts that end the answer, not part of it.
            begun: its first tokens, where they were drawn before; their pieces come, too, without log-probabilities.

        Raises:
            UsageError: an empty prompt. TooLong: it does not fit the context. StepError: see `Session.traverse`.
        """
        if not prompt:
            raise UsageError("the prompt is empty: say something")
        self._session.replace([*prompt, *begun])
        room = self._swarm.plan.context - len(prompt)
        await self._session.reserve(len(prompt) + (min(room, max_tokens) if max_tokens is not None and room > 0 else max(room, 1)))
        limit = room if max_tokens is None else min(room, max_tokens)
        self.answer = Answer(prompt_tokens=len(prompt))
        async for piece in self._stream(sampling, limit, StopScanner(stops), begun):
            yield piece

    async def close(self) -> None:
        """Give the Session's pages back."""
        await self._session.close()

    async def _stream(self, sampling: Sampling, limit: int, scanner: StopScanner, begun: Sequence[int]) -> AsyncIterator[Piece]:
        clock, text, answer = Clock(self.answer), self._tokenizer.stream(), self.answer
        following = NextTokens(self._session, sampling, self._tokenizer.vocab_size, self._draft, self._length, clock)
        try:
            drawn = [Choice(token, 0.0) for token in begun]
            while len(answer.tokens) < limit:
                for choice in drawn or await following.take(limit - len(answer.tokens)):
                    if not drawn:
                        clock.token()
                    answer.tokens.append(choice.token)
                    answer.logprobs.append(choice.logprob)
                    ended = choice.token in self._tokenizer.eos_ids
                    shown, hit = scanner.push(text.finish() if ended else text.push(choice.token))
                    if ended and not hit:
                        shown += scanner.finish()
                    answer.text += shown
                    if ended or hit:
                        answer.finish_reason = "stop"
                    yield Piece(shown, choice.token, choice.logprob)
                    if ended or hit:
                        return
                drawn = []
            shown, hit = scanner.push(text.finish())
            shown += "" if hit else scanner.finish()
            answer.text += shown
            answer.finish_reason = "stop" if hit else "length"
            if shown:
                yield Piece(shown, -1, 0.0)
        finally:
            self._session.cut(answer.prompt_tokens + len(answer.tokens))  # what was guessed beyond was not said
            clock.stop()
