"""What a `config.json` says of RoPE, where older and newer files say it. Standard library only."""

from __future__ import annotations

from math import log

from swarm.config.parts import ROPES, RopeScaling
from swarm.config.raw import Raw
from swarm.errors import UnknownArchitecture


def read_rope(raw: Raw, theta: float, positions: int) -> tuple[float, RopeScaling]:
    """Theta, and how it is scaled.

    Args:
        theta: what the family has where the file says nothing.
        positions: the model's own limit.

    Raises:
        UnknownArchitecture: a kind of scaling that is not in `ROPES`, or heads that are turned in part only.
        ModelError: a value that cannot be.
    """
    rope = raw.part("rope_parameters" if raw.has("rope_parameters") else "rope_scaling")
    kind = rope.text("rope_type", rope.text("type", "default"))
    if kind not in ROPES:
        raise UnknownArchitecture(f"{raw.where} asks for the RoPE scaling {kind}; swarm knows {', '.join(ROPES)}")
    for one in (raw, rope):
        if one.number("partial_rotary_factor", 1.0) != 1.0:
            raise UnknownArchitecture(f"{raw.where} turns only a part of each head, which swarm does not have")
    base = rope.number("rope_theta", raw.number("rope_theta", theta))
    if base <= 1:
        raise raw.misstated(f"rope_theta={base}")
    return base, _scaling(rope, kind, positions)


def _scaling(rope: Raw, kind: str, positions: int) -> RopeScaling:
    if kind == "default":
        return RopeScaling()
    original = rope.whole("original_max_position_embeddings", positions)
    factor = rope.number("factor", positions / original)
    if factor < 1:
        raise rope.misstated(f"factor={factor}")
    if kind == "linear":
        return RopeScaling(kind, factor)
    if kind == "llama3":
        low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
        if not 0 < low < high:
            raise rope.misstated(f"low_freq_factor={low} and high_freq_factor={high}")
        return RopeScaling(kind, factor, original, low, high)
    slow, fast = rope.number("beta_slow", 1.0) or 1.0, rope.number("beta_fast", 32.0) or 32.0
    return RopeScaling(kind, factor, original, slow, fast, _attention(rope, factor), rope.flag("truncate", True))


def _attention(rope: Raw, factor: float) -> float:
    """YaRN's own factor on cos and sin (arXiv 2309.00071, equation 22), as the files vary it."""
    if rope.has("attention_factor"):
        return rope.number("attention_factor")
    grown = 0.1 * log(factor)
    one, all_dim = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    return (one * grown + 1) / (all_dim * grown + 1) if one and all_dim else grown + 1
