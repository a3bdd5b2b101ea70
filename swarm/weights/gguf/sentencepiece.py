"""`tokenizer.model` of a GGUF file whose tokenizer is sentencepiece's: its vocabulary, written as sentencepiece keeps it.

Source: sentencepiece_model.proto of https://github.com/google/sentencepiece (the package's own Python classes for it ask for a
newer protobuf than swarm's other parts have) and https://protobuf.dev/programming-guides/encoding. Standard library only.
"""

from __future__ import annotations

import struct

from swarm.errors import ModelError
from swarm.weights.gguf.metadata import Metadata
from swarm.weights.gguf.vocabulary import BYTE, CONTROL, NORMAL, PREFIX, UNKNOWN, USER_DEFINED, Vocabulary

BPE = 2
"""`TrainerSpec.ModelType`."""
SPACE = "▁"


def sentencepiece_model(meta: Metadata) -> bytes:
    """The file's bytes. Raises ModelError: the metadata contradict themselves."""
    vocabulary = Vocabulary.of(meta)
    scores = meta.floats(f"{PREFIX}scores")
    if len(scores) != len(vocabulary.tokens):
        raise ModelError(f"{meta.path} has no usable list of tokens: give another file of this model")
    ids = {name: vocabulary.named(meta, key, default) for name, key, default in _NAMED}
    if ids["unk"] < 0:
        raise ModelError(f"{meta.path} has no token for what is unknown: give another file of this model")
    kinds = [_kind(i, kind, ids) for i, kind in enumerate(vocabulary.types)]
    pieces = [_piece(*one) for one in zip(vocabulary.tokens, scores, kinds, strict=True)]
    return b"".join(pieces) + _bytes(2, _trainer(vocabulary, kinds, ids)) + _bytes(3, _normalizer(meta))


_NAMED = (("unk", "unknown", 0), ("bos", "bos", 1), ("eos", "eos", 2), ("pad", "padding", -1))


def _kind(token: int, kind: int, ids: dict[str, int]) -> int:
    """Its type; the unknown one is often called a control token, and sentencepiece asks for exactly one."""
    if token == ids["unk"]:
        return UNKNOWN
    return CONTROL if token in (ids["bos"], ids["eos"]) or kind == UNKNOWN else kind


def _piece(text: str, score: float, kind: int) -> bytes:
    if kind == USER_DEFINED:
        text = text.replace(" ", SPACE)
    raw = _bytes(1, text.encode()) + b"\x15" + struct.pack("<f", score)
    return _bytes(1, raw if kind == NORMAL else raw + _number(3, kind))


def _trainer(vocabulary: Vocabulary, kinds: list[int], ids: dict[str, int]) -> bytes:
    raw = _number(3, BPE) + _number(4, len(kinds)) + _number(35, int(BYTE in kinds))
    for offset, token in enumerate(ids.values()):  # unk_id = 40, bos_id, eos_id, pad_id; and their texts from 45 on
        raw += _number(40 + offset, token)
        if token >= 0:
            raw += _bytes(45 + offset, vocabulary.tokens[token].encode())
    return raw


def _normalizer(meta: Metadata) -> bytes:
    charsmap = bytes(x & 255 for x in meta.integers(f"{PREFIX}precompiled_charsmap"))
    add_space = meta.flag(f"{PREFIX}add_space_prefix", True)
    remove_spaces = meta.flag(f"{PREFIX}remove_extra_whitespaces", False)
    return _bytes(1, b"identity") + _bytes(2, charsmap) + _number(3, int(add_space)) + _number(4, int(remove_spaces))


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    raw = bytearray()
    while value > 127:
        raw.append(value & 127 | 128)
        value >>= 7
    return bytes([*raw, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
