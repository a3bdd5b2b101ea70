"""Numbers against transformers' Mixtral, and the embedded model's recorded answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

DATA = Path(__file__).parent.parent / "data"
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "head_dim_not_hidden_over_heads": {"head_dim": 6, "hidden_size": 20, "intermediate_size": 28},
    "one_kv_head": {"num_key_value_heads": 1, "num_attention_heads": 3, "head_dim": 10},
    "eight_kv_heads": {"num_key_value_heads": 8, "num_attention_heads": 8},
    "sixteen_experts_top_4": {"num_local_experts": 16, "num_experts_per_tok": 4},
    "four_experts_top_1": {"num_local_experts": 4, "num_experts_per_tok": 1},
    "every_expert": {"num_local_experts": 4, "num_experts_per_tok": 4},
    "tied_head": {"tie_word_embeddings": True},
    "theta_1e6": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
}


def tokens_of(count: int, seed: int = 1, vocab: int = 96) -> list[int]:
    return torch.randint(0, vocab, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def expected(oracle: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return oracle(torch.tensor([tokens])).logits[0]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_agree_with_transformers_in_prefill_and_cached_decode_of_any_chunks(random_model, swarm_of, shape) -> None:
    oracle, weights = random_model(**shape)
    tokens = tokens_of(45)
    want = expected(oracle, tokens)
    for chunks in ([45], [45 - 3, 1, 1, 1], [7, 1, 20, 2, 15]):
        swarm = swarm_of(weights, [weights.config.num_blocks])
        swarm.reserve(b"s", 45)
        got, at = [], 0
        for chunk in chunks:
            got.append(swarm.step((b"s", at, tokens[at : at + chunk])))
            at += chunk
        torch.testing.assert_close(torch.cat(got), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_greedy_tokens_are_those_of_transformers(random_model, swarm_of, shape) -> None:
    oracle, weights = random_model(**shape, seed=3)
    prompt = tokens_of(9, seed=2)
    want = oracle.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert swarm_of(weights, [3]).greedy(b"s", prompt, 16) == want[0, 9:].tolist()


def test_sessions_and_chunks_in_one_call_agree_with_each_alone(random_model, swarm_of) -> None:
    oracle, weights = random_model()
    texts = {b"a": tokens_of(30, 1), b"b": tokens_of(41, 2), b"c": tokens_of(12, 3)}
    want = {name: expected(oracle, tokens) for name, tokens in texts.items()}
    swarm = swarm_of(weights, [2, 3])
    for name, tokens in texts.items():
        swarm.reserve(name, len(tokens))
    at = dict.fromkeys(texts, 0)
    for call in ({b"a": 17}, {b"a": 1, b"b": 23}, {b"b": 1, b"c": 12, b"a": 1}, {b"a": 11, b"b": 17}):
        steps = [(name, at[name], texts[name][at[name] : at[name] + count]) for name, count in call.items()]
        got, row = swarm.step(*steps), 0
        for name, position, tokens in steps:
            part = want[name][position : position + len(tokens)]
            torch.testing.assert_close(got[row : row + len(tokens)], part, atol=1e-4, rtol=0)
            row += len(tokens)
            at[name] += len(tokens)
    assert at == {name: len(tokens) for name, tokens in texts.items()}


def test_long_positions_are_turned_as_transformers_turns_them(random_model, swarm_of) -> None:
    oracle, weights = random_model(max_position_embeddings=32768)
    tokens = tokens_of(500)
    swarm = swarm_of(weights, [3])
    swarm.reserve(b"s", 500)
    got = torch.cat([swarm.step((b"s", at, tokens[at : at + 125])) for at in range(0, 500, 125)])
    torch.testing.assert_close(got, expected(oracle, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_to_fp32(random_model, swarm_of, tmp_path, dtype) -> None:
    oracle, weights = random_model()
    half = type(weights).of(tmp_path, dtype)
    swarm = swarm_of(half, [3])
    swarm.reserve(b"s", 32)
    tokens = tokens_of(32)
    error = (swarm.step((b"s", 0, tokens)) - expected(oracle, tokens)).abs().mean()
    assert error < (0.2 if dtype == torch.bfloat16 else 0.03)


def test_the_embedded_model_answers_as_recorded(nano, swarm_of) -> None:
    swarm = swarm_of(nano(torch.float32), [8])
    questions = lines("eval.jsonl")[::6]
    assert len(questions) >= 39
    for number, question in enumerate(questions):
        session = number.to_bytes(16, "big")
        answer = swarm.greedy(session, question["prompt_tokens"], 64, eos=2)
        assert answer == question["reference_tokens"], question["prompt"]
        swarm.caches[0].release(session)


def test_long_prompts_in_chunks_and_long_answers_come_out_as_recorded(nano, swarm_of) -> None:
    weights = nano(torch.float32)
    for number, line in enumerate([*lines("passkey.jsonl")[3::7], lines("stories.jsonl")[0]]):
        prompt, session = line["prompt_tokens"], number.to_bytes(16, "big")
        swarm = swarm_of(weights, [3, 8])
        swarm.caches = [weights.cache(pages=45, page_positions=32) for _ in swarm.caches]
        swarm.reserve(session, len(prompt) + 110)
        for at in range(0, len(prompt), 256):
            best = int(swarm.step((session, at, prompt[at : at + 256]))[-1].argmax())
        answer = [best]
        while answer[-1] != 2 and len(answer) < len(line["reference_tokens"]):
            answer.append(int(swarm.step((session, len(prompt) + len(answer) - 1, answer[-1:]))[-1].argmax()))
        assert answer == line["reference_tokens"], line["prompt"][-80:]
