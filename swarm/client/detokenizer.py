"""`TextStream` for sentencepiece: token ids to text as they come, without ever splitting a character.

All pieces of text together are what `decode` makes of all the ids: sentencepiece's own rules
(`SentencePieceProcessor::Decode`) applied one token at a time, in time linear in the number of tokens.
"""

from __future__ import annotations

from typing import Protocol

_REPLACEMENT = "\ufffd"


class Surfaces(Protocol):
    """What a sentencepiece vocabulary says of one token."""

    def byte(self, token: int) -> int | None:
        """The byte that a byte-fallback token stands for, else None."""
        ...

    def surface(self, token: int, first: bool) -> str:
        """What a token that is no byte shows: `first` where nothing stands before it (its leading space is dropped)."""
        ...

    def is_dropped_space(self, token: int) -> bool:
        """Whether the token is nothing but the leading space that a beginning loses."""
        ...


class Detokenizer:
    """One answer's text, as far as it is certain."""

    def __init__(self, tokenizer: Surfaces) -> None:
        self._tokenizer = tokenizer
        self._first = True
        self._bytes = bytearray()

    def push(self, token: int) -> str:
        """The text that this token makes certain: empty for control tokens and inside a character spelt in bytes."""
        byte = self._tokenizer.byte(token)
        if byte is not None:
            self._first = False
            self._bytes.append(byte)
            return self._characters(more_may_come=True)
        return self._characters(more_may_come=False) + self._show(token)

    def finish(self) -> str:
        """What was held back: bytes that no character came of, as U+FFFD each."""
        return self._characters(more_may_come=False)

    def _show(self, token: int) -> str:
        text = self._tokenizer.surface(token, self._first)
        self._first = self._first and not text and not self._tokenizer.is_dropped_space(token)
        return text

    def _characters(self, more_may_come: bool) -> str:
        text = ""
        while self._bytes:
            found = _first_character(self._bytes)
            if found is None and more_may_come:
                break
            character, size = found or (_REPLACEMENT, 1)
            del self._bytes[:size]
            text += character
        return text


def _first_character(data: bytearray) -> tuple[str, int] | None:
    """The first character and its size in bytes; None where more bytes could still complete it.

    As in sentencepiece, a byte that begins no character is one U+FFFD, and the next byte is a new beginning.
    """
    size = _character_size(data[0])
    if size == 0 or any(byte & 0xC0 != 0x80 for byte in data[1:size]):
        return _REPLACEMENT, 1
    if len(data) < size:
        return None
    try:
        return data[:size].decode("utf-8"), size
    except UnicodeDecodeError:  # an overlong form, a surrogate, or beyond U+10FFFF
        return _REPLACEMENT, 1


def _character_size(lead: int) -> int:
    """Bytes of the UTF-8 character that begins with this byte; 0 where none does."""
    if lead < 0x80:
        return 1
    if 0xC2 <= lead <= 0xDF:
        return 2
    if 0xE0 <= lead <= 0xEF:
        return 3
    return 4 if 0xF0 <= lead <= 0xF4 else 0
