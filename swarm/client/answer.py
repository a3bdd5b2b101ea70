"""An answer, and the times that it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from swarm.client.session import Session


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
    """For each Stage the mean seconds a traversal: compute, queue, shard wait; and the whole traversal's."""
    traversals: int = 0
    """Behind the first token's: fewer than tokens, where drafts were right."""
    drafted: int = 0
    """Tokens that were guessed and sent to be verified."""
    kept: int = 0
    """Of these, how many were right."""


class Clock:
    """Takes an answer's times."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._started = time.monotonic()
        self._first = self._last = 0.0
        self._count = self._traversals = 0
        self._stages: dict[str, list[float]] = {}
        self._traversal_s = 0.0

    def traversal(self, session: Session, drafted: int) -> None:
        """A traversal ended, with so many guessed tokens: the first is the prompt's, all further ones are counted."""
        self._traversals += 1
        self._answer.drafted += drafted
        if self._traversals == 1:
            return
        self._answer.traversals += 1
        self._traversal_s += session.traversal_s
        for timing in session.timings:
            sums = self._stages.setdefault(timing.worker, [0.0, 0.0, 0.0])
            for i, seconds in enumerate((timing.compute_s, timing.queue_s, timing.shard_wait_s)):
                sums[i] += seconds

    def kept(self, tokens: int) -> None:
        """So many of the guessed tokens were right."""
        self._answer.kept += tokens

    def token(self) -> None:
        """A token is there."""
        self._last = time.monotonic()
        if self._count == 0:
            self._first = self._last
            self._answer.ttft_s = self._first - self._started
        self._count += 1

    def stop(self) -> None:
        """Write the means into the answer."""
        if self._count > 1:
            self._answer.tokens_per_s = (self._count - 1) / max(self._last - self._first, 1e-9)
        count = self._answer.traversals
        for worker, (compute, queue, shards) in self._stages.items():
            means = {"compute_s": compute / count, "queue_s": queue / count, "shard_wait_s": shards / count}
            self._answer.hops.append({"worker": worker, **means, "traversal_s": self._traversal_s / count})
