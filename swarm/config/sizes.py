"""What the parts of a model weigh, in bytes, counted from the shapes alone: a Plan can be made for weights that are nowhere yet.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from swarm.bits import NUMBER_BYTES, Bits
from swarm.config.model import ModelConfig
from swarm.errors import UsageError

LOGIT_ROWS = 64
"""Rows whose logits the last Stage makes at once."""
SINK_ROWS = 16
"""Rows that attend at once where attention has sinks: torch has no kernel that takes them, so each score has a bias in memory."""
KV_DTYPES = ("", "int8")
"""How keys and values are kept: empty: as numbers of the dtype that is computed in."""
KV_WAYS = {"full": "", "int8": "int8"}
"""What --kv takes, and which of `KV_DTYPES` it means."""


def kv_dtype(way: str) -> str:
    """Which of `KV_DTYPES` is meant by what --kv was given. Raises UsageError."""
    if way not in KV_WAYS:
        raise UsageError(f"--kv {way} is not known: give {' or '.join(KV_WAYS)}")
    return KV_WAYS[way]


def number_bytes(dtype: str) -> int:
    """One number of a hidden state, a cache or an embedding, in a model of that dtype: matrices may be kept in fewer."""
    return NUMBER_BYTES[Bits.of(dtype).numbers]


@dataclass(frozen=True)
class Sizes:
    """What the parts of a model weigh, in bytes, once converted to a dtype.

    What the dtype means for each matrix, `swarm.bits` says. `core`, `weights` and what a Plan writes down for a Worker are exact.
    While a Plan is decided all Blocks count as equal, so that any of them may be anywhere: `block_core` and `block`. Where only
    the first has a dense MLP instead of experts, what it has more than the others is counted beside the embedding, which is always
    with it (`first_more`), and it counts as if it had experts too: for DeepSeek-MoE 16B 1.1 GB in bf16 beside the 32.8 that it
    has. Where others are dense, every core counts as the larger kind. So what is decided never takes more than was counted.

    Args:
        kv_dtype: one of `KV_DTYPES`.
    """

    config: ModelConfig
    dtype: str
    kv_dtype: str = ""

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
        """One expert: w1 and w3 [F, H], w2 [H, F], and their biases."""
        c = self.config
        return self._mlp(c.ffn) + c.experts.bias * (2 * c.ffn + c.hidden) * self.element

    def _mlp(self, ffn: int) -> int:
        hidden, bits = self.config.hidden, self.bits
        return 2 * bits.experts.matrix_bytes(ffn, hidden) + bits.down.matrix_bytes(hidden, ffn)

    @cached_property
    def block_core(self) -> int:
        """A Block without its experts: attention, two norms, router and shared expert; see above for dense ones."""
        beside = self._beside_experts if self.dense_first else max(self._beside_experts, self._mlp(self.config.experts.dense_ffn))
        return self._attention + 2 * self.config.hidden * self.element + beside

    @cached_property
    def first_more(self) -> int:
        """What Block 0 without its experts weighs beside `block_core`: a dense MLP is larger than a shared expert."""
        return max(0, self._mlp(self.config.experts.dense_ffn) - self._beside_experts) if self.dense_first else 0

    def core(self, block: int) -> int:
        """That Block without its experts, to the byte; its dense MLP where it has one instead."""
        dense = block in self.config.experts.dense_blocks
        beside = self._mlp(self.config.experts.dense_ffn) if dense else self._beside_experts
        return self._attention + 2 * self.config.hidden * self.element + beside

    @property
    def dense_first(self) -> bool:
        """Whether Block 0, and no other, has a dense MLP in place of experts."""
        return self.config.experts.dense_blocks == (0,)

    @property
    def _beside_experts(self) -> int:
        """Router, and the shared expert with its gate."""
        c, parts = self.config, self.config.experts
        router = (c.num_experts * (c.hidden + parts.router_bias) + parts.shared_gate * c.hidden) * self.element
        return router * c.routed + self._mlp(parts.shared_ffn)

    @property
    def _attention(self) -> int:
        c, form, parts = self.config, self.bits.attention, self.config.attention
        heads, seen = c.num_heads * c.head_dim, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
        small = parts.qkv_bias * seen + parts.out_bias * c.hidden + parts.qk_norm * 2 * c.head_dim + parts.sinks * c.num_heads
        return form.matrix_bytes(seen, c.hidden) + form.matrix_bytes(c.hidden, heads) + small * self.element

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
        """The whole model, to the byte."""
        blocks = (self.core(b) + self.config.experts_in(b) * self.expert for b in range(self.config.num_blocks))
        return self.embedding + sum(blocks) + self.head

    def kv(self, positions: int) -> int:
        """Keys and values of one Block for that many positions: also of those that a sliding window has left behind."""
        head = self.config.head_dim + self.element if self.kv_dtype == "int8" else self.config.head_dim * self.element
        return 2 * self.config.num_kv_heads * head * positions

    def workspace(self, rows: int, last: bool, context: int = 0) -> int:
        """What one micro-batch needs beside weights and KV: activations of one Block, and logits on the last Stage.

        Args:
            rows: rows of the micro-batch.
            last: whether the Stage has the head (its logits are made `LOGIT_ROWS` rows at a time, in fp32).
            context: positions that one Session may hold; keys and values gathered from scattered pages, or made of int8, grow
                with it, and so do the scores of attention with sinks.
        """
        c = self.config
        qkv = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
        ffn = max(c.ffn, c.experts.shared_ffn, c.experts.dense_ffn)
        row = 8 * c.hidden + 2 * qkv + 3 * ffn + 2 * c.top_k * c.hidden
        logits = 2 * LOGIT_ROWS * c.vocab * 4 if last else 0
        gathered = 2 * 2 * c.num_kv_heads * c.head_dim * self.element
        scores = 3 * SINK_ROWS * c.num_heads * 4 if c.attention.sinks else 0
        return rows * row * 4 + (gathered + scores) * context + logits
