"""The vocabularies that the client's tests read: the embedded model's and Mistral's real files."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import mistral_common
from sentencepiece import SentencePieceProcessor

from swarm.client.sentencepiece_tokenizer import SentencePieceTokenizer

ROOT = Path(__file__).parents[2]
MISTRAL = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
}
EVAL: list[dict[str, Any]] = [json.loads(line) for line in (ROOT / "tests/data/eval.jsonl").read_text().splitlines()]
NANO_ASSETS = {
    path.name: path.read_bytes() for path in (ROOT / "swarm/models/nano-mixtral").iterdir() if path.suffix in (".json", ".model")
}


def mistral_path(version: str) -> Path:
    return Path(mistral_common.__file__).parent / "data" / MISTRAL[version]


def mistral_bytes(version: str) -> bytes:
    return mistral_path(version).read_bytes()


@functools.cache
def tokenizer_of(name: str) -> SentencePieceTokenizer:
    if name == "nano":
        return SentencePieceTokenizer.read("tokenizer.model", NANO_ASSETS)
    return SentencePieceTokenizer.read(f"tokenizer.model.{name}", {f"tokenizer.model.{name}": mistral_bytes(name)})


@functools.cache
def every_tokenizer() -> dict[str, SentencePieceProcessor]:
    models = {"nano": NANO_ASSETS["tokenizer.model"], **{version: mistral_bytes(version) for version in MISTRAL}}
    return {name: SentencePieceProcessor(model_proto=data) for name, data in models.items()}
