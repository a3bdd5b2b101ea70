"""What keeps a person's words from becoming special tokens where a template mixes them with its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from swarm.client.messages import Message


class Shield:
    """Marks every place in a person's text where a special token would be read, and takes the marks out again.

    The mark is a private-use character that nobody in the chat uses; it goes inside each special token's text, and at
    an end of the message that could complete, or begin, one together with the template's text beside it.
    """

    def __init__(self, specials: Mapping[str, int]) -> None:
        self._ids = dict(specials)
        names = sorted(specials, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._beginnings = {name[:size] for name in names for size in range(1, len(name))}
        self._ends = {name[size:] for name in names for size in range(1, len(name))}
        self._longest = max(map(len, names), default=0)

    def cover(self, chat: Sequence[Message]) -> tuple[list[Message], str]:
        """The chat with marks, and the mark."""
        used = set().union(*(message["content"] for message in chat))
        mark = next(character for character in map(chr, range(0xE000, 0x110000)) if character not in used)
        return [Message(role=message["role"], content=self._marked(message["content"], mark)) for message in chat], mark

    def split(self, text: str, mark: str) -> Iterator[tuple[str, int | None]]:
        """Text without marks and special tokens (with their ids), in order; no empty text."""
        end = 0
        for match in self._special.finditer(text):
            if plain := text[end : match.start()].replace(mark, ""):
                yield plain, None
            yield match.group(), self._ids[match.group()]
            end = match.end()
        if plain := text[end:].replace(mark, ""):
            yield plain, None

    def _marked(self, text: str, mark: str) -> str:
        core = text.strip()
        if not core:
            return text
        lead, trail = text[: text.index(core)], text[text.index(core) + len(core) :]
        # A one-character special token cannot be broken inside, so it is dropped.
        core = self._special.sub(lambda match: mark.join(match.group()) if len(match.group()) > 1 else mark, core)
        sizes = range(1, min(len(core), self._longest) + 1)
        before = mark if any(core[:size] in self._ends for size in sizes) else ""
        after = mark if any(core[-size:] in self._beginnings for size in sizes) else ""
        return lead + before + core + after + trail
