"""What the chats of the chaos ask: the answers cannot be changed by a rounding."""

from __future__ import annotations

import torch
from clear_questions import FEW_BITS_MARGIN, MARGIN, clear_questions, margins
from questions import questions
from transformers import MixtralForCausalLM

from swarm.weights.source import resolve

EVERY = 16


def test_the_best_two_logits_of_what_is_asked_are_as_far_apart_as_is_written_down() -> None:
    oracle = MixtralForCausalLM.from_pretrained(resolve("nano"), dtype=torch.float32).eval()
    for name, distances in margins().items():
        asked = list(zip(questions(name), distances, strict=True))
        for question, written in asked[::EVERY]:
            with torch.no_grad():
                logits = oracle(torch.tensor([question.prompt + question.answer])).logits[0, len(question.prompt) - 1 : -1]
            best = logits.topk(2).values
            assert logits.argmax(-1).tolist() == question.answer
            assert abs((best[:, 0] - best[:, 1]).min().item() - written) < 2e-4


def test_enough_is_clear_to_ask() -> None:
    for margin in (MARGIN, FEW_BITS_MARGIN):
        assert len(clear_questions(margin)) >= 40 and any(len(q.answer) >= 20 for q in clear_questions(margin))
    assert any(len(q.answer) > 100 for q in clear_questions()) and any(len(q.prompt) > 350 for q in clear_questions())
