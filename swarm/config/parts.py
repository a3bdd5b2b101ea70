"""Parts of a Block that a family of models chooses. What Mixtral has is the default; standard library only."""

from __future__ import annotations

from dataclasses import dataclass

ROPES = ("default", "linear", "llama3", "yarn")
ACTIVATIONS = ("silu",)
"""As `hidden_act` of a config.json spells them."""
NORMS = ("rms", "layer")
MOST_BLOCKS = 10_000
"""More than any model has, of Blocks or of experts: lists of one entry each stay small whatever a file says."""


@dataclass(frozen=True)
class RopeScaling:
    """How the angles of positions are scaled for contexts longer than those first trained on.

    Args:
        kind: one of `ROPES`. linear: all frequencies over `factor`. llama3: low ones over `factor`, high ones as they are, those
            between blended (Llama 3.1). yarn: the same idea by rotations, and `attention` on top (arXiv 2309.00071).
        original: positions trained on at first.
        low, high: llama3: its low and high frequency factors. yarn: beta_slow and beta_fast, in rotations.
        attention: what cos and sin are multiplied by.
        truncate: yarn: whether the blended range is widened to whole dimensions.
    """

    kind: str = "default"
    factor: float = 1.0
    original: int = 0
    low: float = 1.0
    high: float = 1.0
    attention: float = 1.0
    truncate: bool = True


@dataclass(frozen=True)
class AttentionParts:
    """What an attention has beside q, k, v and o.

    Args:
        qkv_bias, out_bias: biases of the products.
        qk_norm: queries and keys pass an RMSNorm over each head before they are turned.
        sinks: each head has a logit of its own that takes a share of the softmax and has no value.
        clip: q, k and v are clamped to minus and plus this; 0: not.
    """

    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    sinks: bool = False
    clip: float = 0.0


@dataclass(frozen=True)
class Activation:
    """What is between an expert's two products: `silu(gate) * up`, or the clamped one of gpt-oss.

    Args:
        limit: gate is cut at this and up at minus and plus this; then `gate * sigmoid(alpha * gate) * (up + 1)`; 0: silu.
    """

    limit: float = 0.0
    alpha: float = 1.0


@dataclass(frozen=True)
class ExpertParts:
    """What a mixture of experts has beside its router and its experts' three matrices.

    Args:
        norm: chosen weights are divided by their p-norm of this p; 0: they are left as the softmax over all experts has them.
        router_bias: the router adds a bias.
        bias: so do the experts' products.
        shared_ffn: width of the expert that all rows meet beside the chosen ones, in a Block's core; 0: there is none.
        shared_gate: its output is weighted by a sigmoid of its own.
        dense_ffn: width of the MLP that some Blocks have instead of experts, in their core.
        dense_blocks: those Blocks, ascending.
    """

    norm: float = 1.0
    router_bias: bool = False
    bias: bool = False
    shared_ffn: int = 0
    shared_gate: bool = False
    dense_ffn: int = 0
    dense_blocks: tuple[int, ...] = ()
