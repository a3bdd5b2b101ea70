"""`tokenizer.json` of a GGUF file whose tokenizer is byte-level BPE: vocabulary, merges, and how text is split first.

Source: the format of https://github.com/huggingface/tokenizers; what each `tokenizer.ggml.pre` means, llama.cpp's llama-vocab.cpp
says, and each model's own tokenizer.json, from which the patterns come. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swarm.errors import ModelError
from swarm.weights.gguf.deepseek import STEPS
from swarm.weights.gguf.metadata import Metadata
from swarm.weights.gguf.vocabulary import CONTROL, PREFIX, UNUSED, USER_DEFINED, Vocabulary

ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LEAD = r"[^\r\n\p{L}\p{N}]?"
BEHIND = r"\s*[\r\n]+|\s+(?!\S)|\s+"
OTHER = r" ?[^\s\p{L}\p{N}]+[\r\n]*|" + BEHIND
OTHER_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|" + BEHIND
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


@dataclass(frozen=True)
class Split:
    """How text is taken apart before pieces are merged.

    Args:
        pattern: of the parts; empty for GPT-2's own, which the library has.
        then: more patterns, each for what those before it left.
        whole: whether a part that is a token is not taken apart further (`ignore_merges`).
        bos: whether a text begins with bos where the metadata do not say.
        nfc: whether text is first composed (Unicode's form C).
    """

    pattern: str
    whole: bool = False
    bos: bool = False
    nfc: bool = False
    then: tuple[str, ...] = ()


LLAMA3 = Split(ENDINGS + "|" + LEAD + r"\p{L}+|\p{N}{1,3}|" + OTHER, whole=True, bos=True)
QWEN2 = Split(ENDINGS + "|" + LEAD + r"\p{L}+|\p{N}|" + OTHER, nfc=True)
TEKKEN = Split(f"{LEAD}{UPPER}*{LOWER}+|{LEAD}{UPPER}+{LOWER}*|" + r"\p{N}|" + OTHER_OR_SLASH, whole=True, bos=True)
GPT_4O = Split(f"{LEAD}{UPPER}*{LOWER}+{ENDINGS}?|{LEAD}{UPPER}+{LOWER}*{ENDINGS}?|" + r"\p{N}{1,3}|" + OTHER_OR_SLASH)
SPLITS = {
    "llama-bpe": LLAMA3, "llama3": LLAMA3, "llama-v3": LLAMA3, "pixtral": LLAMA3,
    "dbrx": Split(LLAMA3.pattern),
    "deepseek-llm": Split(STEPS[0], then=STEPS[1:]),
    "qwen2": QWEN2, "deepseek-r1-qwen": QWEN2,
    "gpt-2": Split(""),
    "gpt-4o": GPT_4O,
    "tekken": TEKKEN,
}  # fmt: skip


def split_of(meta: Metadata) -> Split:
    """Raises ModelError: it is none that swarm knows."""
    pre = meta.text(f"{PREFIX}pre", "default")
    if pre not in SPLITS:
        raise ModelError(
            f"{meta.path} splits text in the way {pre!r:.60} (tokenizer.ggml.pre), which swarm does not know; it knows "
            f"{', '.join(SPLITS)}: give the model's Hugging Face folder"
        )
    return SPLITS[pre]


def tokenizer_json(meta: Metadata) -> dict[str, Any]:
    """The file's object. Raises ModelError: the metadata contradict themselves, or text is split in a way that swarm lacks."""
    split, vocabulary = split_of(meta), Vocabulary.of(meta)
    merges = [merge.split(" ", 1) for merge in meta.texts(f"{PREFIX}merges")]
    kept, trained = _kept(vocabulary)
    if any(len(merge) != 2 for merge in merges):
        raise ModelError(f"{meta.path} has no usable list of merges: give another file of this model")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, vocabulary) for i in range(kept) if vocabulary.types[i] in (CONTROL, USER_DEFINED)],
        "normalizer": {"type": "NFC"} if split.nfc else None,
        "pre_tokenizer": _pre_tokenizer(split),
        "post_processor": _byte_level(use_regex=False),
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": split.whole,
            "vocab": {token: i for i, token in enumerate(vocabulary.tokens[:trained])}, "merges": merges,
        },
    }  # fmt: skip


def _kept(vocabulary: Vocabulary) -> tuple[int, int]:
    """Ids below which there are tokens at all, and below which they are the trained ones: the others are added to those."""
    kept = len(vocabulary.types)
    while kept and vocabulary.types[kept - 1] == UNUSED:
        kept -= 1
    trained = kept
    while trained and vocabulary.types[trained - 1] in (CONTROL, USER_DEFINED):
        trained -= 1
    return kept, trained


def _added(token: int, vocabulary: Vocabulary) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": vocabulary.tokens[token], **flags, "special": vocabulary.types[token] == CONTROL}


def _pre_tokenizer(split: Split) -> dict[str, Any]:
    if not split.pattern:
        return _byte_level(use_regex=True)
    patterns = (split.pattern, *split.then)
    steps = [{"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False} for one in patterns]
    return {"type": "Sequence", "pretokenizers": [*steps, _byte_level(use_regex=False)]}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
