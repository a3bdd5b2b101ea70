"""Tokenizer and chat template of a GGUF file are the ones that its model has in a Hugging Face folder."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mistral_common
import numpy as np
import pytest
import tokenizers
from gguf_files import write_gguf
from sentencepiece import SentencePieceProcessor
from tiktoken_ext.openai_public import o200k_base  # type: ignore[import-untyped]
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import Qwen2Converter, TikTokenConverter

from swarm.client.tokenizer import read_tokenizer
from swarm.errors import ModelError
from swarm.weights.describe import assets
from swarm.weights.gguf.bpe import SPLITS
from swarm.weights.source import resolve

DATA = Path(__file__).parent.parent / "data"
MISTRAL = Path(mistral_common.__file__).parent / "data"
INST = ("[INST]", "[/INST]")
SHAPE = {
    "llama.block_count": 1, "llama.context_length": 64, "llama.embedding_length": 4, "llama.feed_forward_length": 4,
    "llama.attention.head_count": 1, "llama.attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
ODD = [
    "", " ", "  two  spaces ", "\n\ttabs\r\n\r\n", "日本語 😀 und Größe", "<s>[INST] x [/INST]", "</s>", "it's WE'LL 12345 1.5e10",
    "HTTPServer fooBar/baz\n//x", "a\u0301 e\u0301",
]  # fmt: skip


def gguf_assets_of(folder: Path, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    rows = {"token_embd.weight": np.zeros((4, 4), np.float32)}
    return assets(write_gguf(folder / "x.gguf", "llama", rows, SHAPE | dict(metadata)))


def texts() -> list[str]:
    lines = [json.loads(line) for line in (DATA / "eval.jsonl").read_text().splitlines()]
    return [line[key] for line in lines for key in ("prompt", "reference")] + ODD


def sentencepiece_metadata(processor: SentencePieceProcessor, user_defined: tuple[str, ...] = ()) -> dict[str, Any]:
    """What llama.cpp's converter writes of a sentencepiece model, its unknown token among the control ones."""
    size = processor.vocab_size()
    kinds = [3 if processor.is_control(i) or processor.is_unknown(i) else 6 if processor.is_byte(i) else 1 for i in range(size)]
    kinds = [4 if processor.id_to_piece(i) in user_defined else kind for i, kind in enumerate(kinds)]
    scores = [processor.get_score(i) if kinds[i] == 1 else -1000.0 for i in range(size)]
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [processor.id_to_piece(i) for i in range(size)], "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{{ bos_token }}", "tokenizer.ggml.add_bos_token": True,
    }  # fmt: skip


def nano() -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(resolve("nano") / "tokenizer.model"))


@pytest.mark.parametrize("name", ["nano", "tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"])
def test_a_sentencepiece_vocabulary_is_the_same_tokenizer(tmp_path: Path, name: str) -> None:
    own = nano() if name == "nano" else SentencePieceProcessor(model_file=str(MISTRAL / name))
    made = gguf_assets_of(tmp_path, sentencepiece_metadata(own, INST if name == "nano" else ()))
    assert set(made) == {"config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.model"}
    found = SentencePieceProcessor(model_proto=made["tokenizer.model"])
    for text in texts():
        ids = own.encode(text)
        assert found.encode(text) == ids
        assert found.decode(ids) == own.decode(ids)
    special = ("bos_id", "eos_id", "unk_id", "pad_id", "vocab_size")
    assert [getattr(found, name)() for name in special] == [getattr(own, name)() for name in special]


def test_a_client_takes_a_gguf_files_tokenizer_for_its_models_own(tmp_path: Path) -> None:
    made, own = (
        read_tokenizer(gguf_assets_of(tmp_path, sentencepiece_metadata(nano(), INST))),
        read_tokenizer(assets(resolve("nano"))),
    )
    assert (made.opening, made.eos_ids, made.vocab_size) == (own.opening, own.eos_ids, own.vocab_size)
    for text in texts():
        assert made.encode(text) == own.encode(text)
        assert made.encode_after_special(text) == own.encode_after_special(text)


def test_texts_are_split_as_each_models_makers_split_them() -> None:
    assert inspect.signature(TikTokenConverter).parameters["pattern"].default == SPLITS["llama-bpe"].pattern
    assert SPLITS["qwen2"].pattern in inspect.getsource(Qwen2Converter)
    assert json.dumps(SPLITS["tekken"].pattern)[1:-1] in (MISTRAL / "tekken_240718.json").read_text()
    written = re.findall(r'r"""(.+?)"""', inspect.getsource(o200k_base))
    assert "|".join(written) == SPLITS["gpt-4o"].pattern


def test_deepseek_splits_in_steps_by_characters_and_digit_by_digit(tmp_path: Path) -> None:
    own = trained("deepseek-llm")
    found = tokenizers.Tokenizer.from_str(gguf_assets_of(tmp_path, bpe_metadata(own, "deepseek-llm"))["tokenizer.json"].decode())
    text = "Größe Ωμέγα  it's 2024!? \n你好，世界。x_1 Ⅻ ა\t "
    # Their punctuation goes from ":" to "~", letters included, and each step takes the pieces of the one before apart.
    wanted = ["Gr", "öß", "e", " Ωμέγα", " ", " it", "'", "s", " ", "2", "0", "2", "4", "!?", " ", "\n", "你好", "，", "世界", "。",
              "x", "_", "1", " ", "Ⅻ", " ", "ა", "\t "]  # fmt: skip
    pieces = found.pre_tokenizer.pre_tokenize_str(text)
    assert [text[first:last] for _, (first, last) in pieces] == wanted


def trained(pre: str) -> tokenizers.Tokenizer:
    """A small byte-level BPE that splits text as the models with this `tokenizer.ggml.pre` do."""
    split = SPLITS[pre]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=split.whole))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split.pattern)
    patterns = [split.pattern, *split.then] if split.pattern else []
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
    made.normalizer = normalizers.NFC() if split.nfc else None
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=800, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made.add_special_tokens(["<|begin|>", "<|end|>"])
    made.add_tokens(["<tool>"])
    return made


def bpe_metadata(made: tokenizers.Tokenizer, pre: str) -> dict[str, Any]:
    """What llama.cpp's converter writes of a tokenizer.json, for a model with two rows more than tokens."""
    raw, size = json.loads(made.to_str()), made.get_vocab_size()
    added = {token["id"]: 3 if token["special"] else 4 for token in raw["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [made.id_to_token(i) for i in range(size)] + [f"[PAD{size + i}]" for i in range(2)],
        "tokenizer.ggml.token_type": [added.get(i, 1) for i in range(size)] + [5, 5],
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in raw["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": made.token_to_id("<|begin|>"), "tokenizer.ggml.eos_token_id": made.token_to_id("<|end|>"),
    }  # fmt: skip


@pytest.mark.parametrize("pre", SPLITS)
def test_a_byte_level_vocabulary_is_the_same_tokenizer(tmp_path: Path, pre: str) -> None:
    own = trained(pre)
    made = gguf_assets_of(tmp_path, bpe_metadata(own, pre))
    assert set(made) == {"config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"}
    found = tokenizers.Tokenizer.from_str(made["tokenizer.json"].decode())
    for text in [*texts(), "<|begin|>a<tool>b<|end|>"]:
        ids = own.encode(text).ids
        assert found.encode(text, add_special_tokens=False).ids == ids
        assert found.decode(ids) == own.decode(ids)
    client = read_tokenizer(made)
    assert client.opening == ((own.token_to_id("<|begin|>"),) if SPLITS[pre].bos else ())
    assert client.eos_ids == (own.token_to_id("<|end|>"),)
    assert set(client.specials) == {"<|begin|>", "<|end|>", "<tool>"}


def test_chat_templates_come_along_by_name(tmp_path: Path) -> None:
    metadata = sentencepiece_metadata(nano(), INST)
    config = json.loads(gguf_assets_of(tmp_path, metadata)["tokenizer_config.json"])
    assert config["chat_template"] == "{{ bos_token }}"
    assert (config["bos_token"], config["eos_token"], config["add_bos_token"]) == ("<s>", "</s>", True)
    named = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "{{ tools }}"}
    config = json.loads(gguf_assets_of(tmp_path, metadata | named)["tokenizer_config.json"])
    assert {t["name"]: t["template"] for t in config["chat_template"]} == {"tool_use": "{{ tools }}", "default": "{{ bos_token }}"}


def test_every_token_that_ends_an_answer_is_told(tmp_path: Path) -> None:
    made = gguf_assets_of(tmp_path, sentencepiece_metadata(nano(), INST) | {"tokenizer.ggml.eot_token_id": 4})
    assert json.loads(made["generation_config.json"])["eos_token_id"] == [2, 4]
    assert json.loads(made["config.json"])["eos_token_id"] == [2, 4]


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "somebodys"}, r"in the way .somebodys. .*it knows llama-bpe"),
        ({"tokenizer.ggml.model": "t5"}, "of the kind .t5.; swarm knows llama and gpt2"),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "a"]}, "no usable list of tokens"),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a"]}, "no usable list of tokens"),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": ["a"],
          "tokenizer.ggml.merges": ["a"]}, "no usable list of merges"),
        ({}, r"lacks tokenizer\.ggml\.model"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_cannot_be_made_is_refused_by_name(tmp_path: Path, metadata: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        gguf_assets_of(tmp_path, metadata)
