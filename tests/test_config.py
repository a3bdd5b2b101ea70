"""What a config.json says, what a model weighs, and what is said to the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.bits import Form
from swarm.config import LOGIT_ROWS, ModelConfig, Sizes
from swarm.errors import MissingWeights, ModelError, UnknownArchitecture
from swarm.shapes import SHAPES, known_shape

# As released (config.json of mistralai/Mixtral-8x7B-v0.1 and mistralai/Mixtral-8x22B-v0.1).
MIXTRAL_8X7B: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}
MIXTRAL_8X22B = MIXTRAL_8X7B | {
    "hidden_size": 6144,
    "intermediate_size": 16384,
    "max_position_embeddings": 65536,
    "num_attention_heads": 48,
    "num_hidden_layers": 56,
}
NANO = Path(__file__).parent.parent / "swarm/models/nano-mixtral"


def weights(sizes: Sizes) -> int:
    return sizes.embedding + sizes.config.num_blocks * sizes.block + sizes.head


def test_mixtral_8x7b_has_46_7_billion_parameters_in_93_gb() -> None:
    sizes = Sizes(ModelConfig.from_hf(MIXTRAL_8X7B), "bf16")
    assert weights(sizes) // 2 == 46_702_792_704
    assert weights(sizes) / 1e9 == pytest.approx(93.4, abs=0.05)
    assert sizes.block / 1e9 == pytest.approx(2.9, abs=0.05)
    assert sizes.expert == 352_321_536
    active = weights(sizes) - 32 * 6 * sizes.expert
    assert active / 2e9 == pytest.approx(12.9, abs=0.05)


def test_mixtral_8x22b_has_140_6_billion_parameters() -> None:
    sizes = Sizes(ModelConfig.from_hf(MIXTRAL_8X22B), "bf16")
    assert weights(sizes) // 2 == 140_620_634_112
    assert ModelConfig.from_hf(MIXTRAL_8X22B).head_dim == 128


def test_nano_weighs_what_its_file_holds() -> None:
    config = ModelConfig.from_folder(NANO)
    assert abs(weights(Sizes(config, "bf16")) - (NANO / "model.safetensors").stat().st_size) < 64 * 1024
    assert (config.num_blocks, config.num_experts, config.top_k, config.max_positions) == (8, 8, 2, 4096)


def test_fp32_weighs_twice_bf16_and_fp16_the_same() -> None:
    config = ModelConfig.from_hf(MIXTRAL_8X7B)
    half, full = Sizes(config, "bf16"), Sizes(config, "fp32")
    assert (full.block, full.expert, full.kv(100)) == (2 * half.block, 2 * half.expert, 2 * half.kv(100))
    assert Sizes(config, "fp16").block == half.block


def test_a_session_of_32k_costs_a_block_128_mib_of_kv() -> None:
    assert Sizes(ModelConfig.from_hf(MIXTRAL_8X7B), "bf16").kv(32768) == 128 * 2**20


def test_workspace_grows_with_rows_and_context_and_the_last_stage_adds_its_logits() -> None:
    sizes = Sizes(ModelConfig.from_hf(MIXTRAL_8X7B), "bf16")
    assert sizes.workspace(2, False) == 2 * sizes.workspace(1, False)
    assert sizes.workspace(1, False, 100) - sizes.workspace(1, False) == 2 * sizes.kv(100)
    assert sizes.workspace(1, True) - sizes.workspace(1, False) >= LOGIT_ROWS * 32000 * 4


def test_a_config_survives_json() -> None:
    config = ModelConfig.from_hf(MIXTRAL_8X7B | {"eos_token_id": [2, 32001]})
    assert config.eos_ids == (2, 32001)
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_what_a_config_leaves_out_has_mixtrals_own_defaults() -> None:
    keys = ("architectures", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    config = ModelConfig.from_hf({key: MIXTRAL_8X7B[key] for key in keys})
    assert (config.num_experts, config.top_k, config.rope_theta, config.norm_eps) == (8, 2, 1e6, 1e-5)
    assert (config.num_kv_heads, config.head_dim, config.dtype) == (32, 128, "bf16")


def test_rope_theta_is_read_where_older_and_newer_files_have_it() -> None:
    assert ModelConfig.from_hf(MIXTRAL_8X7B | {"rope_theta": 5e5}).rope_theta == 5e5
    newer = {k: v for k, v in MIXTRAL_8X7B.items() if k != "rope_theta"} | {
        "rope_parameters": {"rope_theta": 2e6, "rope_type": "default"}
    }
    assert ModelConfig.from_hf(newer).rope_theta == 2e6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architectures": ["BertModel"]}, "BertModel"),
        ({"architectures": None}, "none"),
        ({"architectures": []}, "none"),
        ({"architectures": [["MixtralForCausalLM"]]}, "MixtralForCausalLM, MistralForCausalLM, LlamaForCausalLM"),
        ({"hidden_act": "gelu"}, "activation gelu; swarm knows silu"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4}}, "longrope; swarm knows default, linear, llama3, yarn"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4}}, "dynamic"),
        ({"partial_rotary_factor": 0.5}, "part of each head"),
    ],
)
def test_an_architecture_that_the_block_does_not_cover_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownArchitecture, match=says):
        ModelConfig.from_hf(MIXTRAL_8X7B | change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"num_hidden_layers": 2**40}, "num_hidden_layers"),
        ({"num_key_value_heads": 5}, "contradicts"),
        ({"num_experts_per_tok": 9}, "contradicts"),
        ({"head_dim": 33}, "contradicts"),
        ({"eos_token_id": "x"}, "fetch it again"),
        ({"rms_norm_eps": "x"}, "fetch it again"),
    ],
)
def test_a_config_that_lacks_or_contradicts_is_refused_by_the_key(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        ModelConfig.from_hf(MIXTRAL_8X7B | change, "m/config.json")


def test_a_folder_without_a_readable_config_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"config\.json"):
        ModelConfig.from_folder(tmp_path)
    for garbage in (b"{", b"[]", b"\xff\xfe\x00", b"3"):
        (tmp_path / "config.json").write_bytes(garbage)
        with pytest.raises(ModelError, match=str(tmp_path)):
            ModelConfig.from_folder(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*sorted(MIXTRAL_8X7B), "rope_parameters", "rope_scaling", "dtype", "head_dim"]), json_values)
def test_no_value_of_any_key_ends_in_anything_but_a_config_or_a_model_error(key: str, value: Any) -> None:
    try:
        assert ModelConfig.from_hf(MIXTRAL_8X7B | {key: value}).num_blocks > 0
    except ModelError as error:
        assert "config.json" in str(error)


@pytest.mark.parametrize(("dtype", "gigabytes"), [("bf16", 93.4), ("fp16", 93.4), ("fp32", 186.8), ("int8", 46.9), ("int4", 26.5)])
def test_8x7b_weighs_what_is_published_in_every_dtype(dtype: str, gigabytes: float) -> None:
    assert Sizes(SHAPES["mixtral-8x7b"], dtype).weights / 1e9 == pytest.approx(gigabytes, abs=0.1)


def test_a_quantized_matrix_has_its_codes_and_its_scales_and_pads_what_does_not_fill_a_group() -> None:
    config = SHAPES["mixtral-8x7b"]
    assert Form("int8").matrix_bytes(10, 4096) == 10 * (4096 + 2)
    assert Form("int4", 64).matrix_bytes(10, 4096) == 10 * (2048 + 64 * 4)
    assert Form("int4", 64).matrix_bytes(1, 65) == 33 + 2 * 4
    assert Sizes(config, "int4").weight_element == 0.5625


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_what_is_not_a_matrix_is_never_quantized(dtype: str) -> None:
    quantized, half = Sizes(SHAPES["mixtral-8x7b"], dtype), Sizes(SHAPES["mixtral-8x7b"], "bf16")
    assert (quantized.embedding, quantized.hidden_element, quantized.kv(7)) == (half.embedding, half.hidden_element, half.kv(7))
    assert quantized.workspace(3, True, 100) == half.workspace(3, True, 100)
    router_and_norms = 10 * 4096 * 2
    attention = quantized.block_core - router_and_norms
    assert attention < 0.51 * (half.block_core - router_and_norms)


@pytest.mark.parametrize(("name", "released"), [("mixtral-8x7b", MIXTRAL_8X7B), ("mixtral-8x22b", MIXTRAL_8X22B)])
def test_a_known_shape_is_that_of_the_released_config(name: str, released: dict[str, Any], tmp_path: Path) -> None:
    assert SHAPES[name] == ModelConfig.from_hf(released)
    known = known_shape(name, "int4")
    assert known is not None and (known.name, known.dtype, known.config) == (name, "int4", SHAPES[name])
    (tmp_path / "config.json").write_text(json.dumps(released))
    alone = known_shape(str(tmp_path))
    assert alone is not None and (alone.name, alone.dtype, alone.config) == (tmp_path.name, "bf16", SHAPES[name])


def test_a_folder_with_weights_or_a_hub_id_is_no_mere_shape() -> None:
    assert known_shape(str(NANO)) is None
    assert known_shape("mistralai/Mixtral-8x7B-v0.1") is None
