"""What the last Stage answers for the Steps of a micro-batch. All their asked rows meet the head together: it is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from swarm.config import LOGIT_ROWS
from swarm.model.stage import Stage
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.candidates import Asked, candidates


class Piece(NamedTuple):
    """Some of the rows that one Step asks for."""

    step: int
    first: int
    rows: int


def answer_asked(
    headers: Sequence[pb.StepHeader], ends: Sequence[int], hidden: Tensor, stage: Stage
) -> list[tuple[pb.StepAnswer | None, Tensor | None]]:
    """Each Step's answer, and the logits [1, V] of its last asked row; None and None for one that asks nothing.

    Args:
        ends: behind which row of `hidden` [R, H] each Step's rows end.
    """
    answers: list[tuple[pb.StepAnswer | None, Tensor | None]] = [(None, None)] * len(headers)
    for pieces in pieces_of([header.ask.rows for header in headers]):
        logits = stage.logits(_rows_of(pieces, headers, ends, hidden))
        told = candidates(logits, [Asked(headers[p.step].ask, p.first, p.rows) for p in pieces])
        for p, some, last in zip(pieces, told, accumulate(p.rows for p in pieces), strict=True):
            answer = answers[p.step][0] or _empty(headers[p.step])
            answer.rows.extend(some)
            answers[p.step] = answer, logits if len(logits) == 1 else logits[last - 1 : last].clone()  # without others' rows
    return answers


def _rows_of(pieces: Sequence[Piece], headers: Sequence[pb.StepHeader], ends: Sequence[int], hidden: Tensor) -> Tensor:
    """[n, H]: `hidden` itself where that is all that it has."""
    if sum(p.rows for p in pieces) == hidden.shape[0]:
        return hidden
    firsts = [ends[p.step] - headers[p.step].ask.rows + p.first for p in pieces]
    rows = [hidden[first : first + p.rows] for first, p in zip(firsts, pieces, strict=True)]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def pieces_of(asked: Sequence[int]) -> Iterator[list[Piece]]:
    """The asked rows of all Steps, as many at once as the Plan has memory for logits."""
    group: list[Piece] = []
    room = LOGIT_ROWS
    for step, rows in enumerate(asked):
        first = 0
        while first < rows:
            taken = min(rows - first, room)
            group.append(Piece(step, first, taken))
            first, room = first + taken, room - taken
            if not room:
                yield group
                group, room = [], LOGIT_ROWS
    if group:
        yield group


def _empty(header: pb.StepHeader) -> pb.StepAnswer:
    first = header.position + len(header.tokens) - header.ask.rows
    return pb.StepAnswer(session=header.session, serial=header.serial, position=first)
