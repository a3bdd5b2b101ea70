"""Benchmarks cut a model where its two Stages take the same."""

from __future__ import annotations

from benchmarks.processes import level_cut


def test_the_second_stage_has_fewer_blocks_as_it_has_the_head() -> None:
    assert level_cut(16, (0.8, 0.8)) == 8
    assert level_cut(16, (0.8, 0.96)) == 9  # the head takes 1.6 Blocks: 9 and 7 + 1.6
    assert level_cut(16, (0.8, 0.83)) == 8
    assert level_cut(7, (0.3, 0.45)) == 4  # one more than half of them, and the head takes half a Block
    assert level_cut(2, (0.1, 0.9)) == 1
