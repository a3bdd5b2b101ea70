"""A Stage: a range of Blocks; the first of a Route also embeds, the last also has norm and head.

R: rows   H: hidden   V: vocabulary   n: rows whose logits are asked
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.config import LOGIT_ROWS, ModelConfig
from swarm.model.block import Block
from swarm.model.cache import PagedCache
from swarm.model.memory import aligned, num_bytes
from swarm.model.norm import NORMS
from swarm.model.product import Weight, product
from swarm.model.rope import Angles
from swarm.model.rows import Rows


@dataclass(frozen=True)
class Head:
    """The last norm and the output matrix."""

    norm: Tensor  # [H]
    output: Weight  # [V, H]

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.norm, self.output)


@dataclass(frozen=True)
class Stage:
    """Blocks by their index in the model, and what the ends of a Route need."""

    config: ModelConfig
    blocks: Mapping[int, Block]
    embedding: Tensor | None = None  # [V, H]
    head: Head | None = None

    @torch.inference_mode()
    def embed(self, tokens: Tensor) -> Tensor:
        """Hidden states [R, H] of `tokens` [R] int64. Only on a first Stage."""
        assert self.embedding is not None, "only a first Stage embeds"
        return F.embedding(tokens, self.embedding)

    @torch.inference_mode()
    def forward(self, h: Tensor, rows: Rows, cache: PagedCache, between_blocks: Callable[[], None] = lambda: None) -> Tensor:
        """Run the Blocks on `h` [R, H], to [R, H].

        Args:
            between_blocks: called before each Block, so that the compute thread can do what is more urgent.
        """
        h = aligned(h)
        angles = Angles.of(rows.positions, self.config.head_dim, self.config.rope_theta, self.config.rope)
        for index in sorted(self.blocks):
            between_blocks()
            h = self.blocks[index].forward(h, rows, angles, cache)
        return h

    @torch.inference_mode()
    def logits(self, h: Tensor) -> Tensor:
        """Logits [n, V] fp32 of hidden states `h` [n, H], `LOGIT_ROWS` rows a product. Only on a last Stage.

        A caller that cannot hold [n, V] may itself ask for `LOGIT_ROWS` rows at a time: the bits are the same.
        """
        assert self.head is not None, "only a last Stage has logits"
        norm = NORMS[self.config.norm]
        out = torch.empty(h.shape[0], self.config.vocab, dtype=torch.float32, device=h.device)
        for at in range(0, h.shape[0], LOGIT_ROWS):
            part = norm(aligned(h[at : at + LOGIT_ROWS]), self.head.norm, self.config.norm_eps)
            out[at : at + LOGIT_ROWS] = product(part, self.head.output)
        return out
