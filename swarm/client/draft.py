"""Guesses at the next tokens, cheap enough to be wrong: one Step verifies them all.

`Lookup` needs no second model: what followed the last few tokens before will follow them again. (Prompt lookup decoding;
the same idea as in arXiv 2304.04487.) A draft model would be another `Draft`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

GROUNDS = (8, 5, 3, 2)
"""How many last tokens are looked up, the longest first."""


@dataclass(frozen=True)
class Guess:
    """The tokens that may come next, and what that rests on: guesses of one ground are right about equally often."""

    tokens: tuple[int, ...] = ()
    ground: int = 0


class Draft(Protocol):
    """What guesses for one Session."""

    def follow(self, tokens: Sequence[int]) -> None:
        """Know that these are the Session's tokens now, all of them."""
        ...

    def guess(self, most: int) -> Guess:
        """At most so many tokens behind those; none where nothing speaks for any."""
        ...


class Lookup:
    """Looks the last tokens up in what was said before, and guesses that it goes on as it did the last time."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        """A run of tokens to the place behind its latest occurrence that something follows."""

    def follow(self, tokens: Sequence[int]) -> None:
        """See `Draft.follow`; costs what is new. Where the past changed, everything is looked at again."""
        if list(tokens[: len(self._tokens)]) != self._tokens:
            self._tokens, self._after = [], {}
        for place in range(len(self._tokens), len(tokens)):
            for ground in GROUNDS:
                if ground <= place:
                    self._after[tuple(tokens[place - ground : place])] = place
        self._tokens.extend(tokens[len(self._tokens) :])

    def guess(self, most: int) -> Guess:
        """See `Draft.guess`. Where the earlier run reaches into the last tokens, the guess goes on in that circle."""
        for ground in GROUNDS:
            if ground <= len(self._tokens) and (place := self._after.get(tuple(self._tokens[-ground:]))) is not None:
                circle = self._tokens[place:]
                return Guess(tuple(circle[i % len(circle)] for i in range(most)), ground)
        return Guess()
