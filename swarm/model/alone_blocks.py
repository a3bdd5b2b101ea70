"""All Blocks of a Stage as a row that is alone on a CPU meets them, in one call.

H: hidden
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from swarm.model.block import Block
from swarm.model.native.halves import Halves, Layer
from swarm.model.native.places import BlockPlaces
from swarm.model.rope import Angles


@dataclass(frozen=True)
class AloneBlocks:
    """Blocks one behind the other: what Python does for each finds the caches full of weights, and is slow there."""

    blocks: Sequence[Block]
    calls: Halves
    layers: ctypes.Array[Layer]
    width: int
    """Experts a row, in the Block that has most."""

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> AloneBlocks | None:
        """None where one of them is not all here, or has no such call."""
        halves = [(b.attention_alone, b.few) for b in blocks if b.all_alone]
        whole = [(first, second) for first, second in halves if first and second]
        if not whole or len(whole) < len(blocks):
            return None
        layers = [Layer(ctypes.addressof(first.half), ctypes.addressof(second.half)) for first, second in whole]
        width = max(second.half.sizes[2] for _, second in whole)
        return cls(tuple(blocks), whole[0][0].calls, (Layer * len(layers))(*layers), width)

    def takes(self, h: Tensor) -> bool:
        """Whether rows `h` [R, H] are one that is alone here."""
        return self.calls.takes(h)

    def forward(self, h: Tensor, places: BlockPlaces, angles: Angles, between_blocks: Callable[[], None]) -> Tensor:
        """`h` [1, H] through all of them, [1, H]; its keys and values are in their pages afterwards."""
        h, choice = self.calls.blocks(self.layers, h, places, (angles.cos, angles.sin), self.width, between_blocks)
        experts: list[int] = list(choice.experts)
        for at, block in enumerate(self.blocks):
            assert block.few is not None
            width = block.few.half.sizes[2]
            block.moe.count(experts[at * self.width : at * self.width + width], [1] * width)
        return h
