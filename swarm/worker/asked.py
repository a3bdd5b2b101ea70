"""What the last Stage answers for the Steps of a micro-batch. All their asked rows meet the head together: it is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swarm.config import LOGIT_ROWS
from swarm.model.stage import Stage
from swarm.wire.v1 import stage_pb2 as pb
from swarm.worker.candidates import candidates


class Piece(NamedTuple):
    """Some of the rows that one Step asks for."""

    step: int
    first: int
    rows: int


def answer_asked(
    headers: Sequence[pb.StepHeader], ends: Sequence[int], hidden: Tensor, stage: Stage
) -> list[tuple[pb.StepAnswer | None, Tensor | None]]:
    """Each Step's answer, and the logits [V] fp32 of its last asked row; None and None for one that asks nothing.

    Args:
        ends: behind which row of `hidden` [R, H] each Step's rows end.
    """
    answers: list[tuple[pb.StepAnswer | None, Tensor | None]] = [(None, None)] * len(headers)
    for pieces in pieces_of([header.ask.rows for header in headers]):
        firsts = [ends[p.step] - headers[p.step].ask.rows + p.first for p in pieces]
        rows = [hidden[first : first + p.rows] for first, p in zip(firsts, pieces, strict=True)]
        logits = stage.logits(rows[0] if len(rows) == 1 else torch.cat(rows))
        for p, part in zip(pieces, logits.split([p.rows for p in pieces]), strict=True):
            answer = answers[p.step][0] or _empty(headers[p.step])
            answer.rows.extend(candidates(part, headers[p.step].ask, p.first))
            answers[p.step] = answer, part[-1].clone()
    return answers


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
