"""The waterfall of a token as a picture of 80 columns: a line a piece, its bar where it lies in the token's time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from swarm.client.waterfall import COUNTED, SHARED, Span, Waterfall

BAR_CELLS = 30
LEAST_S = 5e-6
"""What is shorter is not shown: it rounds to nothing."""
STYLES = {"compute": "green", "queue": "yellow", "shard wait": "magenta", "hop": "cyan", "client": "blue"}
KNOWN = {COUNTED: "half of there and back", SHARED: "an equal part of what is left"}


@dataclass(frozen=True)
class Piece:
    """One line."""

    name: str
    kind: str
    seconds: float


def waterfall_picture(fall: Waterfall, title: str) -> RenderableType:
    """One way's mean token."""
    whole = fall.traversal_s + fall.client_s
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(max_width=30, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    at = 0.0
    for piece in pieces(fall):
        share = piece.seconds / whole if whole else 0.0
        table.add_row(piece.name, f"{piece.seconds * 1e3:.2f} ms", f"{share:4.0%}", _bar(at, share, STYLES[piece.kind]))
        at += share
    total = f"{fall.traversal_s * 1e3:.2f} ms through the stages and back, {fall.client_s * 1e3:.2f} ms of the client's own"
    return Group(Text(title, style="bold"), table, Text(f"{total}; mean of {fall.traversals}", style="dim"), *_told(fall))


def pieces(fall: Waterfall) -> Iterator[Piece]:
    """In the order in which they come; the client's two ways, which nobody can tell apart, stand together at the end."""
    for at, span in enumerate(fall.stages):
        if at:
            yield Piece(f"{fall.stages[at - 1].worker} → {span.worker}", "hop", span.hop_s)
        yield from _own(span)
    yield Piece("client's two ways", "hop", fall.stages[0].hop_s)
    yield Piece("client", "client", fall.client_s)


def _own(span: Span) -> Iterator[Piece]:
    for kind, seconds in (("queue", span.queue_s), ("compute", span.compute_s), ("shard wait", span.shard_wait_s)):
        if kind == "compute" or seconds > LEAST_S:
            yield Piece(f"{span.worker} {kind}", kind, seconds)


def _bar(at: float, share: float, style: str) -> Text:
    """Filled from its beginning to its end, at least one cell."""
    start = min(BAR_CELLS - 1, round(at * BAR_CELLS))
    cells = max(1, min(BAR_CELLS, round((at + share) * BAR_CELLS)) - start)
    return Text(" " * start).append("█" * cells, style=style)


def _told(fall: Waterfall) -> Iterator[Text]:
    """How the Hops between different machines are known."""
    for how, words in KNOWN.items():
        if names := [span.worker for span in fall.stages if span.hop_by == how]:
            yield Text(f"hops to {', '.join(names)}: {words}; clocks of different rigs are not compared", style="dim")
