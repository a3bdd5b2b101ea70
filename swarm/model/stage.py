"""A Stage: a range of Blocks; the first of a Route also embeds, the last also has norm and head.

R: rows   H: hidden   V: vocabulary   n: rows whose logits are asked
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.config import LOGIT_ROWS, ModelConfig
from swarm.model.alone_blocks import AloneBlocks
from swarm.model.alone_head import HeadAlone
from swarm.model.block import Block
from swarm.model.cache import PagedCache
from swarm.model.kernels.choices import Choices
from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.port import FEW_ROWS
from swarm.model.kernels.replay import Recorder, Replays
from swarm.model.memory import aligned, num_bytes
from swarm.model.norm import NORMS
from swarm.model.product import Weight, product
from swarm.model.rope import Angles
from swarm.model.rows import Rows

NEAR = 4096
"""Positions whose angles are looked up on a CPU; 4 MiB at most."""


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
    decoding: Replays | None = None
    """Decode Steps, recorded; see `replayed`."""

    @torch.inference_mode()
    def embed(self, tokens: Sequence[int]) -> Tensor:
        """Hidden states [R, H] of `tokens`, which nobody may write into. Only on a first Stage."""
        assert self.embedding is not None, "only a first Stage embeds"
        if len(tokens) == 1 and self.embedding.device.type == "cpu":  # as it lies there
            return self.embedding[tokens[0] : tokens[0] + 1]
        return F.embedding(torch.tensor(tokens, device=self.embedding.device), self.embedding)

    @torch.inference_mode()
    def forward(self, h: Tensor, rows: Rows, cache: PagedCache, between_blocks: Callable[[], None] = lambda: None) -> Tensor:
        """Run the Blocks on `h` [R, H], to [R, H].

        Args:
            between_blocks: called before each Block, so that the compute thread can do what is more urgent; once where Steps are
                recorded, which takes a few milliseconds.
        """
        h, rows = aligned(h), cache.laid(rows)
        if self.decoding is not None and rows.lanes is not None and self.decoding.takes(rows.lanes):
            for index in self.blocks:
                between_blocks()  # of all of them before it begins: whoever counts them knows now that they end soon
                cache.note(index, rows)
            h = self.decoding.forward(h, rows.lanes)
        else:
            h = self._through_blocks(h, rows, cache, between_blocks)
        if h.shape[0] <= FEW_ROWS:
            self.choices.add(h.shape[0])
        return h

    def _through_blocks(self, h: Tensor, rows: Rows, cache: PagedCache, between_blocks: Callable[[], None]) -> Tensor:
        angles, order, alone = self._angles(rows), self._order, self._alone
        if alone and alone.takes(h) and (places := cache.places_in(order, rows)):
            return alone.forward(h, places, angles, between_blocks)
        for index in order:
            between_blocks()
            h = self.blocks[index].forward(h, rows, angles, cache)
        return h

    def _angles(self, rows: Rows) -> Angles:
        if rows.lanes is None and rows.end <= NEAR and torch.device(rows.device).type == "cpu":
            return self._near.at(rows.segments[0].position if rows.alone else rows.positions)
        return Angles.of(rows.positions, self.config.head_dim, self.config.rope_theta, self.config.rope)

    @cached_property
    def _near(self) -> Angles:
        """Those of the first `NEAR` positions."""
        return Angles.of(torch.arange(NEAR), self.config.head_dim, self.config.rope_theta, self.config.rope)

    @cached_property
    def _order(self) -> tuple[int, ...]:
        return tuple(sorted(self.blocks))

    @cached_property
    def _alone(self) -> AloneBlocks | None:
        return AloneBlocks.of([self.blocks[index] for index in self._order])

    @cached_property
    def _head_alone(self) -> HeadAlone | None:
        norm = NORMS[self.config.norm]
        return HeadAlone.of(norm, self.head.norm, self.config.norm_eps, self.head.output) if self.head else None

    def replayed(self, cache: PagedCache, recorder: Recorder) -> Stage:
        """The same Stage with its decode Steps recorded; itself where an expert is elsewhere, or the host is asked for a choice."""

        def run(h: Tensor, lanes: Lanes) -> Tensor:
            return self._through_blocks(h, Rows((), h.device, lanes), cache, lambda: None)

        if not all(block.moe.on_card for block in self.blocks.values()):
            return self
        return replace(self, decoding=Replays(run, recorder, cache.page_positions, cache.num_pages))

    @cached_property
    def choices(self) -> Choices:
        """What routers chose that are not counted on the host."""
        return Choices([block.moe for block in self.blocks.values()])

    @torch.inference_mode()
    def logits(self, h: Tensor) -> Tensor:
        """Logits [n, V] of hidden states `h` [n, H], in their dtype, contiguous, `LOGIT_ROWS` rows a product. Only on a last Stage.

        A caller that cannot hold [n, V] may itself ask for `LOGIT_ROWS` rows at a time: the bits are the same.
        """
        assert self.head is not None, "only a last Stage has logits"
        if self._head_alone and self._head_alone.takes(h):
            return self._head_alone.logits(h)
        if h.shape[0] > LOGIT_ROWS:
            return torch.cat([self.logits(part) for part in h.split(LOGIT_ROWS)])
        x = NORMS[self.config.norm](aligned(h), self.head.norm, self.config.norm_eps)
        return product(x, self.head.output).contiguous()
