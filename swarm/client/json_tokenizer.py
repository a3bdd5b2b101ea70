"""`Tokenizer` over a checkpoint's `tokenizer.json`, by the library that it was written with."""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from swarm.client.added_tokens import CONFIG, added_tokens, eos_ids, named_tokens
from swarm.client.asset import asset_object
from swarm.client.json_streams import ByteStream, PieceStream
from swarm.errors import ModelError

_MARK = f"\ufdd0{secrets.token_hex(8)}\ufdd0"
"""Added as a token of ours, so that the library sees text behind it as behind a special token: one that nobody's text has."""


class JsonTokenizer:
    """Byte-level BPE (Llama 3, Qwen, DeepSeek, gpt-oss), or pieces with a mark for spaces (Llama 2, Mistral)."""

    def __init__(self, backend: tokenizers.Tokenizer, byte_level: bool, assets: Mapping[str, bytes]) -> None:
        self._backend = backend
        self._byte_level = byte_level
        self.named: Mapping[str, str] = named_tokens(assets)
        self.opening = self._opening(assets)
        self._add_missing(assets)
        added = backend.get_added_tokens_decoder()
        self._control = {i for i, token in added.items() if token.special}
        unknown = self.named.get("unk_token", "")
        self._never = {i for i in self._control if added[i].content != unknown}
        self._control_texts = re.compile("|".join(re.escape(added[i].content) for i in self._never if added[i].content) or "(?!)")
        self.specials: Mapping[str, int] = {token.content: i for i, token in added.items() if token.content}
        self.swallows: Mapping[str, tuple[bool, bool]] = {
            token.content: (token.lstrip, token.rstrip) for token in added.values() if token.lstrip or token.rstrip
        }
        self.vocab_size = max(backend.get_vocab().values(), default=0) + 1
        self.eos_ids = eos_ids(assets, self.id_of)
        backend.add_tokens([tokenizers.AddedToken(_MARK, normalized=False, special=False)])
        backend.encode_special_tokens = True  # the library's name for: text never gives a special token
        self._mark = backend.token_to_id(_MARK)
        self._adds_space = "".join(map(self.piece, self.encode("a"))).startswith(("▁", "Ġ"))

    @classmethod
    def read(cls, name: str, assets: Mapping[str, bytes]) -> JsonTokenizer:
        """From the asset of that name; tokenizer_config.json and the like are read where they are there.

        Raises:
            ModelError: it is no tokenizer.json, is of a kind that we cannot stream, or the other files contradict it.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(assets[name].decode("utf-8"))
        except Exception as error:  # noqa: BLE001  (the library raises nothing narrower)
            raise ModelError(f"{name} is no tokenizer ({error}): fetch it again") from None
        decoder = json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else {"type": "no decoder"}
        byte_level = _is_byte_level(decoder)
        if not byte_level and not _is_by_token(decoder):
            raise ModelError(f"{name} puts text together with {decoder['type']}, which swarm does not know: choose another model")
        backend.no_truncation()
        backend.no_padding()
        return cls(backend, byte_level, assets)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text by itself, without what `opening` has; no text ever gives a control token."""
        text = _clean(text)
        ids = self._ids(text)
        if self._never.isdisjoint(ids):
            return ids
        # Unigram models have control tokens among their pieces, and find them: broken after the first character, they are text.
        cuts = [0, *(match.start() + 1 for match in self._control_texts.finditer(text)), len(text)]
        first, *rest = (text[begin:end] for begin, end in itertools.pairwise(cuts))
        ids = [*self._ids(first), *(i for part in rest for i in self._ids_after(part))]
        return [i for i in ids if i not in self._never]

    def encode_after(self, text: str) -> list[int]:
        """Token ids of a text that follows other text: without the space that some put before a beginning."""
        text = _clean(text)
        ids = self._ids_after(text)
        return ids if self._never.isdisjoint(ids) else self.encode(text)

    def encode_after_special(self, text: str) -> list[int]:
        """Token ids of a text that follows a special token, as the library encodes it there."""
        text = _clean(text)
        ids = self._ids(_MARK + text)[1:]
        return ids if self._never.isdisjoint(ids) else self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without control tokens; bytes that are no UTF-8 become U+FFFD."""
        return str(self._backend.decode([i for i in ids if 0 <= i < self.vocab_size and i != self._mark], skip_special_tokens=True))

    def stream(self) -> ByteStream | PieceStream:
        """A new answer's text."""
        return ByteStream(self) if self._byte_level else PieceStream(self)

    def piece(self, token: int) -> str:
        """The token as the vocabulary spells it (`Ġhello`, `▁hello`); empty for an id that it does not have."""
        return (self._backend.id_to_token(token) or "") if 0 <= token < self.vocab_size else ""

    def id_of(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary spells it; None where it has none."""
        token = self._backend.token_to_id(piece)
        return None if token is None or piece == _MARK else int(token)

    def is_control(self, token: int) -> bool:
        """Whether the token never shows in text: special ones, and ids that the vocabulary lacks."""
        return token in self._control or not self.piece(token)

    def _ids(self, text: str) -> list[int]:
        return list(map(int, self._backend.encode(text, add_special_tokens=False).ids))

    def _ids_after(self, text: str) -> list[int]:
        if not self._adds_space:
            return self._ids(text)
        # No piece has U+FDD0 and nothing merges with it.
        return self._ids("\ufdd0" + text)[len(self._ids("\ufdd0")) :]

    def _opening(self, assets: Mapping[str, bytes]) -> tuple[int, ...]:
        """What the file's own post-processor puts first, unless tokenizer_config.json says of bos whether it stands there."""
        says = asset_object(assets, CONFIG).get("add_bos_token")
        bos = self.id_of(self.named.get("bos_token", ""))
        if isinstance(says, bool):
            return (bos,) if says and bos is not None else ()
        whole = self._backend.encode("a", add_special_tokens=True)
        lead = next((i for i, special in enumerate(whole.special_tokens_mask) if not special), 0)
        return tuple(map(int, whole.ids[:lead]))

    def _add_missing(self, assets: Mapping[str, bytes]) -> None:
        """Add the tokens that only tokenizer_config.json has."""
        for i, token in sorted(added_tokens(assets).items()):
            if self._backend.token_to_id(token.content) is None:
                one = tokenizers.AddedToken(token.content, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False)
                (self._backend.add_special_tokens if token.special else self._backend.add_tokens)([one])
            if self._backend.token_to_id(token.content) != i:
                raise ModelError(f"{CONFIG} has {token.content!r} as token {i}, and tokenizer.json does not: fetch both again")


def _clean(text: str) -> str:
    """Text that can be UTF-8: a terminal hands over lone surrogates where it read bytes that are none."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace(_MARK, "")


def _is_byte_level(decoder: Mapping[str, Any]) -> bool:
    steps = decoder.get("decoders", ())
    return decoder["type"] == "ByteLevel" or (len(steps) == 1 and _is_byte_level(steps[0]))


def _is_by_token(decoder: Mapping[str, Any]) -> bool:
    """Whether each token's text depends on nothing but itself, what is first, and neighbours that spell bytes."""
    kind = decoder["type"]
    if kind == "Sequence":
        return all(map(_is_by_token, decoder["decoders"]))
    return kind in ("Metaspace", "Replace", "ByteFallback", "Fuse") or (kind == "Strip" and not decoder.get("stop"))
