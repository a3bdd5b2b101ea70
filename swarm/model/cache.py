"""Keys and values of Sessions, in pages; one pool a Block, so that they survive a change of Stages.

A Session's pages are the same in every Block's pool. Example, pages of 32 positions: a Session with pages [5, 6, 9] keeps
position 40 in row 8 of page 6. Pages 5 and 6 lie side by side, so its positions 0..63 are read in place; 9 does not
follow 6, so positions beyond 63 are read from a gathered copy. Both have the same strides and alignment, hence the same bits.

Sessions whose token ids begin alike have the pages of that prefix in common. Who writes something else into one of them gets a
copy first; writing the same tokens again needs none. What a Session leaves behind is kept until its room is wanted.

R: rows   P: positions seen   NH: heads   KV: key-value heads   D: head_dim
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from swarm.config import ModelConfig
from swarm.model import kv
from swarm.model.attend import attend
from swarm.model.holding import Holding, Laid, Move
from swarm.model.kernels.choice import kernels_for
from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.port import Kernels
from swarm.model.kv import Kept, Numbers
from swarm.model.memory import num_bytes
from swarm.model.native.halves import halves
from swarm.model.native.places import BlockPlaces, Places, Sessions
from swarm.model.prefixes import Found, Known
from swarm.model.rows import Rows, Segment
from swarm.model.shared_pages import SharedPages

FEW_OF_A_SESSION = 8
"""So many rows of one, a draft's, are answered like those of as many; more are for `swarm.model.attend`."""


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
        self._calls = not kept_as and dtype is torch.bfloat16 and self.device.type == "cpu" and halves() is not None
        self._pools: dict[int, _Pool] = {}
        self._pages = SharedPages(num_pages)
        self._holdings: dict[bytes, Holding] = {}
        self._kept: dict[tuple[int, ...], ctypes.Array[ctypes.c_void_p] | None] = {}
        """See `_addresses`."""

    def add_block(self, block: int) -> None:
        """Make a Block's pool, unless it is there."""
        if block not in self._pools:
            self._pools[block] = _Pool(self._empty(), self._empty())
            self._kept.clear()

    def drop_block(self, block: int) -> None:
        """Give a Block's pool back, and forget what Sessions held in it."""
        self._pools.pop(block, None)
        self._kept.clear()
        for holding in self._holdings.values():
            holding.held.pop(block, None)
        self._pages.prefixes.drop_block(block)

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
        """Pages that no Session has."""
        return self._pages.room

    @property
    def idle_pages(self) -> int:
        """Of these, the ones whose tokens are known still, for who begins with the same."""
        return self._pages.idle

    def reserve(self, session: bytes, positions: int) -> bool:
        """Reserve room for that many positions in all; False, and nothing changed, where it is not free now.

        A reservation grows and keeps what it holds; it never shrinks.
        """
        holding = self._holdings.get(session)
        if holding is None:
            return self._open(session, positions, Found(), ())
        missing = self._pages_for(positions) - len(holding.pages)
        if missing <= 0:
            return True
        more = self._pages.take(missing, holding.pages[-1] if holding.pages else None)
        if more is None:
            return False
        holding.grow(more)
        return True

    def open(self, session: bytes, positions: int, hashes: Sequence[int], blocks: Iterable[int]) -> int | None:
        """Reserve room for a new Session, which has what pages hold of its tokens already; how many positions that is.

        None, and nothing changed, where there is no room now.

        Args:
            hashes: entry i covers its first i tokens.
            blocks: whose keys and values it needs.
        """
        assert session not in self._holdings, "a Session opens once"
        blocks = tuple(blocks)
        found = self._pages.prefixes.find(hashes[: positions + 1], blocks, self.page_positions)
        whole = found.whole(self.page_positions)
        for some in (found, Found(whole, len(whole) * self.page_positions)):  # a page to copy from may be the one that is missing
            if self._open(session, positions, some, blocks):
                return some.positions
        return None

    def _open(self, session: bytes, positions: int, found: Found, blocks: Iterable[int]) -> bool:
        whole = found.whole(self.page_positions)
        self._pages.share(found.pages)
        own = self._pages.take(self._pages_for(positions) - len(whole), whole[-1] if whole else None)
        if own is None:
            self._pages.give(found.pages)
            return False
        holding = self._holdings[session] = Holding.of((*whole, *own), self.device)
        holding.held = dict.fromkeys(blocks, found.positions)
        holding.coming = tuple(Move(len(whole), page, own[0], copied=True) for page in found.pages[len(whole) :])
        return True

    def _pages_for(self, positions: int) -> int:
        return -(-positions // self.page_positions)

    def release(self, session: bytes) -> None:
        """Give a Session's pages back; nothing where it has none."""
        holding = self._holdings.pop(session, None)
        if holding:
            self._pages.give([*holding.pages, *(move.source for move in holding.coming)])

    def write(self, session: bytes, position: int, hashes: Sequence[int]) -> tuple[Move, ...] | None:
        """Decide which pages a Step may write: others keep what they share with it. Called before what is computed after it.

        Args:
            position: of its first token.
            hashes: of all tokens up to each of its own.

        Returns:
            What `move` has to do before the Step is computed; None, and nothing changed, where a copy has no room.
        """
        holding = self._holdings[session]
        other = self._first_other(holding, position, hashes)
        shared = [at for at in range(other, len(holding.pages)) if self._pages.holders(holding.pages[at]) > 1]
        own = self._pages.take(len(shared)) if shared else []
        if own is None:
            return None
        coming, holding.coming = holding.coming, ()
        old = [holding.pages[at] for at in shared]
        moves = holding.decide(own, other, shared, copied=position > other * self.page_positions)
        for at in range(other, self._pages_for(position + len(hashes))):
            self._pages.prefixes.forget(holding.pages[at])
        # Whoever has these pages next writes to them after the Step has copied them: in the order in which Steps are admitted.
        self._pages.give([*old, *(move.source for move in coming)])
        return coming + moves

    def _first_other(self, holding: Holding, position: int, hashes: Sequence[int]) -> int:
        """The first place whose page is known to hold other tokens than those that are to be written there."""
        size, end = self.page_positions, position + len(hashes)
        for at in range(position // size, self._pages_for(end)):
            first = max(position, at * size)
            here = hashes[first - position : min(end, (at + 1) * size) - position]
            if not self._pages.prefixes.holds(holding.pages[at], first - at * size, here):
                return at
        return len(holding.pages)

    def move(self, session: bytes, moves: Sequence[Move]) -> None:
        """Do what `write` decided, on the thread that computes, in the order in which Steps are computed."""
        for move in moves:
            if move.copied:
                for pool in list(self._pools.values()):  # the loop may be adding a Block of another Plan
                    pool.keys.copy(move.source, move.target)
                    pool.values.copy(move.source, move.target)
        self._holdings[session].follow(moves)

    def know(self, session: bytes, first: int, hashes: Sequence[int], blocks: Iterable[int]) -> None:
        """A Session's pages are full and computed for these Blocks: others may share them.

        Args:
            first: place of the first of them.
            hashes: of all tokens before it, and up to each of their positions.
        """
        size, pages = self.page_positions, self._holdings[session].pages
        for i in range((len(hashes) - 1) // size):
            inside = tuple(hashes[i * size + 1 : (i + 1) * size + 1])
            self._pages.know(Known(pages[first + i], hashes[i * size], inside, frozenset(blocks)))

    def laid(self, rows: Rows) -> Rows:
        """The rows with what kernels and calls want to know of their pages; as they are where there are none."""
        if self._kernels is None:
            return self._laid_for_calls(rows) if self._calls else rows
        spans = [(s.position, s.length) for s in rows.segments]
        pages = [self._holdings[s.session].laid.pages for s in rows.segments]
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
            assert segment.length <= len(holding.laid.pages) * self.page_positions, "a Session stays within what it reserved"
            holding.held[block] = segment.length

    def _write(self, pool: Kept, holding: Holding, segment: Segment, x: Tensor) -> None:
        at, laid = segment.position, holding.laid
        while at < segment.length:
            page, row = divmod(at, self.page_positions)
            room = (laid.run - page if page < laid.run else 1) * self.page_positions - row
            end = min(segment.length, at + room)
            source = segment.start - segment.position
            pool.write(laid.pages[page] * self.page_positions + row, x[source + at : source + end])
            at = end

    def _laid_for_calls(self, rows: Rows) -> Rows:
        few = [s for s in rows.segments if s.end - s.start <= FEW_OF_A_SESSION]
        if not few:
            return rows
        spans = [(s.start, s.end - s.start, s.position) for s in few]
        sessions = Sessions.of(spans, [self._holdings[s.session].laid.index for s in few])
        others = () if len(few) == len(rows.segments) else tuple(s for s in rows.segments if s not in few)
        return Rows(rows.segments, rows.device, None, sessions, others)

    def places(self, block: int, rows: Rows) -> Places | None:
        """Where keys and values of `rows.sessions` are to be written, which is noted, and all before them lie.

        None, and nothing noted, where there are no such Sessions, or no calls read these pages.
        """
        sessions, pool = rows.sessions, self._pools[block]
        if sessions is None or not isinstance(pool.keys, Numbers) or not isinstance(pool.values, Numbers):
            return None
        self.note(block, rows)
        return Places(sessions, pool.keys.data, pool.values.data)

    def places_in(self, blocks: tuple[int, ...], rows: Rows) -> BlockPlaces | None:
        """The same of some Blocks at once."""
        if rows.sessions is None or (kept := self._addresses(blocks)) is None:
            return None
        for block in blocks:
            self.note(block, rows)
        return BlockPlaces(rows.sessions, self.page_positions, kept)

    def _addresses(self, blocks: tuple[int, ...]) -> ctypes.Array[ctypes.c_void_p] | None:
        """Where the keys and values of some Blocks are; None where they are not kept as numbers."""
        with suppress(KeyError):  # the loop may be adding a Block of another Plan, and clearing what is kept
            return self._kept[blocks]
        parts = [part for block in blocks for part in (self._pools[block].keys, self._pools[block].values)]
        numbers = [part.data.data_ptr() for part in parts if isinstance(part, Numbers)]
        found = (ctypes.c_void_p * len(parts))(*numbers) if len(numbers) == len(parts) else None
        self._kept[blocks] = found
        return found

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
            laid = self._holdings[segment.session].laid
            first = max(0, segment.position - window + 1) if window else 0
            keys = self._read(pool.keys, laid, first, segment.length)
            values = self._read(pool.values, laid, first, segment.length)
            parts.append(attend(q[segment.start : segment.end], keys, values, segment.position - first, window, sinks))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _read(self, pool: Kept, laid: Laid, first: int, end: int) -> Tensor:
        """Positions `first` to `end` of a Session, [P, KV, D]: in place where they lie side by side."""
        page, pages = first // self.page_positions, -(-end // self.page_positions)
        beside = pages <= laid.run
        found = pool.side_by_side(laid.pages[page], pages - page) if beside else pool.gathered(laid.index[page:pages])
        return found[first - page * self.page_positions : end - page * self.page_positions]
