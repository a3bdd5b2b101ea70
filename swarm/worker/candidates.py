"""From logits to Candidates: all that sampling needs, so that a token costs a few hundred bytes and not a vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

import torch
from torch import Tensor

from swarm.errors import Refused
from swarm.model.native.ranked import Ranks, ranked
from swarm.wire.v1 import stage_pb2 as pb

MAX_K = 1024
MAX_LOGITS = 2**18
"""Of one Step's answer: of its best ids and its named ones together, over all rows."""


def check_ask(ask: pb.Ask, rows: int, vocab: int) -> None:
    """Raise Refused unless the question fits the Step's rows and the vocabulary."""
    if ask.rows > rows or ask.k > min(MAX_K, vocab):
        raise Refused(
            f"candidates of {ask.rows} rows with k={ask.k} were asked for; the step has {rows} rows, k is at most {MAX_K}"
        )
    if ask.rows * (ask.k + ask.named_per_row) > MAX_LOGITS:
        raise Refused(f"{ask.rows} rows with k={ask.k} and {ask.named_per_row} named ids each; {MAX_LOGITS} in all are allowed")
    if ask.whole_row and ask.rows > 1:
        raise Refused("whole rows of logits are answered one at a time")
    if len(ask.named) != ask.rows * ask.named_per_row or any(i >= vocab for i in ask.named):
        raise Refused("the named ids do not fit the asked rows or the vocabulary")
    if not ask.temperature >= 0:
        raise Refused("a temperature below 0")


class Asked(NamedTuple):
    """Some of the rows that a Step asks for, from `first` on."""

    ask: pb.Ask
    """Checked by `check_ask`."""
    first: int
    rows: int

    @property
    def temperature(self) -> float:
        """Of the second logsumexp."""
        return self.ask.temperature or 1.0


def candidates(logits: Tensor, asked: Sequence[Asked]) -> list[list[pb.Candidates]]:
    """Answer what some Steps ask.

    Args:
        logits: [n, vocab], contiguous, of all their rows, one Step's behind the other's.
    """
    rows = [slice(end - some.rows, end) for some, end in zip(asked, accumulate(some.rows for some in asked), strict=True)]
    quick = ranked()
    if quick and quick.takes(logits):
        told = iter(quick.of(logits, [(some.ask.k, some.temperature) for some in asked for _ in range(some.rows)]))
    else:
        told = (ranks for its, some in zip(rows, asked, strict=True) for ranks in _ranks(logits[its].float(), some))
    return [_answers(logits, its, some, islice(told, some.rows)) for its, some in zip(rows, asked, strict=True)]


def _ranks(logits: Tensor, asked: Asked) -> Iterator[Ranks]:
    """What is told of rows `logits` [n, vocab] fp32, by torch."""
    best = torch.topk(logits, asked.ask.k, dim=-1)
    lse = torch.logsumexp(logits, dim=-1).tolist()
    lse_t = lse if asked.temperature == 1.0 else torch.logsumexp(logits / asked.temperature, dim=-1).tolist()
    return map(Ranks, best.indices.tolist(), best.values.tolist(), lse, lse_t)


def _answers(logits: Tensor, rows: slice, asked: Asked, told: Iterable[Ranks]) -> list[pb.Candidates]:
    answers = [pb.Candidates(ids=r.ids, logits=r.logits, logsumexp=r.logsumexp, logsumexp_t=r.logsumexp_t) for r in told]
    if width := asked.ask.named_per_row:
        ids = asked.ask.named[asked.first * width : (asked.first + asked.rows) * width]
        named = torch.tensor(list(ids), device=logits.device).view(asked.rows, width)
        for answer, values in zip(answers, logits[rows].gather(1, named).tolist(), strict=True):
            answer.named.extend(values)
    if asked.ask.whole_row:
        for answer, row in zip(answers, logits[rows], strict=True):
            answer.row = row_bytes(row)
    return answers


def row_bytes(row: Tensor) -> bytes:
    """[vocab] as little-endian fp32."""
    return row.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
