"""What a model is (`ModelConfig`, from a Hugging Face `config.json`) and what its parts weigh.

Sizes are counted from the shapes alone, so a Plan can be made for a model whose weights are nowhere yet.
Everything here is in bytes; standard library only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from swarm.bits import NUMBER_BYTES, Bits
from swarm.errors import MissingWeights, ModelError, UnknownArchitecture

ARCHITECTURES = ("MixtralForCausalLM",)
DTYPE_BYTES = NUMBER_BYTES
QUANTIZED = ("int8", "int4")
"""Dtypes that matrices are kept in, beside numbers of 2 bytes."""
PLAN_DTYPES = (*DTYPE_BYTES, *QUANTIZED)
"""What a Plan may name."""
INT4_GROUP = 64
"""Weights along the input dimension that share a scale and a zero."""
LOGIT_ROWS = 64
"""Rows whose logits the last Stage makes at once."""
HF_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class ModelConfig:
    """One decoder's shape. Names follow the Mixtral paper (arXiv 2401.04088) where it has them."""

    architecture: str
    hidden: int
    ffn: int
    num_blocks: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int
    top_k: int
    vocab: int
    max_positions: int
    norm_eps: float
    rope_theta: float
    tied_head: bool
    dtype: str
    """The checkpoint's own dtype, one of `DTYPE_BYTES`."""
    bos_id: int
    eos_ids: tuple[int, ...]

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read `config.json` of a folder in Hugging Face layout.

        Raises:
            MissingWeights: there is no config.json.
            ModelError: it is no JSON, or lacks what a model needs.
            UnknownArchitecture: it names another architecture than those in `ARCHITECTURES`.
        """
        path = folder / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MissingWeights(f"{folder} has no config.json: give a folder in Hugging Face layout") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} is not JSON ({error}): fetch it again") from None
        if not isinstance(raw, dict):
            raise ModelError(f"{path} is not a JSON object: fetch it again")
        return cls.from_hf(raw, str(path))

    @classmethod
    def from_hf(cls, raw: dict[str, Any], where: str = "config.json") -> ModelConfig:
        """Build from a parsed `config.json`; see `from_folder` for what it raises."""
        names = raw.get("architectures")
        name = names[0] if isinstance(names, list) and names else "none"
        if name not in ARCHITECTURES:
            raise UnknownArchitecture(f"{where} names the architecture {name}; swarm knows {', '.join(ARCHITECTURES)}")
        if raw.get("sliding_window") is not None:
            raise UnknownArchitecture(f"{where} asks for a sliding window, which swarm does not have yet")
        if raw.get("hidden_act", "silu") != "silu":
            raise UnknownArchitecture(f"{where} asks for the activation {raw['hidden_act']}; swarm knows silu")
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            raise ModelError(f"{where} misstates its RoPE parameters: fetch it again")
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise UnknownArchitecture(f"{where} asks for RoPE scaling, which swarm does not have yet")
        try:
            heads = _positive(raw, "num_attention_heads")
            hidden = _positive(raw, "hidden_size")
            eos = raw.get("eos_token_id", 2)
            config = cls(
                architecture=name,
                hidden=hidden,
                ffn=_positive(raw, "intermediate_size"),
                num_blocks=_positive(raw, "num_hidden_layers"),
                num_heads=heads,
                num_kv_heads=_positive(raw, "num_key_value_heads", heads),
                head_dim=_positive(raw, "head_dim", hidden // heads),
                num_experts=_positive(raw, "num_local_experts", 8),
                top_k=_positive(raw, "num_experts_per_tok", 2),
                vocab=_positive(raw, "vocab_size"),
                max_positions=_positive(raw, "max_position_embeddings", 32768),
                norm_eps=float(raw.get("rms_norm_eps", 1e-5)),
                rope_theta=float(rope.get("rope_theta", raw.get("rope_theta", 1e6))),
                tied_head=bool(raw.get("tie_word_embeddings", False)),
                dtype=HF_DTYPES.get(raw.get("dtype") or raw.get("torch_dtype") or "bfloat16", "bf16"),
                bos_id=int(raw.get("bos_token_id", 1)),
                eos_ids=tuple(int(i) for i in (eos if isinstance(eos, list) else [eos])),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"{where} lacks or misstates {error}: fetch it again") from None
        if config.num_heads % config.num_kv_heads or config.top_k > config.num_experts or config.head_dim % 2:
            raise ModelError(f"{where} contradicts itself (heads, KV heads, head_dim or experts): fetch it again")
        return config

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_json`."""
        return cls(**{**raw, "eos_ids": tuple(raw["eos_ids"])})


def _positive(raw: dict[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key)
    if value is None:
        if default is None:
            raise KeyError(key)
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise ValueError(f"{key}={value!r}")
    return value


def number_bytes(dtype: str) -> int:
    """One number of a hidden state, a cache or an embedding, in a model of that dtype: matrices may be kept in fewer."""
    return NUMBER_BYTES[Bits.of(dtype).numbers]


@dataclass(frozen=True)
class Sizes:
    """What the parts of a model weigh, in bytes, once converted to a dtype.

    What the dtype means for each matrix, `swarm.bits` says.
    """

    config: ModelConfig
    dtype: str

    @property
    def element(self) -> int:
        """One number of what is never quantized."""
        return number_bytes(self.dtype)

    @property
    def hidden_element(self) -> int:
        """One number of a hidden state, as it crosses a Hop."""
        return number_bytes(self.dtype)

    @property
    def weight_element(self) -> float:
        """One weight of a matrix, on average over the experts, scales and zeros included."""
        return self.expert / (3 * self.config.hidden * self.config.ffn)

    @cached_property
    def bits(self) -> Bits:
        return Bits.of(self.dtype)

    @cached_property
    def expert(self) -> int:
        """One expert: w1 and w3 [F, H], w2 [H, F]."""
        c, bits = self.config, self.bits
        return 2 * bits.experts.matrix_bytes(c.ffn, c.hidden) + bits.down.matrix_bytes(c.hidden, c.ffn)

    @cached_property
    def block_core(self) -> int:
        """A Block without its experts: q, k, v, o, the router and two norms."""
        c, form = self.config, self.bits.attention
        qkv = form.matrix_bytes((c.num_heads + 2 * c.num_kv_heads) * c.head_dim, c.hidden)
        return qkv + form.matrix_bytes(c.hidden, c.num_heads * c.head_dim) + (c.num_experts + 2) * c.hidden * self.element

    @property
    def block(self) -> int:
        return self.block_core + self.config.num_experts * self.expert

    @property
    def embedding(self) -> int:
        return self.config.vocab * self.config.hidden * self.element

    @property
    def head(self) -> int:
        """The last norm and the output matrix (its own copy, also where it is tied to the embedding)."""
        return self.bits.head.matrix_bytes(self.config.vocab, self.config.hidden) + self.config.hidden * self.element

    @property
    def weights(self) -> int:
        """The whole model."""
        return self.embedding + self.config.num_blocks * self.block + self.head

    def kv(self, positions: int) -> int:
        """Keys and values of one Block for that many positions."""
        return 2 * self.config.num_kv_heads * self.config.head_dim * self.element * positions

    def workspace(self, rows: int, last: bool, context: int = 0) -> int:
        """What one micro-batch needs beside weights and KV: activations of one Block, and logits on the last Stage.

        Args:
            rows: rows of the micro-batch.
            last: whether the Stage has the head (its logits are made `LOGIT_ROWS` rows at a time, in fp32).
            context: positions that one Session may hold; keys and values gathered from scattered pages grow with it.
        """
        c = self.config
        qkv = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
        row = 8 * c.hidden + 2 * qkv + 3 * c.ffn + 2 * c.top_k * c.hidden
        logits = 2 * LOGIT_ROWS * c.vocab * 4 if last else 0
        return rows * row * 4 + 2 * self.kv(context) + logits
