"""Cards by their makers' figures: what a dry run believes until somebody measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.hardware.known_cards import BANDWIDTH_SHARE, KNOWN_CARDS, RATE_SHARE, START_S, known_card, nearest_names

GEFORCE = ("RTX 2080 Ti", "RTX 3060 12GB", "RTX 3080", "RTX 3090", "RTX 4060 Ti 16GB", "RTX 4070", "RTX 4080", "RTX 4090")
NEWER = ("RTX 5070 Ti", "RTX 5090", "A4000", "A6000", "P40", "desktop CPU", "server CPU", "laptop CPU")


@pytest.mark.parametrize("name", GEFORCE + NEWER)
def test_every_card_that_people_have_is_known_with_its_source(name: str) -> None:
    card = known_card(name)
    assert card is not None
    assert card.source.startswith("https://www.nvidia.com") or "nvidia.com" in card.source or "JEDEC" in card.source
    assert 0 < card.usable_gib <= card.memory_gib
    assert (card.capability is None) == card.is_cpu


def test_names_are_unique_and_read_as_people_write_them() -> None:
    assert len({card.name for card in KNOWN_CARDS}) == len(KNOWN_CARDS)
    for written in ("rtx 3090", "RTX3090", "NVIDIA GeForce RTX 3090", "3090", "geforce-rtx-3090"):
        card = known_card(written)
        assert card is not None and card.name == "RTX 3090", written
    assert known_card("RTX 3090 Ti") is None
    assert nearest_names("RTX 3900")[0] == "RTX 3090"
    assert len(nearest_names("potato")) == len(KNOWN_CARDS)


def test_a_pascal_card_says_which_build_of_torch_runs_it() -> None:
    p40 = known_card("P40")
    assert p40 is not None
    for part in ("CUDA 13", "sm_61", "+cu126"):
        assert part in p40.why_not()
    assert [card.name for card in KNOWN_CARDS if card.why_not()] == ["Tesla P40"]


def test_turing_has_no_bf16_and_runs_fp16() -> None:
    turing = known_card("RTX 2080 Ti")
    assert turing is not None and turing.why_not() == ""
    assert "sm_75 has no bf16" in turing.why_not_in("bf16")
    assert "int4" in turing.why_not_in("int4")
    assert (turing.why_not_in("fp16"), turing.why_not_in("fp32")) == ("", "")
    assert all(card.why_not_in("bf16") == "" for card in KNOWN_CARDS if card.name not in ("RTX 2080 Ti", "Tesla P40"))


def test_a_3090_reads_at_its_bandwidth_and_multiplies_at_its_rate_and_int4_only_reads_faster() -> None:
    card = known_card("RTX 3090")
    assert card is not None
    half, four = card.speed("bf16", 2), card.speed("int4", 0.5625)
    assert half.bandwidth == pytest.approx(0.8 * 936e9) == pytest.approx(four.bandwidth)
    assert half.flops(2) == pytest.approx(0.6 * 71.2e12) == pytest.approx(four.flops(0.5625))
    assert card.speed("fp32", 4).flops(4) == pytest.approx(0.6 * 35.6e12)
    assert 0.5625 * four.seconds_a_byte(1) < 0.3 * 2 * half.seconds_a_byte(1)


def test_the_documentation_has_the_figures_of_every_card() -> None:
    text = (Path(__file__).parents[2] / "docs" / "placement.md").read_text(encoding="utf-8")
    for card in KNOWN_CARDS:
        kind = f"sm_{card.capability[0]}{card.capability[1]}" if card.capability else "CPU"
        figures = f"{card.memory_gib:g} GiB | {card.bandwidth_gb_s:g} | {card.tflops:g} | {card.fp32_tflops:g}"
        assert f"| {card.name} | {figures} | {kind} |" in text
    for share in (BANDWIDTH_SHARE, RATE_SHARE):
        assert f"| {share:.0%} |" in text
    assert f"| {START_S * 1e6:.0f} µs |" in text
