"""Small checkpoints in both layouts, written by transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a random Mixtral into a folder: `fused` experts or not, in shards or not, in a dtype."""
    from transformers import MixtralConfig, MixtralForCausalLM

    def make(
        name: str = "model", dtype: torch.dtype = torch.bfloat16, fused: bool = False, shard: str = "1GB", **shape: Any
    ) -> Path:
        settings = {
            "vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 10, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None,
        }  # fmt: skip
        torch.manual_seed(0)
        model = MixtralForCausalLM(MixtralConfig(**(settings | shape))).to(dtype)
        model.save_pretrained(tmp_path / name, max_shard_size=shard, save_original_format=not fused)
        return tmp_path / name

    return make
