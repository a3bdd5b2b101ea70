"""What is computed to measure a Device: products with weights that no cache holds, and a Block that weighs next to nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from swarm.bits import Bits
from swarm.config import ModelConfig
from swarm.model.block import Block, BlockCore
from swarm.model.cache import PagedCache
from swarm.model.dtypes import numbers_of
from swarm.model.experts import ExpertWeights, LocalExperts
from swarm.model.kernels.bank import Packed
from swarm.model.kernels.card_matrix import CardMatrix
from swarm.model.kernels.choice import kernels_for, recorder_for
from swarm.model.memory import num_bytes
from swarm.model.product import Weight, product
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import KERNEL_COLUMNS, Int8Matrix
from swarm.model.quant.int8_groups import Int8Groups
from swarm.model.quant.on_card import TOGETHER
from swarm.model.quant.planes import KERNEL_GROUP, KERNEL_ROWS
from swarm.model.rope import Angles
from swarm.model.rows import Rows, Segment
from swarm.model.stage import Stage
from swarm.worker.device_time import finish

CYCLE_BYTES = 256 * 2**20
"""Weights together, each read in turn: 1 GiB measured the same where the last level of cache had 480 MiB to share."""
LEAST_BYTES = 16 * 2**20
"""Where memory is short: too little to miss every cache, enough to compute."""
MATRIX_BYTES = 64 * 2**20
"""The largest matrix; a larger one is measured by a part of its rows."""
JOB_S = 0.03
"""What one turn on the compute thread aims to take."""
NOISE = 1 << 18


@dataclass(frozen=True)
class Products:
    """The two products of a SwiGLU expert of some shape, on weights that are each read in turn.

    Args:
        weights: alternately [2F, H] and [H, F], or as many of their rows as `MATRIX_BYTES` allows.
    """

    weights: tuple[Weight, ...]
    inputs: torch.dtype
    _next: Iterator[Weight]

    @classmethod
    def filling(
        cls, hidden: int, ffn: int, held: Sequence[Weight], dtype: str, device: torch.device, room_bytes: int, until: float
    ) -> Generator[None, None, Products]:
        """Gather what is `held`, and make what is missing, in turns.

        Args:
            held: weights that are there already, of that shape and dtype: a full card is measured with what it is full of.
            room_bytes: half of it may be used.
            until: when to have enough, of `time.perf_counter`.
        """
        weights, size = list(held), num_bytes(*held)
        total = min(CYCLE_BYTES, max(LEAST_BYTES, size + room_bytes // 2))
        blank, turn = Blank(dtype, device), time.perf_counter()
        for rows, inputs in itertools.cycle(((2 * ffn, hidden), (hidden, ffn))):
            if size >= total or (len(weights) > 1 and time.perf_counter() > until):
                break
            most = int(min(MATRIX_BYTES, total // 4) / (inputs * blank.element_bytes))
            weight, pieces = blank.matrix(max(1, min(rows, most)), inputs)
            weights.append(weight)
            size += num_bytes(weight)
            for fill in pieces:
                fill()
                if time.perf_counter() - turn > JOB_S:
                    yield
                    turn = time.perf_counter()
        return cls(tuple(weights), numbers_of(dtype), itertools.cycle(weights))

    def run(self, rows: int, seconds_a_byte: float) -> list[float]:
        """Seconds a byte of each piece of about `JOB_S` at that speed, or of a part of one product where that takes longer.

        A piece is an expert's two products; on a card, which hears of many at once, all of them.
        """
        mean = num_bytes(*self.weights) / len(self.weights)
        count = int(JOB_S / (mean * seconds_a_byte))
        share = min(1.0, JOB_S / (mean * seconds_a_byte))
        used = [_part(next(self._next), share) for _ in range(max(2 if share == 1.0 else 1, count // 2 * 2))]
        device = used[0].device
        inputs = {k: torch.ones(rows, k, dtype=self.inputs, device=device) for k in {w.shape[1] for w in used}}
        size = len(used) if device.type == "cuda" else 2
        return [_seconds_a_byte(used[at : at + size], inputs) for at in range(0, len(used), size)]

    def one(self) -> None:
        """One product of one row: what a Block's Python and small kernels find in the caches afterwards is as in decode."""
        w = next(self._next)
        product(torch.ones(1, w.shape[1], dtype=self.inputs, device=w.device), w)


def _seconds_a_byte(weights: Sequence[Weight], inputs: Mapping[int, Tensor]) -> float:
    def work() -> None:
        for w in weights:
            product(inputs[w.shape[1]], w)  # kept by nobody: on a card that is full there is room for one

    return timed(weights[0].device, work) / num_bytes(*weights)


def _part(w: Weight, share: float) -> Weight:
    """Some rows of a matrix; a quantized one is small, and is taken whole."""
    return w[: max(1, int(w.shape[0] * share))] if isinstance(w, Tensor) else w


class Blank:
    """Makes matrices of noise in the form of a dtype's experts, piece by piece."""

    def __init__(self, dtype: str, device: torch.device) -> None:
        self._form, self._numbers, self._device = Bits.of(dtype).experts, numbers_of(dtype), device
        self._noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(self._numbers).to(device)

    @property
    def element_bytes(self) -> float:
        """About what one weight takes."""
        return self._form.matrix_bytes(1, 1 << 10) / (1 << 10)

    def matrix(self, rows: int, inputs: int) -> tuple[Weight, list[Callable[[], object]]]:
        """A matrix, and what fills it once it is done."""
        if not self._form.quantized:
            weight = torch.empty(rows, inputs, dtype=self._numbers, device=self._device)
            return weight, self._pieces(weight)
        if self._device.type == "cuda":
            return self._on_card(rows, inputs)
        if not self._form.group:
            codes = self._bytes(rows, -(-inputs // KERNEL_COLUMNS) * KERNEL_COLUMNS).view(torch.int8)
            return Int8Matrix(inputs, codes, self._scales(rows)), self._pieces(codes)
        group = self._form.group
        rows, wide = -(-rows // KERNEL_ROWS) * KERNEL_ROWS, -(-inputs // max(group, KERNEL_GROUP)) * max(group, KERNEL_GROUP)
        if self._form.kind == "int4":
            packed = self._bytes(rows, wide // 2)
            return Int4Matrix(rows, inputs, group, packed, self._scales(wide // group, rows, 2)), self._pieces(packed)
        packed, shares = self._bytes(2, rows, wide // 2), max(1, KERNEL_GROUP // group)
        scales = self._scales(shares, wide // group // shares, rows, 2)
        return Int8Groups(rows, inputs, group, packed, scales), self._pieces(packed)

    def _on_card(self, rows: int, inputs: int) -> tuple[Weight, list[Callable[[], object]]]:
        bits, group = (4 if self._form.kind == "int4" else 8), self._form.group or TOGETHER
        groups = -(-inputs // group)
        codes = self._bytes(groups, rows, group * bits // 8)
        scales = self._scales(groups if self._form.group else 1, rows, 2)
        packed = Packed(rows, inputs, bits, group, codes.view(torch.int8) if bits == 8 else codes, scales)
        return CardMatrix(packed), self._pieces(codes)

    def _bytes(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8, device=self._device)

    def _scales(self, *shape: int) -> Tensor:
        return torch.full(shape, 0.01, dtype=self._numbers, device=self._device)

    def _pieces(self, out: Tensor) -> list[Callable[[], object]]:
        noise = self._noise.view(out.dtype)
        return [partial(piece.copy_, noise[: piece.numel()]) for piece in out.view(-1).split(noise.numel())]


RECORDED = 8
"""Blocks in one launch: what a launch itself takes counts little beside them."""
SMALL = ModelConfig(
    architecture="MixtralForCausalLM", hidden=64, ffn=64, num_blocks=1, num_heads=2, num_kv_heads=1, head_dim=32, num_experts=8,
    top_k=2, vocab=64, max_positions=64, norm_eps=1e-5, rope_theta=1e6, tied_head=False, dtype="fp32", bos_id=1, eos_ids=(2,),
)  # fmt: skip


class SmallBlock:
    """A Block whose weights are next to nothing: what few rows take of it is what starting its kernels takes.

    Args:
        rows: of as many Sessions.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, rows: int) -> None:
        c, random = SMALL, torch.Generator().manual_seed(0)

        def matrix(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random).mul_(0.1).to(dtype).to(device)

        heads = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
        norm = torch.ones(c.hidden, dtype=dtype, device=device)
        core = BlockCore(norm, matrix(heads, c.hidden), matrix(c.hidden, c.hidden), norm, matrix(c.num_experts, c.hidden))
        experts = [ExpertWeights(matrix(2 * c.ffn, c.hidden), matrix(c.hidden, c.ffn)) for _ in range(c.num_experts)]
        recorder = recorder_for(device, dtype)
        self._cache, self._count = PagedCache(c, rows, 32, dtype, device), RECORDED if recorder else 1
        local = LocalExperts.of(
            {(b, e): experts[e] for b in range(self._count) for e in range(c.num_experts)}, kernels_for(device, dtype)
        )
        blocks = {b: Block.of(c, b, core, dict.fromkeys(range(c.num_experts), local)) for b in range(self._count)}
        for block in blocks:
            self._cache.add_block(block)
        sessions = [bytes([each]) for each in range(rows)]
        for session in sessions:
            self._cache.reserve(session, 1)
        self._block, self._stage = blocks[0], Stage(c, blocks).replayed(self._cache, recorder) if recorder else None
        laid = Rows.of(tuple(Segment(session, at, at + 1, 0) for at, session in enumerate(sessions)), device)
        self._rows = self._cache.laid(laid)
        self._angles = Angles.of(self._rows.positions, c.head_dim, c.rope_theta)
        self._hidden = matrix(rows, c.hidden)

    @cached_property
    def chosen(self) -> int:
        """How many experts its rows go to together."""
        router = self._block.moe.router
        assert router is not None
        return int(router.choose(self._hidden)[1].unique().numel())

    def run(self, before_each: Callable[[], None], at_most_s: float) -> list[float]:
        """Seconds of each of many Blocks, for about that long in all; `before_each` is not counted."""
        device, began = self._hidden.device, time.perf_counter()
        seconds: list[float] = []
        while not seconds or time.perf_counter() - began < at_most_s:
            before_each()
            seconds.append(timed(device, self._forward) / self._count)
        return seconds

    def _forward(self) -> Tensor:
        """One Block; several in one launch where they are recorded, since that is how a card is told."""
        if self._stage is not None:
            return self._stage.forward(self._hidden, self._rows, self._cache)
        return self._block.forward(self._hidden, self._rows, self._angles, self._cache)


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that some work takes on an idle Device, until it is done there."""
    finish(device)
    started = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - started
