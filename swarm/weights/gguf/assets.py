"""The small files that a client needs of a GGUF model, under the names that a Hugging Face folder gives them."""

from __future__ import annotations

import json
from typing import Any

from swarm.errors import ModelError
from swarm.weights.gguf.bpe import split_of, tokenizer_json
from swarm.weights.gguf.metadata import Metadata
from swarm.weights.gguf.model import GgufModel
from swarm.weights.gguf.sentencepiece import sentencepiece_model
from swarm.weights.gguf.vocabulary import PREFIX, Vocabulary

TEMPLATE = "tokenizer.chat_template"
SENTENCEPIECE, BYTE_LEVEL = "llama", "gpt2"


def gguf_assets(model: GgufModel) -> dict[str, bytes]:
    """`config.json`, `generation_config.json`, `tokenizer_config.json`, and `tokenizer.model` or `tokenizer.json`, by name.

    Raises:
        ModelError: the tokenizer is of a kind that swarm does not know, or its metadata contradict themselves.
    """
    meta = model.headers[0].metadata
    kind = meta.text(f"{PREFIX}model")
    if kind == SENTENCEPIECE:
        name, data, bos = "tokenizer.model", sentencepiece_model(meta), True
    elif kind == BYTE_LEVEL:
        name, data, bos = "tokenizer.json", _json(tokenizer_json(meta)), split_of(meta).bos
    else:
        raise ModelError(
            f"{meta.path} has a tokenizer of the kind {kind!r:.40}; swarm knows {SENTENCEPIECE} and {BYTE_LEVEL}: give another"
        )
    ids = {name: value for name in ("bos_token_id", "eos_token_id") if (value := model.config[name]) is not None}
    return {
        "config.json": model.config_json(),
        "generation_config.json": _json(ids),
        "tokenizer_config.json": _json(_tokenizer_config(meta, bos)),
        name: data,
    }


def _tokenizer_config(meta: Metadata, adds_bos: bool) -> dict[str, Any]:
    vocabulary = Vocabulary.of(meta)
    config: dict[str, Any] = {
        "add_bos_token": meta.flag(f"{PREFIX}add_bos_token", adds_bos),
        "add_eos_token": meta.flag(f"{PREFIX}add_eos_token", False),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = vocabulary.named(meta, key)
        if token >= 0:
            config[f"{name}_token"] = vocabulary.tokens[token]
    templates = {name: meta.text(f"{TEMPLATE}.{name}") for name in meta.texts(f"{TEMPLATE}s") if f"{TEMPLATE}.{name}" in meta}
    default = meta.text(TEMPLATE, "")
    if templates:
        templates |= {"default": default} if default else {}
        config["chat_template"] = [{"name": name, "template": template} for name, template in templates.items()]
    elif default:
        config["chat_template"] = default
    return config


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()
