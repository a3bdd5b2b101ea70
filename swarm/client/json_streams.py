"""`TextStream` for `tokenizer.json`: token ids to text as they come, together what the library makes of all of them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Protocol

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Decoding(Protocol):
    """As much of a tokenizer as streams need."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        ...

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        ...

    def piece(self, token: int) -> str:
        """The token as the vocabulary spells it."""
        ...

    def is_control(self, token: int) -> bool:
        """Whether it never shows."""
        ...


def byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes for bytes: GPT-2's table, printable Latin-1 first, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


class ByteStream:
    """For byte-level BPE: tokens are bytes, of which characters are made as they complete."""

    def __init__(self, tokenizer: Decoding) -> None:
        self._tokenizer = tokenizer
        self._alphabet = byte_alphabet()
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that this token completes."""
        return "" if self._tokenizer.is_control(token) else self._characters.decode(self._bytes(token))

    def finish(self) -> str:
        """What was held back: bytes that no character came of, as U+FFFD."""
        return self._characters.decode(b"", final=True)

    def _bytes(self, token: int) -> bytes:
        piece = self._tokenizer.piece(token)
        try:
            return bytes(self._alphabet[character] for character in piece)
        except KeyError:  # a token that was added as plain text
            return piece.encode()


class PieceStream:
    """For pieces that spell spaces as `▁`, and characters that have no piece as `<0xE4>`.

    The library makes a character of each such byte only when all neighbours are known, so a run of them is held back.
    """

    def __init__(self, tokenizer: Decoding) -> None:
        self._tokenizer = tokenizer
        self._anchor = next((i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).strip()), 0)
        self._anchor_text = tokenizer.decode([self._anchor])
        self._run: list[int] = []
        self._first = True

    def push(self, token: int) -> str:
        """The text that this token makes certain."""
        if self._tokenizer.is_control(token):
            return ""
        if _BYTE.fullmatch(self._tokenizer.piece(token)):
            self._run.append(token)
            return ""
        return self.finish() + self._text([token])

    def finish(self) -> str:
        """The run of bytes that was held back."""
        run, self._run = self._run, []
        return self._text(run) if run else ""

    def _text(self, ids: list[int]) -> str:
        """What tokens show; the first of a text lose a leading space."""
        if self._first:
            self._first = False
            return self._tokenizer.decode(ids)
        return self._tokenizer.decode([self._anchor, *ids])[len(self._anchor_text) :]
