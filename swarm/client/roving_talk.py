"""A chat whose Decoder runs on a rig, and elsewhere when that one is gone: the same text goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from swarm.client.answer import Answer
from swarm.client.conversation import Piece
from swarm.client.far_talk import FarTalk
from swarm.client.messages import ToolCall
from swarm.client.talk import Talk
from swarm.errors import ModelError, SwarmError, WrongKey

Asking = Callable[[Talk | FarTalk], AsyncGenerator[Piece]]


class RovingTalk:
    """Questions and answers of one person; see `Talk`. It keeps the token ids, which are the whole truth about a chat.

    Args:
        elsewhere: opens the next place that the chat can go on at, told why it must. Raises SwarmError where there is none.
    """

    def __init__(self, first: FarTalk, elsewhere: Callable[[SwarmError], Awaitable[Talk | FarTalk]]) -> None:
        self._talk: Talk | FarTalk = first
        self._elsewhere = elsewhere
        self.model, self._model_id, self.is_plain = first.model, first.model_id, first.is_plain
        self.calls: list[ToolCall] = []
        """The tools that the last answer calls, in order."""
        self.answer = Answer()
        """The last answer, once its pieces ended or were stopped."""

    def ask(self, text: str) -> AsyncGenerator[Piece]:
        """The answer's pieces as they come. Raises SwarmError: whatever ends the answer before its end."""
        return self._answer(lambda talk: talk.ask(text))

    def tell(self, results: Sequence[str]) -> AsyncGenerator[Piece]:
        """What the model answers to the results of its calls, given in the calls' order."""
        return self._answer(lambda talk: talk.tell(results))

    async def _answer(self, asking: Asking) -> AsyncGenerator[Piece]:
        answer, calls, asked = Answer(), self.calls, asking
        self.answer, self.calls = answer, []
        try:
            while True:
                talk = self._talk
                try:
                    async with aclosing(_unheard(asked(talk), answer)) as pieces:
                        async for piece in pieces:
                            yield piece
                    break
                except SwarmError as error:
                    asked = await self._move(error, asking, calls)
        finally:
            self.calls = self._talk.calls
            _count(answer, self._talk.answer)

    async def _move(self, error: SwarmError, asking: Asking, calls: Sequence[ToolCall]) -> Asking:
        """Be elsewhere; how to ask there for the rest. Raises the error where it is about the answer and not about the rig."""
        lost = self._talk
        if not isinstance(lost, FarTalk) or not lost.gone or isinstance(error, ModelError | WrongKey):
            raise error
        self.answer.ttft_s = lost.answer.ttft_s
        self._talk = talk = await self._elsewhere(error)
        if model_of(talk) != self._model_id:
            raise ModelError(f"the swarm holds {talk.model} now, and this chat began with {self.model}: start a new one") from None
        talk.restore(lost.said, calls)
        if (prompt := lost.prompt) is None:
            return asking
        begun = list(self.answer.tokens)
        return lambda talk: talk.go_on(prompt, begun)


def model_of(talk: Talk | FarTalk) -> str:
    """Which model's tokens a chat is in."""
    return talk.model_id if isinstance(talk, FarTalk) else talk.plan.model.model_id


async def _unheard(pieces: AsyncGenerator[Piece], answer: Answer) -> AsyncGenerator[Piece]:
    """Of all pieces of an answer those, or the part of one, that are not in it yet; they are then."""
    tokens, text = 0, ""
    async with aclosing(pieces):
        async for piece in pieces:
            tokens, text = tokens + (piece.token >= 0), text + piece.text
            new = piece.token >= 0 and tokens > len(answer.tokens)
            rest = text[len(answer.text) :]
            if new:
                answer.tokens.append(piece.token)
                answer.logprobs.append(piece.logprob)
            answer.text += rest
            if new or rest:
                yield Piece(rest, piece.token if new else -1, piece.logprob)


def _count(answer: Answer, inner: Answer) -> None:
    """Take over what was counted where the answer ended."""
    answer.ttft_s = answer.ttft_s or inner.ttft_s
    answer.finish_reason, answer.tokens_per_s = inner.finish_reason, inner.tokens_per_s
    answer.prompt_tokens, answer.cached_tokens = inner.prompt_tokens, inner.cached_tokens
    answer.traversals, answer.drafted, answer.kept = inner.traversals, inner.drafted, inner.kept
