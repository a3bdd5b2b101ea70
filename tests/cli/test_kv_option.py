"""--kv: what `swarm plan` makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import is_one_sentence, swarm

pytest.importorskip("scipy", reason="planning needs it")

EXAMPLE = str(Path(__file__).parents[2] / "docs" / "examples" / "two-3090-rigs.toml")


def test_keys_and_values_in_int8_take_half_of_the_room_in_a_plan() -> None:
    words = ("plan", "mixtral-8x7b", "--dtype", "int4", "--context", "32768", "--sessions", "2", "--json", "--rigs", EXAMPLE)
    kv = [sum(w["kv_bytes"] for w in json.loads(swarm(*words, "--kv", way).out)["workers"]) for way in ("full", "int8")]
    assert kv[1] / kv[0] == pytest.approx((128 + 2) / 256)
    assert kv[0] == 2 * 32 * 128 * 2**20


def test_who_chose_it_is_told_so_and_nobody_else_is() -> None:
    words = ("plan", "mixtral-8x7b", "--dtype", "int4", "--rigs", EXAMPLE)
    assert "int4 with KV in int8 · " in swarm(*words, "--kv", "int8").out
    assert "KV in" not in swarm(*words).out


def test_another_way_is_refused_by_name() -> None:
    ran = swarm("plan", "nano", "--kv", "int4", "--rigs", EXAMPLE)
    assert ran.code == 2 and is_one_sentence(ran.err) and "--kv int4 is not known: give full or int8" in ran.err
