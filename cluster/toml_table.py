"""One table of a file that a person wrote: its values checked, its mistakes named by file and line."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cluster.toml_lines import Path, line_at, lines_of
from swarm.errors import UsageError

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a table"}


@dataclass(frozen=True)
class Table:
    """A table, and where it stands."""

    values: Mapping[str, Any]
    where: str
    lines: Mapping[Path, int]
    path: Path = ()

    def wrong(self, key: str | int, problem: str) -> UsageError:
        """What is wrong with one of its values, by file and line."""
        return UsageError(f"{self.where} line {line_at(self.lines, (*self.path, key))}: {problem}")

    def only(self, known: Sequence[str], example: str) -> None:
        """Raise UsageError for a key that is none of `known`."""
        for key in self.values:
            if key not in known:
                near = get_close_matches(key, known, 1)
                meant = f"write {near[0]}" if near else f"write {', '.join(known)}, such as {example}"
                raise self.wrong(key, f"there is no {_shown(key)} here: {meant}")

    def has(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str, example: str) -> str:
        """A text that can stand in a message: not empty, one line, at most 64 characters."""
        value = self._value(key, example)
        if not isinstance(value, str):
            raise self.wrong(key, f"{key} is {_kind(value)} and must be a text: write {example}")
        if not value.strip() or not value.isprintable() or len(value) > 64:
            raise self.wrong(key, f"{key} must have 1 to 64 characters that can be printed: write {example}")
        return value.strip()

    def number(self, key: str, example: str, least: float, most: float) -> float:
        """A finite number from `least` to `most`."""
        value = self._value(key, example)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"{key} is {_kind(value)} and must be a number: write {example}")
        if not math.isfinite(value if isinstance(value, float) else 0) or not least <= value <= most:
            raise self.wrong(key, f"{key} must be from {least:g} to {most:g}: write {example}")
        return float(value)

    def table(self, key: str, example: str) -> Table:
        return self._inner((key,), self._value(key, example), example)

    def tables(self, key: str, example: str) -> tuple[Table, ...]:
        """A list of tables, at least one."""
        value = self._value(key, example)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, f"{key} must be a list with something in it: write {example}")
        return tuple(self._inner((key, place), each, example) for place, each in enumerate(value))

    def texts(self, key: str, example: str) -> tuple[str, ...]:
        value = self._value(key, example)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.wrong(key, f"{key} must be a list of texts: write {example}")
        return tuple(value)

    def _inner(self, at: Path, value: Any, example: str) -> Table:
        if not isinstance(value, dict):
            raise UsageError(
                f"{self.where} line {line_at(self.lines, (*self.path, *at))}: {at[0]} is {_kind(value)} "
                f"and must be a table: write {example}"
            )
        return Table(value, self.where, self.lines, (*self.path, *at))

    def _value(self, key: str, example: str) -> Any:
        if key not in self.values:
            line = line_at(self.lines, self.path)
            raise UsageError(f"{self.where} line {line}: {key} is missing: write {example}")
        return self.values[key]


def read_table(text: str, where: str) -> Table:
    """The document. Raises UsageError, by line, where the text is no TOML."""
    try:
        return Table(tomllib.loads(text), where, lines_of(text))
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        place = _PLACE.search(said)
        line = int(place[1]) if place and place[1] else text.count("\n", 0, len(text.rstrip())) + 1
        problem = _shown(_PLACE.sub("", said))
        raise UsageError(f"{where} line {line}: this is not TOML ({problem}): look at quotes, brackets and commas there") from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{where} cannot be read as TOML ({_shown(str(error))}): write it as docs/placement.md shows") from None


def repeated(names: Sequence[str]) -> Iterator[int]:
    """Places of names that stand further ahead too."""
    return (place for place, name in enumerate(names) if name in names[:place])


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a date")


def _shown(text: str) -> str:
    """What can stand in a one-line message."""
    return "".join(c if c.isprintable() else "?" for c in text)[:100]
