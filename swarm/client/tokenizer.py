"""Text to token ids and back, over a checkpoint's sentencepiece model.

Token ids beyond the sentencepiece model are those that `tokenizer_config.json` adds (`<|im_start|>` and its like).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sentencepiece import SentencePieceProcessor

from swarm.client.asset import asset_object, eos_entry, special_text
from swarm.errors import ModelError

_MODEL_NAME = re.compile(r"(.*\.)?model(\.v\d+(m\d+)?)?")
_UNREADABLE = ("tokenizer.json", "tekken.json", "vocab.json")


@dataclass(frozen=True)
class AddedToken:
    """One entry of `added_tokens_decoder`; a special one never shows in text."""

    content: str
    special: bool


class Tokenizer:
    """A sentencepiece model with the special tokens that the checkpoint adds to it."""

    def __init__(
        self, processor: SentencePieceProcessor, bos_id: int, eos_ids: tuple[int, ...], added: Mapping[int, AddedToken]
    ) -> None:
        self._processor = processor
        self._size = int(processor.vocab_size())
        self._added = {i: token for i, token in added.items() if i >= self._size}
        self._anchor = self._an_anchor()
        self._anchor_text = str(processor.decode([self._anchor]))
        space = processor.piece_to_id("▁")
        self._drops_all_spaces = processor.decode([space, space]) == ""
        self.bos_id = bos_id
        self.eos_ids = eos_ids
        """Any of these ends an answer; the first is the one that a chat format writes."""
        self.vocab_size = max([self._size, *(i + 1 for i in self._added)])
        self.specials = self._named_specials(added)
        """Token ids by text of everything that stands for itself in a template's output and never in a person's text."""

    @classmethod
    def from_assets(cls, assets: Mapping[str, bytes]) -> Tokenizer:
        """Build from a model's small files, by file name.

        Args:
            assets: `tokenizer.model` or a versioned name (`tokenizer.model.v3`); `tokenizer_config.json`,
                `generation_config.json` and `config.json` are read where they are there.

        Raises:
            ModelError: there is no sentencepiece model, or it cannot be read.
        """
        name = _model_name(assets)
        processor = _processor(name, assets[name])
        added = _added_tokens(assets)
        bos = int(processor.bos_id())
        if bos < 0:
            raise ModelError(f"{name} has no beginning-of-text token, without which swarm cannot prompt: choose another model")
        return cls(processor, bos, _eos_ids(assets, processor, added), added)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text by itself, without bos; no text ever gives a control token."""
        try:
            text.encode()
        except UnicodeEncodeError:  # a terminal hands over lone surrogates where it read bytes that are no UTF-8
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return list(map(int, self._processor.encode(text)))

    def encode_after(self, text: str) -> list[int]:
        """Token ids of a text that follows other text: without the space that sentencepiece puts before a beginning."""
        # U+FDD0 is no character, so no piece has it and nothing merges with it.
        lead = self.encode("\ufdd0")
        return self.encode("\ufdd0" + text)[len(lead) :]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without control tokens; bytes that are no UTF-8 become U+FFFD."""
        text = ""
        for shown, group in itertools.groupby(ids, self._is_text_of_added):
            run = list(group)
            if shown:
                text += "".join(self._added[i].content for i in run)
            else:
                known = [i if 0 <= i < self._size else self.bos_id for i in run]
                text += self._decode_after(known) if text else str(self._processor.decode(known))
        return text

    def surface(self, token: int, first: bool) -> str:
        """What a token that is no byte shows: `first` where nothing stands before it (its leading space is dropped)."""
        if self._is_text_of_added(token):
            return self._added[token].content
        if self.is_control(token):
            return ""
        return str(self._processor.decode([token])) if first else self._decode_after([token])

    def is_dropped_space(self, token: int) -> bool:
        """Whether the token is nothing but the leading space that a beginning loses (after it, spaces count)."""
        return self.piece(token) == "▁" and not self._drops_all_spaces

    def byte(self, token: int) -> int | None:
        """The byte that a byte-fallback token stands for, else None."""
        if not 0 <= token < self._size or not self._processor.is_byte(token):
            return None
        return int(self.piece(token)[1:-1], 16)

    def piece(self, token: int) -> str:
        """The token as the vocabulary spells it (`▁Paris`, `<0x0A>`, `</s>`); empty for an id that it does not have."""
        if 0 <= token < self._size:
            return str(self._processor.id_to_piece(token))
        return self._added[token].content if token in self._added else ""

    def id_of(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary spells it; None where it has none."""
        token = int(self._processor.piece_to_id(piece))
        return token if self.piece(token) == piece else self.specials.get(piece)

    def is_control(self, token: int) -> bool:
        """Whether the token never shows in text: control pieces, added special tokens, ids that the vocabulary lacks."""
        if 0 <= token < self._size:
            return bool(self._processor.is_control(token))
        return token not in self._added or self._added[token].special

    def _is_text_of_added(self, token: int) -> bool:
        return token in self._added and not self._added[token].special

    def _decode_after(self, ids: list[int]) -> str:
        return str(self._processor.decode([self._anchor, *ids]))[len(self._anchor_text) :]

    def _an_anchor(self) -> int:
        for i in range(self._size):
            if not self._processor.is_control(i) and not self._processor.is_byte(i) and self._processor.decode([i]):
                return i
        raise ModelError("the tokenizer has no piece that shows any text: fetch tokenizer.model again")

    def _named_specials(self, added: Mapping[int, AddedToken]) -> dict[str, int]:
        control = {self.piece(i): i for i in range(self._size) if self._processor.is_control(i)}
        return control | {token.content: i for i, token in added.items() if token.content}


def _model_name(assets: Iterable[str]) -> str:
    names = sorted((name for name in assets if _MODEL_NAME.fullmatch(name)), key=lambda name: (name != "tokenizer.model", name))
    if names:
        return names[0]
    others = [name for name in _UNREADABLE if name in assets]
    if others:
        raise ModelError(f"the model has its tokenizer only as {others[0]}, which swarm cannot read: add its tokenizer.model")
    raise ModelError("the model comes without a tokenizer: add its tokenizer.model (sentencepiece) to the folder")


def _processor(name: str, data: bytes) -> SentencePieceProcessor:
    try:
        processor = SentencePieceProcessor(model_proto=data) if data else None
    except RuntimeError:
        processor = None
    if processor is None or processor.vocab_size() <= 0:
        raise ModelError(f"{name} is not a sentencepiece model: fetch it again")
    return processor


def _added_tokens(assets: Mapping[str, bytes]) -> dict[int, AddedToken]:
    raw = asset_object(assets, "tokenizer_config.json").get("added_tokens_decoder") or {}
    try:
        return {int(i): AddedToken(str(entry["content"]), bool(entry.get("special"))) for i, entry in raw.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ModelError("tokenizer_config.json lists added_tokens_decoder in no form that swarm knows: fetch it again") from None


def _eos_ids(assets: Mapping[str, bytes], processor: SentencePieceProcessor, added: Mapping[int, AddedToken]) -> tuple[int, ...]:
    """All tokens that end an answer, the one that the tokenizer's own config names first."""
    named = special_text(asset_object(assets, "tokenizer_config.json").get("eos_token"))
    ids = [i for i, token in added.items() if named and token.content == named]
    if named and not ids and processor.id_to_piece(processor.piece_to_id(named)) == named:
        ids = [int(processor.piece_to_id(named))]
    for name in ("generation_config.json", "config.json"):
        ids += eos_entry(assets, name)
    ids.append(int(processor.eos_id()))
    return tuple(dict.fromkeys(i for i in ids if i >= 0))
