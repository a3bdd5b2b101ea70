"""Keys and values of Sessions, in pages; one pool a Block, so that they survive a change of Stages.

A Session's pages are the same in every Block's pool. Example, pages of 32 positions: a Session with pages [5, 6, 9] keeps
position 40 in row 8 of page 6. Pages 5 and 6 lie side by side, so its positions 0..63 are read in place; 9 does not
follow 6, so positions beyond 63 are read from a gathered copy. Both have the same strides and alignment, hence the same bits.

R: rows   P: positions seen   KV: key-value heads   G: heads a key-value head   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.config import ModelConfig
from swarm.model.memory import num_bytes
from swarm.model.pages import Pages
from swarm.model.rows import Rows, Segment


@dataclass
class _Holding:
    """What one Session has: its pages, and how many positions are filled, by Block."""

    pages: list[int]
    index: Tensor  # [pages] int64, the same on the device
    run: int  # pages from the first on that lie side by side
    held: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pool:
    keys: Tensor  # [pages, page positions, KV, D]
    values: Tensor


class PagedCache:
    """KV pages of one Worker.

    Args:
        num_pages: pages in each Block's pool.
        page_positions: positions in a page.
    """

    def __init__(
        self, config: ModelConfig, num_pages: int, page_positions: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self.num_pages = num_pages
        self.page_positions = page_positions
        self.dtype = dtype
        self.device = torch.device(device)
        self._shape = (num_pages, page_positions, config.num_kv_heads, config.head_dim)
        self._pools: dict[int, _Pool] = {}
        self._pages = Pages(num_pages)
        self._holdings: dict[bytes, _Holding] = {}

    def add_block(self, block: int) -> None:
        """Make a Block's pool, unless it is there."""
        if block not in self._pools:
            self._pools[block] = _Pool(self._empty(), self._empty())

    def drop_block(self, block: int) -> None:
        """Give a Block's pool back, and forget what Sessions held in it."""
        self._pools.pop(block, None)
        for holding in self._holdings.values():
            holding.held.pop(block, None)

    def _empty(self) -> Tensor:
        return torch.empty(self._shape, dtype=self.dtype, device=self.device)

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(sorted(self._pools))

    @property
    def num_bytes(self) -> int:
        """What all pools weigh."""
        return sum(num_bytes(p.keys, p.values) for p in self._pools.values())

    @property
    def free_pages(self) -> int:
        return self._pages.free

    def reserve(self, session: bytes, positions: int) -> bool:
        """Reserve room for that many positions in all; False, and nothing changed, where it is not free now.

        A reservation grows and keeps what it holds; it never shrinks.
        """
        holding = self._holdings.get(session)
        pages = holding.pages if holding else []
        missing = -(-positions // self.page_positions) - len(pages)
        if holding and missing <= 0:
            return True
        more = self._pages.take(max(missing, 0), pages[-1] if pages else None)
        if more is None:
            return False
        pages = pages + more
        index = torch.tensor(pages, dtype=torch.int64, device=self.device)
        self._holdings[session] = _Holding(pages, index, _run(pages), holding.held if holding else {})
        return True

    def release(self, session: bytes) -> None:
        """Give a Session's pages back; nothing where it has none."""
        holding = self._holdings.pop(session, None)
        if holding:
            self._pages.give(holding.pages)

    def append(self, block: int, rows: Rows, k: Tensor, v: Tensor) -> None:
        """Write the rows' keys and values [R, KV, D] at their positions; what a Session held beyond them is forgotten."""
        pool = self._pools[block]
        for segment in rows.segments:
            holding = self._holdings[segment.session]
            assert segment.position <= holding.held.get(block, 0), "a Session has no holes"
            assert segment.length <= len(holding.pages) * self.page_positions, "a Session stays within what it reserved"
            self._write(pool.keys, holding, segment, k)
            self._write(pool.values, holding, segment, v)
            holding.held[block] = segment.length

    def _write(self, pool: Tensor, holding: _Holding, segment: Segment, x: Tensor) -> None:
        flat = pool.view(-1, *pool.shape[2:])  # [pages x page positions, KV, D]
        at = segment.position
        while at < segment.length:
            page, row = divmod(at, self.page_positions)
            room = (holding.run - page if page < holding.run else 1) * self.page_positions - row
            end = min(segment.length, at + room)
            slot = holding.pages[page] * self.page_positions + row
            source = segment.start - segment.position
            flat[slot : slot + end - at] = x[source + at : source + end]
            at = end

    def attend(self, block: int, rows: Rows, q: Tensor) -> Tensor:
        """Attention of queries `q` [R, NH, D], each over its own Session's positions up to its own; [R, NH, D]."""
        pool = self._pools[block]
        parts = []
        for segment in rows.segments:
            holding = self._holdings[segment.session]
            keys = self._read(pool.keys, holding, segment.length)
            values = self._read(pool.values, holding, segment.length)
            parts.append(_attend(q[segment.start : segment.end], keys, values, segment.position))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _read(self, pool: Tensor, holding: _Holding, length: int) -> Tensor:
        """The first `length` positions of a Session, [P, KV, D]: in place where they lie side by side."""
        pages = -(-length // self.page_positions)
        if pages <= holding.run:
            return pool[holding.pages[0] : holding.pages[0] + pages].view(-1, *pool.shape[2:])[:length]
        return pool.index_select(0, holding.index[:pages]).view(-1, *pool.shape[2:])[:length]


def _run(pages: list[int]) -> int:
    """How many pages from the first on follow each other."""
    return next((i for i in range(1, len(pages)) if pages[i] != pages[i - 1] + 1), len(pages))


def _attend(q: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
    """One Segment: queries `q` [n, NH, D], the first at `position`, over keys and values [P, KV, D]; [n, NH, D]."""
    n, num_heads, head_dim = q.shape
    k, v = keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0)  # [1, KV, P, D]
    if n == 1:  # all heads of a key-value head as rows of one product: keys are read once
        grouped = q.reshape(1, k.shape[1], -1, head_dim)  # [1, KV, G, D]
        return F.scaled_dot_product_attention(grouped, k, v).reshape(1, num_heads, head_dim)
    mask = None
    if position:  # row i sees positions 0..position + i
        mask = torch.ones(n, keys.shape[0], dtype=torch.bool, device=q.device).tril(position)
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0), k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )
    return out[0].transpose(0, 1)
