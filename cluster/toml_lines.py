"""On which line each value of a TOML document begins: `tomllib` says it only of text that is no TOML.

Format: TOML 1.0. Only text that `tomllib` takes is looked at, so nothing is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")'
    r"|'''[\s\S]*?'{3,5}(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{},=\n]"
    r"|[^\s\[\]{},=\#\"']+",
    re.DOTALL,
)


@dataclass
class _Tokens:
    """Tokens with their lines, one at a time."""

    ahead: Iterator[tuple[str, int]]
    token: str = ""
    line: int = 1

    def step(self) -> str:
        self.token, self.line = next(self.ahead, ("", self.line))
        return self.token


@dataclass
class _Walk:
    tokens: _Tokens
    lines: dict[Path, int] = field(default_factory=dict)
    counts: dict[Path, int] = field(default_factory=dict)

    def document(self) -> None:
        table: Path = ()
        self.tokens.step()
        while self.tokens.token:
            if self.tokens.token == "\n":
                self.tokens.step()
            elif self.tokens.token == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        line, many = self.tokens.line, self.tokens.step() == "["
        if many:
            self.tokens.step()
        path: Path = ()
        for part in self._key("]"):
            path = self._latest((*path, part))
        while self.tokens.token == "]":
            self.tokens.step()
        if many and path:
            array = path[:-1] if isinstance(path[-1], int) else path
            path = (*array, self.counts.setdefault(array, 0))
            self.counts[array] += 1
        for depth in range(1, len(path) + 1):
            self.lines.setdefault(path[:depth], line)
        return path

    def _latest(self, path: Path) -> Path:
        return (*path, self.counts[path] - 1) if path in self.counts else path

    def _pair(self, table: Path) -> None:
        line = self.tokens.line
        path = (*table, *self._key("="))
        self.lines.setdefault(path, line)
        self.tokens.step()
        self._value(path)

    def _key(self, end: str) -> list[str]:
        parts: list[str] = []
        while self.tokens.token not in (end, ""):
            text = self.tokens.token
            parts += [text[1:-1]] if text[0] in "\"'" else [part for part in text.split(".") if part]
            self.tokens.step()
        return parts

    def _value(self, path: Path) -> None:
        self.lines.setdefault(path, self.tokens.line)
        if self.tokens.token == "[":
            self._array(path)
        elif self.tokens.token == "{":
            self._inline_table(path)
        else:
            while self.tokens.token not in (",", "]", "}", "\n", ""):
                self.tokens.step()

    def _array(self, path: Path) -> None:
        self.tokens.step()
        place = 0
        while self.tokens.token not in ("]", ""):
            if self.tokens.token in ("\n", ",", "=", "}"):
                self.tokens.step()
                continue
            self._value((*path, place))
            place += 1
        self.tokens.step()

    def _inline_table(self, path: Path) -> None:
        self.tokens.step()
        while self.tokens.token not in ("}", ""):
            if self.tokens.token in ("\n", ","):
                self.tokens.step()
                continue
            self._pair(path)
        self.tokens.step()


def lines_of(text: str) -> Mapping[Path, int]:
    """Line of every table, array element and value, by its keys and places: `("rig", 0, "devices", 1, "card")` → 4.

    Args:
        text: what `tomllib.loads` takes.
    """
    walk = _Walk(_Tokens(_tokens(text.replace("\r\n", "\n"))))
    walk.document()
    return walk.lines


def line_at(lines: Mapping[Path, int], path: Path) -> int:
    """The line of a value, or of the nearest thing around it that has one."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        if not match[0].startswith("#"):
            yield match[0], line
        line += match[0].count("\n")
