"""Text to token ids and back: what every kind of tokenizer does, and which kind a checkpoint has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from swarm.client.chat_template import template_of
from swarm.client.json_tokenizer import JsonTokenizer
from swarm.client.mistral_vocabulary import is_mistral, speaks_mistral
from swarm.client.sentencepiece_tokenizer import SentencePieceTokenizer
from swarm.errors import ModelError

_SENTENCEPIECE = re.compile(r"(.*\.)?model(\.v\d+(m\d+)?)?")
_JSON = "tokenizer.json"
_UNREADABLE = ("tekken.json", "vocab.json", "tiktoken.model")


class TextStream(Protocol):
    """One answer's text, token by token: all pieces together are what `decode` makes of all the ids."""

    def push(self, token: int) -> str:
        """The text that this token makes certain: empty for control tokens and inside a character."""
        ...

    def finish(self) -> str:
        """What was held back."""
        ...


class Tokenizer(Protocol):
    """A checkpoint's vocabulary, with the special tokens that it adds."""

    @property
    def opening(self) -> tuple[int, ...]:
        """What stands before a text that is encoded whole: bos, or nothing."""
        ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Any of these ends an answer; the first is the one that a chat format writes."""
        ...

    @property
    def vocab_size(self) -> int:
        """The number of ids, gaps counted."""
        ...

    @property
    def specials(self) -> Mapping[str, int]:
        """Token ids by text of everything that stands for itself in a template's output."""
        ...

    @property
    def swallows(self) -> Mapping[str, tuple[bool, bool]]:
        """Of these, by text, those that take the white space before them, or after them, in."""
        ...

    @property
    def named(self) -> Mapping[str, str]:
        """Texts of tokens by what the checkpoint calls them: bos_token, eos_token, unk_token and such."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text by itself, without what `opening` has; no text ever gives a control token."""
        ...

    def encode_after(self, text: str) -> list[int]:
        """Token ids of a text that follows other text: without the space that some put before a beginning."""
        ...

    def encode_after_special(self, text: str) -> list[int]:
        """Token ids of a text that follows a special token, as transformers encodes it there."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without control tokens; bytes that are no UTF-8 become U+FFFD."""
        ...

    def stream(self) -> TextStream:
        """A new answer's text."""
        ...

    def piece(self, token: int) -> str:
        """The token as the vocabulary spells it; empty for an id that it does not have."""
        ...

    def id_of(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary spells it; None where it has none."""
        ...

    def is_control(self, token: int) -> bool:
        """Whether the token never shows in text; so are ids that the vocabulary lacks."""
        ...


def read_tokenizer(assets: Mapping[str, bytes]) -> Tokenizer:
    """The tokenizer of a model, from its small files by name.

    Where a checkpoint has both kinds, `tokenizer.json` is taken, as transformers takes it: special tokens that were
    added after training are often in it alone. A model in one of Mistral's own formats is the exception: its truth is
    mistral-common, which reads sentencepiece.

    Raises:
        ModelError: there is no tokenizer that we can read, or it is broken.
    """
    name = _sentencepiece_name(assets)
    if name is None and _JSON not in assets:
        raise _nothing_to_read(assets)
    if name is not None:
        if _JSON not in assets:
            return SentencePieceTokenizer.read(name, assets)
        if speaks_mistral(template_of(assets)):
            sentencepiece = SentencePieceTokenizer.read(name, assets)
            if is_mistral(sentencepiece):
                return sentencepiece
    return JsonTokenizer.read(_JSON, assets)


def _sentencepiece_name(assets: Iterable[str]) -> str | None:
    names = [name for name in assets if _SENTENCEPIECE.fullmatch(name) and name not in _UNREADABLE]
    return min(names, key=lambda name: (name != "tokenizer.model", name), default=None)


def _nothing_to_read(assets: Mapping[str, bytes]) -> ModelError:
    others = [name for name in _UNREADABLE if name in assets]
    if others:
        return ModelError(
            f"the model has its tokenizer only as {others[0]}, which swarm cannot read: add its tokenizer.json or tokenizer.model"
        )
    return ModelError("the model comes without a tokenizer: add its tokenizer.json, or its tokenizer.model, to the folder")
