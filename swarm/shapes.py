"""Models whose shape is known without their files, for planning before anything is downloaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swarm.config import ModelConfig
from swarm.plan import Model
from swarm.weights.checkpoint import pickles_in

_8X7B = ModelConfig(
    architecture="MixtralForCausalLM",
    hidden=4096,
    ffn=14336,
    num_blocks=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    num_experts=8,
    top_k=2,
    vocab=32000,
    max_positions=32768,
    norm_eps=1e-5,
    rope_theta=1e6,
    tied_head=False,
    dtype="bf16",
    bos_id=1,
    eos_ids=(2,),
)
SHAPES = {
    "mixtral-8x7b": _8X7B,
    "mixtral-8x22b": replace(_8X7B, hidden=6144, ffn=16384, num_blocks=56, num_heads=48, max_positions=65536),
}
"""By the names that a person gives. Sources: arXiv 2401.04088, table 1, for 8x7B; Mistral's released config.json for 8x22B."""


def known_shape(model: str, dtype: str = "auto") -> Model | None:
    """A model by the name of its shape, or by a folder with a `config.json` and no weights; None where it is neither.

    Raises:
        ModelError: the folder's config cannot be used, see `ModelConfig.from_folder`.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if any(folder.glob("*.safetensors*")) or pickles_in(folder):
            return None  # its weights are looked at; pickles are refused there as they would be when it is loaded
        return _model(folder.resolve().name, str(folder.resolve()), ModelConfig.from_folder(folder), dtype)
    return _model(model, model, SHAPES[model], dtype) if model in SHAPES else None


def _model(name: str, source: str, config: ModelConfig, dtype: str) -> Model:
    return Model(name, source, "no weights", config.dtype if dtype == "auto" else dtype, config)
