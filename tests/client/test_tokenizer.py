from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import EVAL, MISTRAL, NANO_ASSETS, every_tokenizer, mistral_bytes, tokenizer_of

from swarm.client.tokenizer import Tokenizer, read_tokenizer
from swarm.errors import ModelError

ALL = ["nano", *MISTRAL]


def test_nano_tokens_are_those_that_it_was_trained_on() -> None:
    nano = tokenizer_of("nano")
    for line in EVAL:
        assert [nano.bos_id, *nano.encode(f"[INST] {line['prompt']} [/INST]")] == line["prompt_tokens"]
        assert nano.decode(line["reference_tokens"]) == line["reference"]


@pytest.mark.parametrize("version", MISTRAL)
def test_mistrals_files_are_read_under_their_own_names(version: str) -> None:
    for name in ("tokenizer.model", f"tokenizer.model.{version}", f"mistral_instruct_tokenizer_240323.model.{version}"):
        tokenizer = read_tokenizer({name: mistral_bytes(version)})
        assert (tokenizer.opening, tokenizer.eos_ids) == ((1,), (2,))
        assert tokenizer.vocab_size == (32000 if version == "v1" else 32768)
        assert tokenizer.is_control(2) and not tokenizer.is_control(2000)


@given(text=st.text())
def test_encode_and_decode_are_sentencepieces_own(text: str) -> None:
    for name in ALL:
        tokenizer, reference = tokenizer_of(name), every_tokenizer()[name]
        ids = reference.encode(text)
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == reference.decode(ids)


@given(text=st.text().map(lambda text: text.replace("▁", " ")))  # sentencepiece reads U+2581 as a space
def test_text_that_follows_text_gets_no_leading_space(text: str) -> None:
    for name in ALL:
        tokenizer = tokenizer_of(name)
        assert tokenizer.decode([*tokenizer.encode("x"), *tokenizer.encode_after(text)]) == "x" + text


@pytest.mark.parametrize("name", ALL)
def test_no_text_gives_a_control_token(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for i in range(tokenizer.vocab_size):
        if tokenizer.is_control(i):
            assert not any(map(tokenizer.is_control, tokenizer.encode(f"a{tokenizer.piece(i)}b {tokenizer.piece(i)}")))


def test_text_with_lone_surrogates_is_encoded_with_replacement_characters() -> None:
    nano = tokenizer_of("nano")
    assert nano.encode("a\udce9b") == nano.encode("a\ufffdb")


def test_ids_beyond_the_vocabulary_show_nothing() -> None:
    nano = tokenizer_of("nano")
    assert nano.decode([*nano.encode("Paris"), 9999, -1]) == "Paris"
    assert nano.is_control(9999) and nano.piece(9999) == ""


def with_added(**config: object) -> Tokenizer:
    added = {"32000": {"content": "<|im_end|>", "special": True}, "32001": {"content": "<think>", "special": False}}
    raw = {"added_tokens_decoder": added, **config}
    return read_tokenizer({"tokenizer.model": mistral_bytes("v1"), "tokenizer_config.json": json.dumps(raw).encode()})


def test_tokens_that_the_config_adds_are_known() -> None:
    tokenizer = with_added(eos_token="<|im_end|>")
    assert tokenizer.vocab_size == 32002
    assert tokenizer.specials["<|im_end|>"] == 32000 and tokenizer.specials["</s>"] == 2
    assert tokenizer.eos_ids == (32000, 2)
    hello = tokenizer.encode("hello")
    assert tokenizer.decode([32001, *hello, 32000, *hello]) == "<think> hello hello"


def test_all_named_ends_of_an_answer_are_ends() -> None:
    assets = {**NANO_ASSETS, "generation_config.json": b'{"eos_token_id": [2, 7]}', "config.json": b'{"eos_token_id": 9}'}
    assert read_tokenizer(assets).eos_ids == (2, 7, 9)


@pytest.mark.parametrize(
    ("assets", "says"),
    [
        ({}, "without a tokenizer"),
        ({"tokenizer.json": b"{}"}, "tokenizer.json is no tokenizer"),
        ({"tokenizer.json": b'{"decoder": {"type": "ByteLevel"}, "model": 3}'}, "tokenizer.json is no tokenizer"),
        ({"tokenizer.json": b"\xff"}, "tokenizer.json is no tokenizer"),
        ({"tekken.json": b"{}"}, "only as tekken.json"),
        ({"tokenizer.model": b""}, "not a sentencepiece model"),
        ({"tokenizer.model": b"\x00junk" * 9}, "not a sentencepiece model"),
        ({**NANO_ASSETS, "tokenizer_config.json": b"{"}, "tokenizer_config.json of the model is not JSON"),
        ({**NANO_ASSETS, "tokenizer_config.json": b"[]"}, "not a JSON object"),
        ({**NANO_ASSETS, "tokenizer_config.json": b'{"added_tokens_decoder": {"x": 1}}'}, "added_tokens_decoder"),
        ({**NANO_ASSETS, "generation_config.json": b'{"eos_token_id": "two"}'}, "eos_token_id"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(assets: dict[str, bytes], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_tokenizer(assets)
