"""Angles of far positions, and their scaling, against transformers'."""

from __future__ import annotations

import pytest
import torch
from released import RELEASED
from transformers import GptOssConfig, LlamaConfig, MixtralConfig, Qwen2Config
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from swarm.config import ModelConfig
from swarm.model.rope import Angles
from swarm.model.rows import Rows, Segment
from swarm.model.stage import NEAR, Stage

POSITIONS = torch.tensor([0, 1, 2047, 4095, 4096, 8191, 8192, 8193, 32767, 32768, 65535, 65536, 131071])
"""Around where Llama 3.1, gpt-oss and Mixtral 8x7B and 8x22B change or end."""
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def turned(config: ModelConfig, x: torch.Tensor) -> torch.Tensor:
    return Angles.of(POSITIONS, config.head_dim, config.rope_theta, config.rope).rotate(x)


def by_transformers(embedding: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    cos, sin = embedding(x, POSITIONS[None])
    first, second = x.chunk(2, -1)
    half = first.shape[-1]
    cos, sin = cos[0, :, None, :half], sin[0, :, None, :half]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


@pytest.mark.parametrize(
    ("raw", "oracle"),
    [
        ({"architectures": ["MixtralForCausalLM"], "rope_theta": 1e6}, MixtralConfig),
        (RELEASED["llama-3.1-8b"][0], LlamaConfig),
        (RELEASED["qwen2.5-7b"][0], Qwen2Config),
        (RELEASED["qwen2.5-7b"][0] | {"rope_scaling": YARN}, Qwen2Config),
        (RELEASED["qwen2.5-7b"][0] | {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.0}}, Qwen2Config),
        (RELEASED["qwen2.5-7b"][0] | {"rope_scaling": YARN | {"attention_factor": 1.5, "beta_fast": 16.0}}, Qwen2Config),
        (RELEASED["llama-2-7b"][0] | {"rope_scaling": {"type": "linear", "factor": 4.0}}, LlamaConfig),
        (RELEASED["gpt-oss-20b"][0], GptOssConfig),
    ],
    ids=["mixtral", "llama_3_1", "qwen2_5", "yarn", "yarn_mscale", "yarn_attention", "linear", "gpt_oss"],
)
def test_far_positions_are_turned_as_transformers_turns_them(raw, oracle) -> None:
    shape = {"hidden_size": 4096, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 32, "vocab_size": 9}
    raw = {"max_position_embeddings": 131072} | shape | {k: v for k, v in raw.items() if not k.startswith("num_hidden")}
    config = ModelConfig.from_hf(raw | {"num_hidden_layers": 1})
    theta = {"rope_theta": raw.get("rope_theta", 1e4)}
    named = {k: v for k, v in raw.items() if k not in ("architectures", "rope_theta", "rope_scaling")}
    parameters = {"rope_type": "default", **(raw.get("rope_scaling") or {}), **theta}
    parameters["rope_type"] = parameters.pop("type", parameters["rope_type"])
    made = oracle(**named, rope_parameters=parameters)
    embedding = (GptOssRotaryEmbedding if oracle is GptOssConfig else LlamaRotaryEmbedding)(made)
    x = torch.randn(len(POSITIONS), 2, config.head_dim, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned(config, x), by_transformers(embedding, x), atol=2e-6, rtol=0)


def test_angles_of_half_precision_rows_are_still_those_of_fp32() -> None:
    config = ModelConfig.from_hf(RELEASED["llama-3.1-8b"][0])
    x = torch.randn(len(POSITIONS), 2, 128, generator=torch.Generator().manual_seed(0))
    half = turned(config, x.bfloat16())
    assert torch.equal(half, turned(config, x.bfloat16().float()).bfloat16())


@pytest.mark.parametrize("family", ["llama-3.1-8b", "qwen2.5-7b", "gpt-oss-20b"])
def test_angles_that_are_looked_up_are_those_that_would_be_computed(family: str) -> None:
    config = ModelConfig.from_hf(RELEASED[family][0])
    stage = Stage(config, {})
    several = [Segment(b"a", 0, 1, 5), Segment(b"b", 1, 4, NEAR - 3), Segment(b"c", 4, 5, 0)]
    for segments in ([Segment(b"a", 0, 1, 0)], [Segment(b"a", 0, 1, NEAR - 1)], several, [Segment(b"a", 0, 3, NEAR - 2)]):
        rows = Rows.of(segments)
        found, wanted = stage._angles(rows), Angles.of(rows.positions, config.head_dim, config.rope_theta, config.rope)
        assert torch.equal(found.cos, wanted.cos) and torch.equal(found.sin, wanted.sin)
        assert found.cos.is_contiguous() and found.sin.is_contiguous()
