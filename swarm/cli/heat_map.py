"""What routers chose as a heat map: a Block a line, an expert a cell; or one Block, an expert a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.color import Color
from rich.style import Style
from rich.table import Table
from rich.text import Text

from swarm.cli.block_counts import BlockCounts
from swarm.cli.tables import spans

MOST_COLUMNS = 32
"""Experts of a Block that get a column each."""
COLD, HOT = (20, 28, 56), (255, 176, 32)
BAR_CELLS = 24


def heat_map(blocks: Sequence[BlockCounts]) -> Table:
    """All Blocks. Colour, and beyond `MOST_COLUMNS` experts a digit, say how near each is to the hottest of its Block."""
    wide = max(len(b.counts) for b in blocks) > MOST_COLUMNS
    routes = len({b.route for b in blocks}) > 1
    table = _table("route" if routes else None, "block")
    for expert in [] if wide else range(max(len(b.counts) for b in blocks)):
        table.add_column(str(expert), justify="right", no_wrap=True)
    if wide:
        table.add_column("experts, from 0 on", overflow="fold")
    for name in ("chosen", "where"):
        table.add_column(name, justify="right" if name == "chosen" else "left", no_wrap=name == "chosen")
    for block in blocks:
        front = [str(block.route)] if routes else []
        cells = [_digits(block)] if wide else list(_cells(block))
        table.add_row(*front, str(block.block), *cells, str(sum(block.counts)), _where(block))
    return table


def one_block(block: BlockCounts) -> Table:
    """One Block: how often each expert was chosen, its share as a number and as a bar, and who holds it."""
    table = _table("expert", "chosen", "share")
    table.add_column("")
    table.add_column("held by")
    hottest = max(block.shares)
    for expert, (count, share) in enumerate(zip(block.counts, block.shares, strict=True)):
        bar = Text("█" * round(BAR_CELLS * share / hottest), style=Style(color=_colour(share / hottest)))
        table.add_row(str(expert), str(count), f"{share:.1%}", bar, _holder(block, expert))
    return table


def _table(*columns: str | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in columns:
        if name:
            table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(block: BlockCounts) -> Iterator[Text]:
    hottest = max(block.shares)
    for expert, share in enumerate(block.shares):
        mark = ">" if expert in block.away else "+" if expert in block.copies else " "
        yield Text(f"{100 * share:3.0f}{mark}", style=_style(share / hottest))


def _digits(block: BlockCounts) -> Text:
    text, hottest = Text(), max(block.shares)
    for share in block.shares:
        text.append(str(round(9 * share / hottest)), style=_style(share / hottest))
    return text


def _style(heat: float) -> Style:
    return Style(color="black" if heat > 0.5 else "white", bgcolor=_colour(heat))


def _colour(heat: float) -> Color:
    """From cold (0) to hot (1)."""
    red, green, blue = (cold + heat * (hot - cold) for cold, hot in zip(COLD, HOT, strict=True))
    return Color.from_rgb(red, green, blue)


def _where(block: BlockCounts) -> str:
    words = [block.worker]
    words += [f"{ids} on {worker}" for ids, worker in _by_worker(block.away)]
    words += [f"copies of {ids} on {worker}" for ids, worker in _by_worker(block.copies)]
    return " · ".join(words)


def _by_worker(holders: Mapping[int, str]) -> list[tuple[str, str]]:
    workers = dict.fromkeys(holders.values())
    return [(spans(tuple(e for e, at in holders.items() if at == worker)), worker) for worker in workers]


def _holder(block: BlockCounts, expert: int) -> str:
    if expert in block.away:
        return f"{block.away[expert]}, for {block.worker}"
    copy = block.copies.get(expert)
    return f"{block.worker}, copy on {copy}" if copy else block.worker
