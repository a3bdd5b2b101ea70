"""The tokens of a GGUF file, as far as both kinds of tokenizer have them. Standard library only.

Keys: `tokenizer.ggml.*` of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; types as in sentencepiece.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.errors import ModelError
from swarm.weights.gguf.metadata import Metadata

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
PREFIX = "tokenizer.ggml."


@dataclass(frozen=True)
class Vocabulary:
    """Texts and types by token id."""

    tokens: list[str]
    types: list[int]

    @classmethod
    def of(cls, meta: Metadata) -> Vocabulary:
        """Raises ModelError: there is none, or it contradicts itself."""
        tokens = meta.texts(f"{PREFIX}tokens")
        types = meta.integers(f"{PREFIX}token_type") or [NORMAL] * len(tokens)
        if not tokens or len(types) != len(tokens) or len(set(tokens)) != len(tokens):
            raise ModelError(f"{meta.path} has no usable list of tokens: give another file of this model")
        return cls(tokens, types)

    def named(self, meta: Metadata, name: str, default: int = -1) -> int:
        """The id of `bos`, `eos` and their like; -1 where there is none."""
        found = meta.integer(f"{PREFIX}{name}_token_id", default)
        return found if 0 <= found < len(self.tokens) else -1
