"""The next tokens of an answer, by one traversal: one, and as many more as a draft guessed right.

At each position the token is drawn as it would be without a draft, from the same Candidates with the same (seed, position);
a draft's token is kept while it is the one that was drawn. So a draft changes how fast a text comes, and nothing in it.
"""

from __future__ import annotations

import array
import sys
from dataclasses import replace

from swarm.client.answer import Clock
from swarm.client.draft import Draft, Guess
from swarm.client.draft_length import MOST, DraftLength
from swarm.client.sampling import Candidates, Choice, NeedsRow, Sampling, choose, needed_k, needs_row
from swarm.client.session import Session
from swarm.errors import Expired, Gap, Lost, Moved, WrongKey
from swarm.wire.v1 import stage_pb2 as pb


class NextTokens:
    """Draws the tokens of one answer and puts them behind the Session's.

    Args:
        vocab: how many token ids there are.
        draft: what guesses; None: nothing does.
        length: how long a draft pays.
        clock: told of every traversal.
    """

    def __init__(
        self, session: Session, sampling: Sampling, vocab: int, draft: Draft | None, length: DraftLength, clock: Clock
    ) -> None:
        self._session = session
        self._sampling = sampling
        self._k = needed_k(sampling, vocab)
        self._draft = None if needs_row(sampling) else draft  # whole rows are too much for tokens that may be wrong
        self._length = length
        self._clock = clock

    async def take(self, most: int) -> list[Choice]:
        """The next tokens, at least one and at most `most`; the Session has them all.

        Where this raises (what `Session.traverse` raises) or is stopped, the Session may have guessed tokens at its end.
        """
        session, base = self._session, len(self._session.tokens)
        guess = self._guess(most - 1)
        sent = guess.tokens[: self._length.best(guess.ground)] if guess.tokens else ()
        for token in sent:
            session.append(token)
        alone = session.held >= base - 1  # else the traversal's time is not that of so many rows
        found = await self._candidates(base, needs_row(self._sampling))
        self._clock.traversal(session, len(sent))
        choices = await self._chosen(found, base)
        session.cut(base + len(choices) - 1)
        session.append(choices[-1].token)
        self._learn(guess, len(sent), choices, session.traversal_s if alone else None)
        return choices

    def _guess(self, room: int) -> Guess:
        if self._draft is None:
            return Guess()
        self._draft.follow(self._session.tokens)
        return self._draft.guess(min(room, MOST))

    async def _chosen(self, found: list[Candidates], base: int) -> list[Choice]:
        """What is drawn at each position from `base` on, up to the first where that is not what was sent."""
        tokens, choices = self._session.tokens, list[Choice]()
        for at, candidates in enumerate(found):
            choice = choose(candidates, self._sampling, base + at, tokens[: base + at])
            if isinstance(choice, NeedsRow):
                choice = await self._by_row(candidates, base + at)
            choices.append(choice)
            if tokens[base + at : base + at + 1] != [choice.token]:
                break
        return choices

    async def _by_row(self, candidates: Candidates, position: int) -> Choice:
        """The token at a position whose Candidates do not decide it; what was sent beyond it is given up."""
        session = self._session
        if position == len(session.tokens):
            try:
                return self._sure(replace(candidates, row=floats(await session.whole_row())), position)
            except (Gap, Lost, Expired, Moved, WrongKey):  # it was forgotten since: ask for it with the Step
                pass
        session.cut(position)
        return self._sure((await self._candidates(position, whole_row=True))[-1], position)

    def _sure(self, candidates: Candidates, position: int) -> Choice:
        choice = choose(candidates, self._sampling, position, self._session.tokens)
        assert isinstance(choice, Choice), "a whole row always decides"
        return choice

    async def _candidates(self, first: int, whole_row: bool) -> list[Candidates]:
        """For the positions from `first` to the one behind the last token."""

        def ask_for(at: int, end: int) -> pb.Ask:
            rows = max(0, end - max(at, first - 1))
            return pb.Ask(rows=rows, k=self._k, temperature=self._sampling.temperature, whole_row=whole_row) if rows else pb.Ask()

        answers = await self._session.traverse(first - 1, ask_for)
        return [candidates_from(row) for answer in answers for row in answer.rows]

    def _learn(self, guess: Guess, sent: int, choices: list[Choice], seconds: float | None) -> None:
        if seconds is not None:
            self._length.took(1 + sent, seconds)
        if guess.tokens:  # also of a guess that was not sent: that costs nothing, and says when sending would pay
            drawn = [choice.token for choice in choices]
            right = next((i for i, (a, b) in enumerate(zip(guess.tokens, drawn, strict=False)) if a != b), len(drawn))
            self._length.verified(guess.ground, max(sent, 1), min(right, max(sent, 1)))
        self._clock.kept(len(choices) - 1)


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
