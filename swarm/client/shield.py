"""What keeps a person's words from becoming control tokens where a template mixes them with its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Json = Any
"""What JSON can say."""


class Shield:
    """Marks every place in a person's text where a control token would be read, and takes the marks out again.

    The mark is a private-use character that nobody in the chat uses; it goes inside each control token's text, and at
    an end of a message that could complete, or begin, one together with the template's text beside it. Other added
    tokens (`<think>`, `<tool_call>`) are vocabulary: any text may have them.
    """

    def __init__(self, specials: Mapping[str, int], controls: set[str], swallows: Mapping[str, tuple[bool, bool]]) -> None:
        """`specials`: ids by text of all added tokens; `controls`: those of them that no text of a person gives;
        `swallows`: those that take in the white space before them, or after them."""
        self._ids = dict(specials)
        names = sorted(specials, key=len, reverse=True)
        self._special = _any_of([_pattern(name, *swallows.get(name, (False, False))) for name in names])
        self._control = _any_of([re.escape(name) for name in names if name in controls])
        self._beginnings = {name[:size] for name in controls for size in range(1, len(name))}
        self._ends = {name[size:] for name in controls for size in range(1, len(name))}
        self._longest = max(map(len, controls), default=0)

    def cover(self, values: Mapping[str, Json]) -> tuple[dict[str, Json], str]:
        """The template's values with marks in all texts but roles, and the mark."""
        used = {character for text in _texts(values) for character in text if character >= "\ue000"}
        mark = next(character for character in map(chr, range(0xE000, 0x110000)) if character not in used)
        return {key: self._covered(value, mark) for key, value in values.items()}, mark

    def split(self, text: str, mark: str) -> Iterator[tuple[str, int | None]]:
        """Text without marks and special tokens (with their ids), in order; no empty text."""
        end = 0
        for match in self._special.finditer(text):
            if plain := text[end : match.start()].replace(mark, ""):
                yield plain, None
            name = match.group() if match.group() in self._ids else match.group().strip()
            yield name, self._ids[name]
            end = match.end()
        if plain := text[end:].replace(mark, ""):
            yield plain, None

    def _covered(self, value: Json, mark: str) -> Json:
        if isinstance(value, str):
            return self._marked(value, mark)
        if isinstance(value, list):
            return [self._covered(item, mark) for item in value]
        if isinstance(value, dict):
            return {self._marked(k, mark): v if k in ("role", "type") else self._covered(v, mark) for k, v in value.items()}
        return value

    def _marked(self, text: str, mark: str) -> str:
        core = text.strip()
        if not core:
            return text
        lead, trail = text[: text.index(core)], text[text.index(core) + len(core) :]
        # A one-character control token cannot be broken inside, so it is dropped.
        core = self._control.sub(lambda match: mark.join(match.group()) if len(match.group()) > 1 else mark, core)
        sizes = range(1, min(len(core), self._longest) + 1)
        before = mark if any(core[:size] in self._ends for size in sizes) else ""
        after = mark if any(core[-size:] in self._beginnings for size in sizes) else ""
        return lead + before + core + after + trail


def _any_of(patterns: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns) or r"(?!)")


def _pattern(name: str, before: bool, after: bool) -> str:
    return (r"\s*" if before else "") + re.escape(name) + (r"\s*" if after else "")


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
