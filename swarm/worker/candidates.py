"""From logits to Candidates: all that sampling needs, so that a token costs a few hundred bytes and not a vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from swarm.errors import Refused
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


def candidates(logits: Tensor, ask: pb.Ask, first: int = 0) -> list[pb.Candidates]:
    """Answer a Step's question for some of its rows.

    Args:
        logits: [n, vocab] fp32 of the asked rows from `first` on.
        ask: checked by `check_ask`.
    """
    top = torch.topk(logits, ask.k, dim=-1) if ask.k else None
    lse = torch.logsumexp(logits, dim=-1).tolist()
    lse_t = lse if ask.temperature in (0.0, 1.0) else torch.logsumexp(logits / ask.temperature, dim=-1).tolist()
    answers = [pb.Candidates(logsumexp=a, logsumexp_t=b) for a, b in zip(lse, lse_t, strict=True)]
    if top is not None:
        for answer, ids, values in zip(answers, top.indices.tolist(), top.values.tolist(), strict=True):
            answer.ids.extend(ids)
            answer.logits.extend(values)
    if ask.named_per_row:
        ids = ask.named[first * ask.named_per_row : (first + logits.shape[0]) * ask.named_per_row]
        named = torch.tensor(list(ids), device=logits.device).view(logits.shape[0], ask.named_per_row)
        for answer, values in zip(answers, logits.gather(1, named).tolist(), strict=True):
            answer.named.extend(values)
    if ask.whole_row:
        for answer, row in zip(answers, logits, strict=True):
            answer.row = row_bytes(row)
    return answers


def row_bytes(row: Tensor) -> bytes:
    """[vocab] fp32 as little-endian bytes."""
    return row.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
