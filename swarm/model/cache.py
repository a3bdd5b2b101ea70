"""Keys and values of Sessions, in pages; one pool a Block, so that they survive a change of Stages.

A Session's pages are the same in every Block's pool. Example, pages of 32 positions: a Session with pages [5, 6, 9] keeps
position 40 in row 8 of page 6. Pages 5 and 6 lie side by side, so its positions 0..63 are read in place; 9 does not
follow 6, so positions beyond 63 are read from a gathered copy. Both have the same strides and alignment, hence the same bits.

R: rows   P: positions seen   NH: heads   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from swarm.config import ModelConfig
from swarm.model import kv
from swarm.model.attend import attend
from swarm.model.kernels.choice import kernels_for
from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.port import Kernels
from swarm.model.kv import Kept, Numbers
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
    keys: Kept
    values: Kept


class PagedCache:
    """KV pages of one Worker.

    Args:
        num_pages: pages in each Block's pool.
        page_positions: positions in a page.
        dtype: what is computed in.
        kept_as: one of `swarm.config.KV_DTYPES`.
        kernels: what reads pages where they lie; by default what the device has.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_pages: int,
        page_positions: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        kept_as: str = "",
        kernels: Kernels | None = None,
    ) -> None:
        self.num_pages = num_pages
        self.page_positions = page_positions
        self.dtype = dtype
        self.device = torch.device(device)
        self.kept_as = kept_as
        self._shape = (num_pages, page_positions, config.num_kv_heads, config.head_dim)
        self._heads = config.num_heads // config.num_kv_heads
        self._kernels = None if kept_as else kernels or kernels_for(self.device, dtype)
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

    def _empty(self) -> Kept:
        return kv.empty(self._shape, self.dtype, self.device, self.kept_as)

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

    def laid(self, rows: Rows) -> Rows:
        """The rows with what kernels want to know of their pages; as they are where there are none."""
        if self._kernels is None:
            return rows
        spans = [(s.position, s.length) for s in rows.segments]
        pages = [self._holdings[s.session].pages for s in rows.segments]
        return replace(rows, lanes=Lanes.of(spans, pages, self.page_positions, self._heads, rows.positions))

    def append(self, block: int, rows: Rows, k: Tensor, v: Tensor) -> None:
        """Write the rows' keys and values [R, KV, D] at their positions; what a Session held beyond them is forgotten."""
        pool = self._pools[block]
        self.note(block, rows)
        if rows.lanes is not None:
            assert isinstance(pool.keys, Numbers) and isinstance(pool.values, Numbers), "kernels read numbers"
            pool.keys.scatter(rows.lanes.slots, k)
            pool.values.scatter(rows.lanes.slots, v)
            return
        for segment in rows.segments:
            holding = self._holdings[segment.session]
            self._write(pool.keys, holding, segment, k)
            self._write(pool.values, holding, segment, v)

    def note(self, block: int, rows: Rows) -> None:
        """From now on the Sessions hold a Block's keys and values up to these rows."""
        for segment in rows.segments:
            holding = self._holdings[segment.session]
            assert segment.position <= holding.held.get(block, 0), "a Session has no holes"
            assert segment.length <= len(holding.pages) * self.page_positions, "a Session stays within what it reserved"
            holding.held[block] = segment.length

    def _write(self, pool: Kept, holding: _Holding, segment: Segment, x: Tensor) -> None:
        at = segment.position
        while at < segment.length:
            page, row = divmod(at, self.page_positions)
            room = (holding.run - page if page < holding.run else 1) * self.page_positions - row
            end = min(segment.length, at + room)
            source = segment.start - segment.position
            pool.write(holding.pages[page] * self.page_positions + row, x[source + at : source + end])
            at = end

    def attend(self, block: int, rows: Rows, q: Tensor, window: int = 0, sinks: Tensor | None = None) -> Tensor:
        """Attention of queries `q` [R, NH, D], each over its own Session's positions up to its own; [R, NH, D].

        Args:
            window: of those, so many; 0: all. Earlier ones stay in their pages, where nothing reads them.
            sinks: see `swarm.model.attend`.
        """
        pool = self._pools[block]
        if rows.lanes is not None:
            assert self._kernels is not None and isinstance(pool.keys, Numbers) and isinstance(pool.values, Numbers)
            return self._kernels.attend(q, pool.keys.data, pool.values.data, rows.lanes, window, sinks)
        parts = []
        for segment in rows.segments:
            holding = self._holdings[segment.session]
            first = max(0, segment.position - window + 1) if window else 0
            keys = self._read(pool.keys, holding, first, segment.length)
            values = self._read(pool.values, holding, first, segment.length)
            parts.append(attend(q[segment.start : segment.end], keys, values, segment.position - first, window, sinks))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _read(self, pool: Kept, holding: _Holding, first: int, end: int) -> Tensor:
        """Positions `first` to `end` of a Session, [P, KV, D]: in place where they lie side by side."""
        page, pages = first // self.page_positions, -(-end // self.page_positions)
        if pages <= holding.run:
            found = pool.side_by_side(holding.pages[page], pages - page)
        else:
            found = pool.gathered(holding.index[page:pages])
        return found[first - page * self.page_positions : end - page * self.page_positions]


def _run(pages: list[int]) -> int:
    """How many pages from the first on follow each other."""
    return next((i for i in range(1, len(pages)) if pages[i] != pages[i - 1] + 1), len(pages))
