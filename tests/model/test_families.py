"""Every family's numbers against transformers': one Block, whose parts a config chooses."""

from __future__ import annotations

import pytest
import torch
import transformers
from families import FAMILIES

from swarm.bits import Bits
from swarm.config import ModelConfig, Sizes
from swarm.model.experts import LocalExperts

TOKENS = torch.randint(0, 96, (45,), generator=torch.Generator().manual_seed(1)).tolist()


def answers(swarm, chunks: list[int]) -> torch.Tensor:
    swarm.reserve(b"s", len(TOKENS))
    got, at = [], 0
    for chunk in chunks:
        got.append(swarm.step((b"s", at, TOKENS[at : at + chunk])))
        at += chunk
    return torch.cat(got)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_agrees_with_transformers_in_prefill_chunks_and_cached_decode(family, swarm_of, name) -> None:
    oracle, weights = family(name)
    want = oracle(TOKENS)
    assert want.std() > 0.1
    for chunks in ([45], [7, 1, 20, 2, 15], [30, *[1] * 15]):
        torch.testing.assert_close(answers(swarm_of(weights, [4]), chunks), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_the_same_bits_on_three_stages_and_with_experts_elsewhere(family, swarm_of, far_experts, name) -> None:
    _, weights = family(name)
    want = answers(swarm_of(weights, [4]), [20, 1, 24])
    far, local = far_experts(weights.experts), LocalExperts(weights.experts)
    assert torch.equal(answers(swarm_of(weights, [1, 3, 4]), [20, 1, 24]), want)
    for port in (lambda b, e: far if (b + e) % 2 else local, lambda b, e: far):
        assert torch.equal(answers(swarm_of(weights, [1, 3, 4], port), [20, 1, 24]), want)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_stays_close_in_bf16(family, swarm_of, name) -> None:
    oracle, weights = family(name)
    half = type(weights).of(weights.folder, torch.bfloat16)
    got = answers(swarm_of(half, [4]), [20, 1, 24])
    assert (got - oracle(TOKENS)).abs().mean() < 0.2


@pytest.mark.parametrize("dtype", ["int8", "int4/32+attention=int8+down=int8/16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_still_answers_in_few_bits(family, swarm_of, name, dtype) -> None:
    oracle, weights = family(name)
    few = type(weights).of(weights.folder, torch.bfloat16, Bits.of(dtype))
    want, got = oracle(TOKENS), answers(swarm_of(few, [1, 4]), [20, 1, 24])
    assert torch.corrcoef(torch.stack((want.flatten(), got.flatten())))[0, 1] > 0.9, "another model would be at 0"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_part_of_every_family_weighs_what_is_planned(family, name) -> None:
    _, weights = family(name)
    sizes, config = Sizes(weights.config, "fp32"), weights.config
    assert {e.num_bytes for e in weights.experts.values()} == {sizes.expert}
    assert [core.num_bytes for core in weights.cores] == [sizes.core(block) for block in range(4)]
    assert [b for b in range(4) if (b, 0) not in weights.experts] == list(config.experts.dense_blocks)
    assert (weights.embedding.nbytes, weights.head.num_bytes) == (sizes.embedding, sizes.head)
    cache = weights.cache()
    assert cache.num_bytes == 4 * sizes.kv(cache.num_pages * cache.page_positions)


@pytest.mark.parametrize("name", ["Qwen2", "Qwen3", "Qwen2Moe", "GptOss"])
def test_windows_fall_where_transformers_puts_them_when_a_config_does_not_say(name: str) -> None:
    settings = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 3, "num_hidden_layers": 7}
    raw = getattr(transformers, f"{name}Config")(**settings).to_dict() | {"architectures": [f"{name}ForCausalLM"]}
    want = [16 if kind == "sliding_attention" else 0 for kind in raw.pop("layer_types")]
    assert list(ModelConfig.from_hf(raw).windows) == want
