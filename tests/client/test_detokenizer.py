from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vocabularies import MISTRAL, every_tokenizer, tokenizer_of

ALL = ["nano", *MISTRAL]


def pushed(name: str, ids: list[int]) -> list[str]:
    stream = tokenizer_of(name).stream()
    return [*map(stream.push, ids), stream.finish()]


def byte_ids(name: str, data: bytes) -> list[int]:
    first = every_tokenizer()[name].piece_to_id("<0x00>")
    return [first + byte for byte in data]


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_the_pieces_together_are_the_text_of_all_ids(name: str, data: st.DataObject) -> None:
    reference = every_tokenizer()[name]
    space, first = reference.piece_to_id("▁"), reference.piece_to_id("<0x00>")
    token = st.one_of(
        st.integers(0, reference.vocab_size() - 1),
        st.sampled_from([0, 1, 2, 3, 4, space, 260]),
        st.integers(first, first + 255),
        st.sampled_from([first + byte for byte in (0x20, 0xE4, 0xB8, 0xAD, 0xF0, 0x9F, 0x98, 0x80, 0xED, 0xA0, 0xC0, 0xF4, 0xF5)]),
    )
    ids = data.draw(st.lists(token, max_size=30))
    assert "".join(pushed(name, ids)) == reference.decode(ids) == tokenizer_of(name).decode(ids)


@pytest.mark.parametrize("name", ALL)
@given(data=st.binary(max_size=12))
@example(data="😀中é".encode())
@example(data=b"\xf0\x9f\x98")
@example(data=b"\xe4\xb8\xe4\xb8\xad")
def test_bytes_become_what_sentencepiece_makes_of_them(name: str, data: bytes) -> None:
    ids = byte_ids(name, data)
    assert "".join(pushed(name, ids)) == every_tokenizer()[name].decode(ids)


@pytest.mark.parametrize("name", ALL)
@given(text=st.text().map(lambda text: text.replace("▁", " ")))  # sentencepiece reads U+2581 as a space
def test_a_streamed_text_is_never_split_inside_a_character(name: str, text: str) -> None:
    pieces = pushed(name, tokenizer_of(name).encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_an_emoji_spelt_in_bytes_comes_out_with_its_last_byte() -> None:
    assert pushed("nano", byte_ids("nano", "😀".encode())) == ["", "", "", "😀", ""]


def test_a_character_that_never_completes_comes_out_at_the_end() -> None:
    assert pushed("nano", byte_ids("nano", b"\xf0\x9f\x98")) == ["", "", "", "\ufffd\ufffd\ufffd"]


def test_only_the_first_leading_space_is_dropped() -> None:
    nano = tokenizer_of("nano")
    ids = [nano.bos_id, *nano.encode("The capital"), *nano.encode(" of France")]
    assert "".join(pushed("nano", ids)) == "The capital  of France"
