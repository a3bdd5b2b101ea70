"""The recorded questions that no rounding can change: at each token of the answer, the best two logits are far apart.

`tests/data/clear.json` has the least distance for each recorded question, computed by transformers in fp32.
"""

from __future__ import annotations

import json
from functools import cache

from questions import DATA, Question, questions

MARGIN = 1e-3
FEW_BITS_MARGIN = 2.0
"""Weights in int8 move the logits; who is this far ahead stays so."""


def margins() -> dict[str, list[float]]:
    """By file, the least distance of each line; below 0 where the recorded token is not the best."""
    found: dict[str, list[float]] = json.loads((DATA / "clear.json").read_text(encoding="utf-8"))
    return found


@cache
def clear_questions(margin: float = MARGIN) -> tuple[Question, ...]:
    """Those further apart than a margin and worth asking: 12 tokens or more."""
    found = [
        question
        for name, distances in margins().items()
        for question, distance in zip(questions(name), distances, strict=True)
        if distance > margin and len(question.answer) >= 12 and len(question.prompt) <= 400
    ]
    return tuple(found)
