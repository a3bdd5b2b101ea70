"""`Tokenizer` over a checkpoint's sentencepiece model.

Token ids beyond the sentencepiece model are those that `tokenizer_config.json` adds (`<|im_start|>` and its like).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from sentencepiece import SentencePieceProcessor

from swarm.client.added_tokens import CONFIG, AddedToken, added_tokens, eos_ids, named_tokens
from swarm.client.asset import asset_object
from swarm.client.detokenizer import Detokenizer
from swarm.errors import ModelError


class SentencePieceTokenizer:
    """A sentencepiece model with the special tokens that the checkpoint adds to it."""

    def __init__(self, processor: SentencePieceProcessor, assets: Mapping[str, bytes]) -> None:
        added = added_tokens(assets)
        self._processor = processor
        self._size = int(processor.vocab_size())
        self._added = {i: token for i, token in added.items() if i >= self._size}
        self._anchor = self._an_anchor()
        self._anchor_text = str(processor.decode([self._anchor]))
        space = processor.piece_to_id("▁")
        self._drops_all_spaces = processor.decode([space, space]) == ""
        # transformers' name for putting sentencepiece's leading space after special tokens, too.
        self._space_after_special = asset_object(assets, CONFIG).get("legacy") is not False
        self.bos_id = int(processor.bos_id())
        self.opening: tuple[int, ...] = (self.bos_id,)
        self.vocab_size = max([self._size, *(i + 1 for i in self._added)])
        self.specials: Mapping[str, int] = self._named_specials(added)
        self.swallows: Mapping[str, tuple[bool, bool]] = {
            token.content: (token.lstrip, token.rstrip) for token in added.values() if token.lstrip or token.rstrip
        }
        self.eos_ids = self._ends(assets)
        self.named: Mapping[str, str] = {
            "bos_token": self.piece(self.bos_id),
            "eos_token": self.piece(self.eos_ids[0]) if self.eos_ids else "",
            **named_tokens(assets),
        }

    @classmethod
    def read(cls, name: str, assets: Mapping[str, bytes]) -> SentencePieceTokenizer:
        """From the asset of that name; `tokenizer_config.json`, `generation_config.json` and `config.json` are read, too.

        Raises:
            ModelError: it is no sentencepiece model, or the other files make no sense.
        """
        processor = _processor(name, assets[name])
        if int(processor.bos_id()) < 0:
            raise ModelError(f"{name} has no beginning-of-text token, without which swarm cannot prompt: choose another model")
        return cls(processor, assets)

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

    def encode_after_special(self, text: str) -> list[int]:
        """Token ids of a text behind a special token, where transformers puts the leading space unless `legacy` is false."""
        return self.encode(text) if self._space_after_special else self.encode_after(text)

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

    def stream(self) -> Detokenizer:
        """A new answer's text."""
        return Detokenizer(self)

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

    def _ends(self, assets: Mapping[str, bytes]) -> tuple[int, ...]:
        eos = int(self._processor.eos_id())
        return tuple(dict.fromkeys([*eos_ids(assets, self.id_of), *([eos] if eos >= 0 else [])]))

    def _named_specials(self, added: Mapping[int, AddedToken]) -> dict[str, int]:
        control = {self.piece(i): i for i in range(self._size) if self._processor.is_control(i)}
        return control | {token.content: i for i, token in added.items() if token.content}


def _processor(name: str, data: bytes) -> SentencePieceProcessor:
    try:
        processor = SentencePieceProcessor(model_proto=data) if data else None
    except RuntimeError:
        processor = None
    if processor is None or processor.vocab_size() <= 0:
        raise ModelError(f"{name} is not a sentencepiece model: fetch it again")
    return processor
