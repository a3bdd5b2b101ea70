"""What a model is, from a Hugging Face `config.json`, and what its parts weigh. Standard library only."""

from __future__ import annotations

from swarm.config.families import ARCHITECTURES, HF_DTYPES
from swarm.config.model import ModelConfig
from swarm.config.own_codes import AGAIN, OwnCodes, fits, said_again
from swarm.config.parts import Activation, AttentionParts, ExpertParts, RopeScaling
from swarm.config.sizes import (
    KV_DTYPES,
    KV_WAYS,
    LOGIT_ROWS,
    SINK_ROWS,
    Sizes,
    kv_dtype,
    number_bytes,
)

__all__ = [
    "AGAIN",
    "ARCHITECTURES",
    "HF_DTYPES",
    "KV_DTYPES",
    "KV_WAYS",
    "LOGIT_ROWS",
    "SINK_ROWS",
    "Activation",
    "AttentionParts",
    "ExpertParts",
    "ModelConfig",
    "OwnCodes",
    "RopeScaling",
    "Sizes",
    "fits",
    "kv_dtype",
    "number_bytes",
    "said_again",
]
