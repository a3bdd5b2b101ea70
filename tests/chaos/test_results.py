"""Runs add up, and the table says what is in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from results import Result, add, quantile, read, table

FINE = Result(1, 0, "spread", "link cut", 10, 0, (), (), 1.0, 0.5, 2.0)


def test_what_is_added_in_one_run_is_there_in_the_next(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    wrong = replace(FINE, number=1, changed=1, lost=("Lost: gone",), left_over=("2 workers",))
    for result in (FINE, wrong):
        add(tmp_path, result)
    assert read(tmp_path) == [FINE, wrong] and FINE.recovered and not wrong.recovered


def test_the_logs_of_what_was_not_recovered_or_took_unusually_long_are_kept() -> None:
    assert not FINE.worth_its_logs and replace(FINE, lost=("Lost: gone",)).worth_its_logs
    assert replace(FINE, pause_s=11.0).worth_its_logs


def test_the_table_counts_by_fault_and_over_all() -> None:
    slow = replace(FINE, number=2, pause_s=3.0, changed=2)
    lines = table([FINE, slow, replace(FINE, kind="worker killed", lost=("Lost: gone",), pause_s=9.0)]).splitlines()
    assert lines[2] == "| spread | link cut | 2 | 1 | 20 | 2 | 0 | 0 | 2.0 s | 3.0 s |"
    assert lines[3] == "| spread | worker killed | 1 | 0 | 10 | 0 | 1 | 0 | 9.0 s | 9.0 s |"
    assert lines[4] == "| **all** |  | 3 | 1 | 30 | 2 | 1 | 0 | 3.0 s | 9.0 s |"
    assert len(table([]).splitlines()) == 2


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([3.0, 1.0, 2.0], part) for part in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
