"""A rig's terminal: lines that stay, and below them, while the swarm does something, one that says how far it is."""

from __future__ import annotations

from contextlib import suppress

from rich.console import RenderableType
from rich.status import Status

from swarm.cli import output


class Screen:
    """All that `up` and `join` print goes through here: two consoles would write into each other's lines.

    A terminal that is gone (a window closed, a connection lost) takes nothing more, which is no reason to serve no more.
    """

    def __init__(self) -> None:
        self._news, self._facts = output.stderr(), output.stdout()
        if self._news.is_terminal and self._facts.is_terminal:
            self._facts = self._news
        self._bottom: Status | None = None

    def tell(self, message: str) -> None:
        """News, on standard error."""
        with suppress(OSError):
            self._news.print(message, soft_wrap=True)

    def show(self, what: RenderableType = "") -> None:
        """What was asked for, on standard output. Text is not broken into lines, so that it can be copied."""
        with suppress(OSError):
            self._facts.print(what, soft_wrap=isinstance(what, str))

    def doing(self, activity: str) -> None:
        """What the bottom line says; none where it is empty, or where no terminal is."""
        with suppress(OSError):
            self._do(activity)

    def _do(self, activity: str) -> None:
        if self._bottom is not None and not activity:
            self._bottom.stop()
            self._bottom = None
        elif self._bottom is not None:
            self._bottom.update(activity)
        elif activity and self._news.is_terminal:
            self._bottom = self._news.status(activity)
            self._bottom.start()
