"""What a run of several Sessions gave: rates and times from when each token came. Pure; seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median


@dataclass(frozen=True)
class Timeline:
    """When one Session asked, and when its tokens came, on the client's clock.

    Args:
        asked_at: when it asked for its Session, a place in the queue for room included.
        began_at: since when it answered: its first token's time, or when all others had theirs, too.
        tokens_at: of every token.
    """

    asked_at: float
    began_at: float
    tokens_at: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        return self.tokens_at[0] - self.asked_at

    @property
    def between_s(self) -> tuple[float, ...]:
        """The times between its tokens."""
        times = (self.began_at, *self.tokens_at[1:])
        return tuple(later - earlier for earlier, later in pairwise(times))

    @property
    def tokens_per_s(self) -> float:
        """After the first token."""
        return (len(self.tokens_at) - 1) / max(self.tokens_at[-1] - self.began_at, 1e-9)


@dataclass(frozen=True)
class Figures:
    """One run's figures, by the names that `swarm bench --json` has."""

    sessions: int
    prompt_tokens: int
    new_tokens: int
    ttft_s: float
    """The median over the Sessions."""
    ttft_max_s: float
    tokens_per_s: float
    """Of one stream, after its first token: the median over the Sessions."""
    total_tokens_per_s: float
    """Of all Sessions together, from when they answered to the last token."""
    itl_p50_s: float
    itl_p99_s: float
    cut: bool = False
    """Ctrl-C ended it: some Sessions have fewer tokens than `new_tokens`."""


def figures(timelines: Sequence[Timeline], prompt_tokens: int, new_tokens: int, sessions: int) -> Figures | None:
    """The figures of a run; None where no Session has come to its second token.

    Args:
        sessions: how many there were to be; those that have no second token do not count.
    """
    told = [line for line in timelines if len(line.tokens_at) > 1]
    if not told:
        return None
    between = sorted(seconds for line in told for seconds in line.between_s)
    window = max(line.tokens_at[-1] for line in told) - min(line.began_at for line in told)
    return Figures(
        sessions=sessions,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        ttft_s=median(line.ttft_s for line in told),
        ttft_max_s=max(line.ttft_s for line in told),
        tokens_per_s=median(line.tokens_per_s for line in told),
        total_tokens_per_s=len(between) / max(window, 1e-9),
        itl_p50_s=percentile(between, 0.50),
        itl_p99_s=percentile(between, 0.99),
        cut=len(told) < sessions or any(len(line.tokens_at) < new_tokens for line in told),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ascending values that at least this share of them does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
