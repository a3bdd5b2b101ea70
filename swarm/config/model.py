"""What a model is: one decoder's shape, and the parts that its Blocks have. Standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swarm.config.parts import MOST_BLOCKS, NORMS, ROPES, Activation, AttentionParts, ExpertParts, RopeScaling
from swarm.errors import MissingWeights, ModelError


@dataclass(frozen=True)
class ModelConfig:
    """One decoder's shape. Names follow the Mixtral paper (arXiv 2401.04088) where it has them.

    A dense MLP is one expert that all rows choose: `num_experts` and `top_k` are 1, and there is no router.
    """

    architecture: str
    hidden: int
    ffn: int
    """Of one expert."""
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
    """The checkpoint's own dtype, a key of `swarm.bits.NUMBER_BYTES`."""
    bos_id: int
    """-1: it has none."""
    eos_ids: tuple[int, ...]
    rope: RopeScaling = field(default_factory=RopeScaling)
    attention: AttentionParts = field(default_factory=AttentionParts)
    windows: tuple[int, ...] = ()
    """For each Block, how many positions a row sees, its own included; 0: all. Empty: all in all Blocks."""
    experts: ExpertParts = field(default_factory=ExpertParts)
    activation: Activation = field(default_factory=Activation)
    norm: str = "rms"
    """One of `swarm.config.parts.NORMS`; neither has a bias."""

    @property
    def routed(self) -> bool:
        """Whether rows choose among experts: one alone needs no router."""
        return self.num_experts > 1

    @property
    def contradicts_itself(self) -> bool:
        """Whether its numbers cannot all be right."""
        widths = (self.hidden, self.ffn, self.num_heads, self.num_kv_heads, self.head_dim, self.vocab, self.max_positions)
        if max(self.num_blocks, self.num_experts) > MOST_BLOCKS:
            return True
        if min(*widths, self.num_blocks, self.num_experts, self.top_k) < 1 or self.top_k > self.num_experts:
            return True
        kinds = self.rope.kind in ROPES and self.norm in NORMS and len(self.windows) in (0, self.num_blocks)
        return bool(self.num_heads % self.num_kv_heads or self.head_dim % 2) or not kinds

    def experts_in(self, block: int) -> int:
        """How many experts a Block has; none where a dense MLP in its core stands for them."""
        return 0 if block in self.experts.dense_blocks else self.num_experts

    def window(self, block: int) -> int:
        """How many positions a row of a Block sees, its own included; 0: all."""
        return self.windows[block] if self.windows else 0

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read `config.json` of a folder in Hugging Face layout.

        Raises:
            MissingWeights: there is no config.json.
            ModelError: it is no JSON, or lacks what a model needs.
            UnknownArchitecture: it names another architecture than those in `ARCHITECTURES`, or a part that no Block has.
        """
        path = folder / "config.json"
        try:
            return cls.from_bytes(path.read_bytes(), str(path))
        except FileNotFoundError:
            raise MissingWeights(f"{folder} has no config.json: give a folder in Hugging Face layout") from None

    @classmethod
    def from_bytes(cls, text: bytes, where: str = "config.json") -> ModelConfig:
        """Read the bytes of a `config.json`; see `from_folder` for what it raises."""
        try:
            raw = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{where} is not JSON ({error}): fetch it again") from None
        if not isinstance(raw, dict):
            raise ModelError(f"{where} is not a JSON object: fetch it again")
        return cls.from_hf(raw, where)

    @classmethod
    def from_hf(cls, raw: dict[str, Any], where: str = "config.json") -> ModelConfig:
        """Build from a parsed `config.json`; see `from_folder` for what it raises."""
        from swarm.config.families import read_config  # which makes ModelConfigs itself

        return read_config(raw, where)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_json`. Parts that an older Plan does not name are Mixtral's."""
        experts = dict(raw.get("experts", {}))
        if "dense_blocks" in experts:
            experts["dense_blocks"] = tuple(experts["dense_blocks"])
        parts = {
            "eos_ids": tuple(raw["eos_ids"]),
            "rope": RopeScaling(**raw.get("rope", {})),
            "attention": AttentionParts(**raw.get("attention", {})),
            "windows": tuple(raw.get("windows", ())),
            "experts": ExpertParts(**experts),
            "activation": Activation(**raw.get("activation", {})),
        }
        return cls(**{**raw, **parts})
