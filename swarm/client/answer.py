"""An answer, and the times that it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from swarm.client.session import Session
from swarm.client.trace import Trace


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
    """For each Stage the mean seconds a traversal: compute (shard wait included), queue, shard wait; and the whole traversal's."""
    trace: Trace = field(default_factory=Trace)
    """The traversals behind the first token's, piece by piece."""
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

    def traversal(self, session: Session, drafted: int) -> None:
        """A traversal ended, with so many guessed tokens: the first is the prompt's, all further ones are counted."""
        self._traversals += 1
        self._answer.drafted += drafted
        if self._traversals == 1:
            self._answer.cached_tokens = min(session.reused, self._answer.prompt_tokens)
            self._answer.trace.skip(session)
            return
        self._answer.traversals += 1
        self._answer.trace.add(session)

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
        for way in self._answer.trace.ways:
            for worker, sums in zip(way.workers, way.stages, strict=True):
                seconds = {
                    "compute_s": sums.compute_s + sums.shard_wait_s,
                    "queue_s": sums.queue_s,
                    "shard_wait_s": sums.shard_wait_s,
                }
                means = {name: each / way.count for name, each in {**seconds, "traversal_s": way.traversal_s}.items()}
                self._answer.hops.append({"worker": worker, **means})
