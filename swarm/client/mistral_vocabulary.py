"""What tells Mistral's own formats v1 to v3 from everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

BEGIN, END = "[INST]", "[/INST]"


class Vocabulary(Protocol):
    """As much of a tokenizer as that takes."""

    @property
    def specials(self) -> Mapping[str, int]:
        """Token ids by text of what stands for itself."""
        ...

    def piece(self, token: int) -> str:
        """The token as the vocabulary spells it."""
        ...

    def id_of(self, piece: str) -> int | None:
        """The id of a piece."""
        ...


def is_mistral(tokenizer: Vocabulary) -> bool:
    """Whether the vocabulary is Mistral's (v1, v2 or v3) or has its brackets as pieces, as the embedded model's has."""
    if "[SYSTEM_PROMPT]" in tokenizer.specials:  # v7 and later put the system prompt elsewhere
        return False
    if tokenizer.id_of(BEGIN) is not None and tokenizer.id_of(END) is not None:
        # A byte-level vocabulary (Mistral Nemo's) has the brackets, and spaces of its own kind.
        return any(tokenizer.id_of(space) is not None for space in ("▁the", "▁a", "▁"))
    # v1 has no piece of its own that tells it from Llama's 32000; these two stand at other ids there.
    return tokenizer.piece(28705) == "▁" and tokenizer.piece(260) == "▁▁▁▁"


def speaks_mistral(template: str) -> bool:
    """Whether a chat template is of Mistral's format, or there is none that says otherwise; Llama 2's dialect is not."""
    return not template or (BEGIN in template and "<<SYS>>" not in template)
