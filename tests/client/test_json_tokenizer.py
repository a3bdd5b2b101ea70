from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from json_vocabularies import NAMES, PAGE, assets_of, library, ours
from vocabularies import mistral_bytes

from swarm.client.json_streams import byte_alphabet
from swarm.client.json_tokenizer import JsonTokenizer
from swarm.client.sentencepiece_tokenizer import SentencePieceTokenizer
from swarm.client.tokenizer import read_tokenizer
from swarm.errors import ModelError

BYTE_LEVEL = ["llama3", "qwen", "deepseek", "gpt-oss", "dbrx"]
WORDS = PAGE.split(" ")
TEXT = st.one_of(st.text(), st.lists(st.sampled_from([*WORDS, " ", "\n", "<think>", "\ufdd0"])).map(" ".join))


def streamed(name: str, ids: list[int]) -> list[str]:
    stream = ours(name).stream()
    return [*map(stream.push, ids), stream.finish()]


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXT)
@example(text=PAGE)
@example(text=" a")
@example(text="")
@settings(max_examples=60, deadline=None)
def test_tokens_are_the_librarys_own(name: str, text: str) -> None:
    reference = library(name)
    assume(not any(token.special and token.content in text for token in reference.get_added_tokens_decoder().values()))
    ids = ours(name).encode(text)  # in which a special token is text like any other
    assert ids == reference.encode(text, add_special_tokens=False).ids
    assert ours(name).decode(ids) == reference.decode(ids)
    opened = [*ours(name).opening, *ids]
    assert opened == reference.encode(text, add_special_tokens=True).ids


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_the_pieces_together_are_the_text_of_all_ids(name: str, data: st.DataObject) -> None:
    reference = library(name)
    size = reference.get_vocab_size()
    few = [i for i in range(size) if reference.id_to_token(i) in ("▁", "Ġ", "a", "<0x20>", "<0xE4>", "<0xBD>", "<0xA0>", "Â")]
    ids = data.draw(st.lists(st.one_of(st.integers(0, size - 1), st.sampled_from(few)), max_size=25))
    pieces = streamed(name, ids)
    assert "".join(pieces) == reference.decode(ids) == ours(name).decode(ids)


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXT)
@example(text=PAGE)
@settings(max_examples=60, deadline=None)
def test_a_streamed_text_is_never_split_inside_a_character(name: str, text: str) -> None:
    pieces = streamed(name, ours(name).encode(text))
    assert "".join(pieces) == ours(name).decode(ours(name).encode(text))
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(data=st.binary(max_size=12))
@example(data=b"\xf0\x9f\x98")
@example(data=b"\xe4\xb8\xe4\xb8\xad\xed\xa0\x80\xc0\xaf\xf4\x90")
@settings(max_examples=60, deadline=None)
def test_bytes_become_what_the_library_makes_of_them(name: str, data: bytes) -> None:
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    ids = [library(name).token_to_id(letters[byte]) for byte in data]
    assert "".join(streamed(name, ids)) == library(name).decode(ids)


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_an_emoji_comes_out_with_its_last_byte(name: str) -> None:
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    ids = [library(name).token_to_id(letters[byte]) for byte in "😀".encode()]
    assert streamed(name, ids) == ["", "", "", "😀", ""]


def test_the_byte_alphabet_is_the_librarys() -> None:
    from tokenizers import pre_tokenizers

    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet()) and set(byte_alphabet().values()) == set(range(256))


@pytest.mark.parametrize("name", NAMES)
def test_no_text_gives_a_control_token(name: str) -> None:
    tokenizer = ours(name)
    for text, token in tokenizer.specials.items():
        if tokenizer.is_control(token) and text != "<unk>":
            ids = [*tokenizer.encode(f"a{text}b {text}"), *tokenizer.encode_after_special(text), *tokenizer.encode_after(text)]
            assert token not in ids


def test_added_tokens_that_are_plain_are_vocabulary_and_show() -> None:
    qwen = ours("qwen")
    ids = qwen.encode("a<think>b")
    assert qwen.specials["<think>"] in ids and qwen.decode(ids) == "a<think>b" == "".join(streamed("qwen", ids))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "unigram"])
@given(text=st.text().map(lambda text: text.replace("▁", " ")))
@settings(max_examples=40, deadline=None)
def test_text_that_follows_text_gets_no_leading_space(name: str, text: str) -> None:
    tokenizer = ours(name)
    whole = tokenizer.decode([*tokenizer.encode("x"), *tokenizer.encode_after(text)])
    assert whole == tokenizer.decode(tokenizer.encode("x" + text))


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXT)
@settings(max_examples=40, deadline=None)
def test_text_behind_a_special_token_is_encoded_as_the_library_does_there(name: str, text: str) -> None:
    control = next(text for text, token in ours(name).specials.items() if ours(name).is_control(token))
    reference = library(name)
    if not any(special in text for special in ours(name).specials):
        want = reference.encode(control + text, add_special_tokens=False).ids
        assert [reference.token_to_id(control), *ours(name).encode_after_special(text)] == want


def test_text_with_lone_surrogates_is_encoded_with_replacement_characters() -> None:
    assert ours("qwen").encode("a\udce9b") == ours("qwen").encode("a\ufffdb")


def test_ids_beyond_the_vocabulary_show_nothing() -> None:
    for name in NAMES:
        tokenizer = ours(name)
        ids = tokenizer.encode("Paris")
        strange = [tokenizer.vocab_size, 9999, -1]
        assert tokenizer.decode([*ids, *strange]) == tokenizer.decode(ids)
        assert all(map(tokenizer.is_control, strange)) and not any(map(tokenizer.piece, strange))


def test_tokens_that_only_the_config_has_are_added_at_their_ids() -> None:
    size = library("dbrx").get_vocab_size()
    added = {str(size): {"content": "<extra>", "special": False}, str(size + 1): {"content": "<|pad|>", "special": True}}
    tokenizer = read_tokenizer(assets_of("dbrx", added_tokens_decoder=added))
    assert tokenizer.specials["<extra>"] == size and tokenizer.is_control(size + 1) and tokenizer.vocab_size == size + 2
    with pytest.raises(ModelError, match="'<extra>' as token 7"):
        read_tokenizer(assets_of("dbrx", added_tokens_decoder={"7": {"content": "<extra>"}}))


def test_what_the_config_says_of_bos_goes_before_the_post_processor() -> None:
    bos = library("llama3").token_to_id("<|begin_of_text|>")
    assert ours("llama3").opening == (bos,) and ours("qwen").opening == ()
    assert read_tokenizer(assets_of("llama3", add_bos_token=False)).opening == ()
    assert read_tokenizer(assets_of("dbrx", add_bos_token=True)).opening == (library("dbrx").token_to_id("<|endoftext|>"),)


def test_of_two_kinds_the_json_is_taken_unless_the_model_speaks_mistral() -> None:
    def kind(vocabulary: bytes, template: str | None) -> type:
        config = json.dumps({"chat_template": template}).encode()
        both = {"tokenizer.json": library("llama2").to_str().encode(), "tokenizer.model": vocabulary}
        return type(read_tokenizer({**both, "tokenizer_config.json": config}))

    assert kind(mistral_bytes("v3"), "{{ bos_token + '[INST] ' }}") is SentencePieceTokenizer
    assert kind(mistral_bytes("v1"), None) is SentencePieceTokenizer
    assert kind(mistral_bytes("v1"), "<|im_start|>") is JsonTokenizer
    assert kind(mistral_bytes("v1"), "[INST] <<SYS>>") is JsonTokenizer


@pytest.mark.parametrize(
    "decoder",
    [None, {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}],
)
def test_a_kind_whose_text_cannot_stream_is_refused_by_name(decoder: dict[str, object] | None) -> None:
    raw = json.loads(library("qwen").to_str()) | {"decoder": decoder}
    with pytest.raises(ModelError, match=str(decoder["type"]) if decoder else "no decoder"):
        read_tokenizer({"tokenizer.json": json.dumps(raw).encode()})


def test_control_tokens_among_a_unigram_models_pieces_stay_text_however_many() -> None:
    tokenizer = ours("unigram")
    controls = set(map(tokenizer.id_of, ("<s>", "</s>")))
    assert controls.isdisjoint(tokenizer.encode("</s><s>a" * 2000))
