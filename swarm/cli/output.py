"""How the command line speaks: rich consoles and JSON documents.

Answers and documents go to standard output; everything said about them goes to standard error, so that a pipe
carries what was asked for and nothing else. Colour, tables' lines and progress bars are off where no terminal reads.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console

PIPE_WIDTH = 240
"""Columns where no terminal says how many it has: wide enough that no table cell is cut."""


def write_what_the_encoding_holds() -> None:
    """Have a `?` written for a character that standard output's encoding lacks, instead of failing half way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def give_up_stdout() -> None:
    """Let what is still buffered for standard output go: it cannot be written, and Python would try again as it ends."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextlib.contextmanager
def only_ours() -> Iterator[None]:
    """What libraries write to standard output by themselves, below Python, goes to standard error meanwhile."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # it is closed: nothing can get into it
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def stdout() -> Console:
    """The console for answers, tables and documents."""
    return _console(sys.stdout)


def open_what_is_closed() -> None:
    """A program that was started with standard streams closed has none: what goes there goes nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (as long as the process)


def stderr() -> Console:
    """The console for progress, timings and errors."""
    return _console(sys.stderr)


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output, with a newline at its end. JSON has no infinities: they become null."""
    utf8 = "utf" in (sys.stdout.encoding or "").lower()
    sys.stdout.write(json.dumps(_finite(document), ensure_ascii=not utf8, allow_nan=False) + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _console(stream: TextIO) -> Console:
    # Nothing is markup or a highlighted number unless a caller asks: answers and paths contain brackets.
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)
