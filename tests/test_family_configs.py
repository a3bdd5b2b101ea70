"""What the config.json of each family says, read without torch."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from released import RELEASED

from swarm.config import ARCHITECTURES, Activation, AttentionParts, ModelConfig, RopeScaling, Sizes
from swarm.errors import ModelError, PlacementError, UnknownArchitecture
from swarm.plan import Model, Plan, Route, Stage, WorkerSpec


def config(name: str, **change: Any) -> ModelConfig:
    return ModelConfig.from_hf(RELEASED[name][0] | change)


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_have_the_parameters_they_are_published_with(name: str) -> None:
    assert Sizes(config(name), "bf16").weights // 2 == RELEASED[name][1]


@pytest.mark.parametrize("name", RELEASED)
def test_every_familys_config_survives_json(name: str) -> None:
    one = config(name)
    assert ModelConfig.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_a_config_of_an_older_plan_has_mixtrals_parts() -> None:
    keys = ("rope", "attention", "windows", "experts", "activation", "norm")
    older = {k: v for k, v in config("llama-2-7b").to_json().items() if k not in keys}
    assert ModelConfig.from_json(older) == config("llama-2-7b")
    assert config("llama-2-7b").attention == AttentionParts()


def test_parts_are_those_of_the_released_models() -> None:
    assert set(config("mistral-7b-v0.1").windows) == {4096}
    assert config("qwen2.5-7b").windows == () and config("qwen2.5-7b").attention.qkv_bias
    assert config("llama-3.1-8b").rope == RopeScaling("llama3", 8.0, 8192, 1.0, 4.0)
    assert config("llama-3.1-8b").eos_ids == (128001, 128008, 128009)
    assert config("qwen3-30b-a3b").attention == AttentionParts(qk_norm=True)
    qwen = config("qwen1.5-moe-a2.7b")
    assert (qwen.ffn, qwen.experts.shared_ffn, qwen.experts.shared_gate, qwen.experts.norm) == (1408, 5632, True, 0.0)
    oss = config("gpt-oss-20b")
    assert oss.windows[:4] == (128, 0, 128, 0) and oss.attention.sinks and oss.activation == Activation(7.0, 1.702)
    assert oss.rope.truncate is False and oss.rope.attention == pytest.approx(1.3466, abs=1e-4)
    dbrx = config("dbrx")
    assert (dbrx.norm, dbrx.attention.clip, dbrx.rope_theta, dbrx.experts.norm) == ("layer", 8.0, 5e5, 1.0)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("llama-2-7b", {"architectures": ["LlamaForQuestionAnswering"]}, ARCHITECTURES[-1]),
        ("llama-2-7b", {"hidden_act": "gelu"}, "activation gelu; swarm knows silu"),
        ("llama-2-7b", {"mlp_bias": True}, "biases in its MLP"),
        ("llama-2-7b", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic; swarm knows default"),
        ("deepseek-moe-16b", {"scoring_func": "sigmoid"}, "router sigmoid"),
        ("dbrx", {"ffn_config": {"ffn_hidden_size": 8, "ffn_act_fn": {"name": "gelu"}}}, "gelu"),
        ("gpt-oss-20b", {"layer_types": ["chunked_attention"] * 24}, "layer_types"),
    ],
)
def test_a_part_that_no_block_has_is_refused_by_name(name: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownArchitecture, match=says):
        config(name, **change)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("qwen3-30b-a3b", {"num_experts": None}, "num_local_experts"),
        ("qwen3-30b-a3b", {"num_experts_per_tok": 129}, "contradicts"),
        ("deepseek-moe-16b", {"n_routed_experts": -1}, "n_routed_experts"),
        ("dbrx", {"ffn_config": 3}, "ffn_config"),
        ("dbrx", {"d_model": None}, "hidden_size"),
        ("llama-3.1-8b", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ("llama-3.1-8b", {"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "factor"),
    ],
)
def test_a_family_config_that_lacks_or_misstates_is_refused_by_the_key(name: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        config(name, **change)


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=3)
keys = sorted({key for raw, _ in RELEASED.values() for key in raw} | {"rope_parameters", "layer_types", "swiglu_alpha"})


@given(st.sampled_from(sorted(RELEASED)), st.sampled_from(keys), json_values | st.dictionaries(st.sampled_from(keys), json_values))
def test_whatever_a_familys_config_says_it_is_read_or_refused(name: str, key: str, value: Any) -> None:
    try:
        assert config(name, **{key: value}).num_blocks > 0
    except ModelError as error:
        assert "config.json" in str(error)


@pytest.mark.parametrize(
    "change", [{"num_kv_heads": 0}, {"windows": (3,)}, {"norm": "batch"}, {"rope": RopeScaling("spiral")}, {"top_k": 0}]
)
def test_a_plan_whose_shape_cannot_be_is_refused(change: dict[str, Any]) -> None:
    model = Model("x", "x", "id", "bf16", config("llama-2-7b"))
    worker = WorkerSpec("w0", "here", "cpu", "127.0.0.1:7700", 2**40)
    plan = Plan(1, model, (worker,), (Route((Stage("w0", 0, 32),)),))
    assert Plan.from_json(plan.to_json()) == plan
    broken = replace(plan, model=replace(model, config=replace(model.config, **change)))
    with pytest.raises(PlacementError, match="shape contradicts itself"):
        Plan.from_json(broken.to_json())


def test_a_plan_says_how_keys_and_values_are_kept_and_an_older_one_means_as_numbers() -> None:
    model = Model("x", "x", "id", "bf16", config("llama-2-7b"), "int8")
    worker = WorkerSpec("w0", "here", "cpu", "127.0.0.1:7700", 2**40)
    plan = Plan(1, model, (worker,), (Route((Stage("w0", 0, 32),)),))
    assert Plan.from_json(plan.to_json()) == plan
    raw = json.loads(plan.to_json())
    del raw["model"]["kv"]
    assert Plan.from_json(json.dumps(raw)).model.kv == ""
    raw["model"]["kv"] = "int3"
    with pytest.raises(PlacementError, match="to be kept as int3; known: int8"):
        Plan.from_json(json.dumps(raw))
