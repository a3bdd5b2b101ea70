"""What was found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing: something is not used, or will be slow."""
    STOP = "stop"
    """A join would end here."""


@dataclass(frozen=True)
class Finding:
    """One of them; `remedy` is empty where there is nothing to do."""

    about: str
    level: Level
    what: str
    remedy: str = ""


def fine(about: str, what: str) -> Finding:
    return Finding(about, Level.OK, what)


def note(about: str, what: str, remedy: str) -> Finding:
    return Finding(about, Level.NOTE, what, remedy)


def stop(about: str, what: str, remedy: str) -> Finding:
    return Finding(about, Level.STOP, what, remedy)


def stopped(about: str, sentence: str) -> Finding:
    """From one of our errors, whose remedy stands behind its last colon."""
    what, colon, remedy = sentence.rpartition(": ")
    return stop(about, what, remedy) if colon else stop(about, sentence, "")
