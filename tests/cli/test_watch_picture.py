"""The live screen of `swarm status --watch`."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from swarm.cli.watch_picture import BAR, BusyShares, bar, watch_picture

GIB = 2**30
MEMORY = {
    "total_bytes": 24 * GIB,
    "weights_bytes": 12 * GIB,
    "kv_bytes": 4 * GIB,
    "kv_used_bytes": 1 * GIB,
    "workspace_bytes": 2 * GIB,
    "free_bytes": 6 * GIB,
}


def worker(name: str, **said: Any) -> dict[str, Any]:
    known = {"blocks": [0, 17], "experts": {}, "memory": MEMORY, "sessions": 3, "alive": True, "tokens_per_s": 31.0, "loading": []}
    return {"name": name, "rig": name.partition("/")[0], **known, **said}


def document() -> dict[str, Any]:
    return {
        "model": "Mixtral-8x7B-Instruct-v0.1",
        "dtype": "int4/64+attention=int8",
        "epoch": 1795327870,
        "tokens_per_s": 31.04,
        "workers": [
            worker("gaming-pc/cuda:0", temperature_c=64.0, watts=210.4, experts={str(b): [0, 3, 5] for b in range(30)}),
            worker("gaming-pc/cpu", loading=["reading block 2"], temperature_c=None, watts=None),
            worker("attic/cuda:1", blocks=[17, 32], alive=False, sessions=1),
            worker("closet/cuda:0", out="paused by its people", blocks=[0, 0]),
        ],
        "links": [
            {"between": ["gaming-pc", "attic"], "rtt_ms": 0.213, "gbit_s": 9.41, "why": "", "at": 1.0},
            {"between": ["gaming-pc", "closet"], "rtt_ms": None, "gbit_s": None, "why": "nobody answers", "at": 1.0},
        ],
        "predicted": {"ttft_s": 0.3, "tokens_per_s": 30.2, "total_tokens_per_s": 81.5},
        "bottleneck": "attic/cuda:1",
    }


def shown(width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(watch_picture(document(), {"gaming-pc/cuda:0": 30.6}, {"gaming-pc/cuda:0": 0.83}, width))
    return console.export_text()


def test_the_screen_fits_80_columns_and_has_all_that_is_known() -> None:
    text = shown()
    assert max(map(len, text.splitlines())) <= 80
    for fact in ("18.0 of 24.0 GiB", "83%", "30.6 tok/s", "64 °C", "210 W", "blocks 0-16", "3 sessions", "1 session\n"):
        assert fact in text.replace(" \n", "\n") or fact.rstrip() in text, fact
    for fact in ("does not answer", "paused by its people", "reading block 2", "0.21 ms, 9.41 Gbit/s", "nobody answers"):
        assert fact in text, fact
    assert "predicted: one stream 30.2 tok/s" in text and "now: 31.0 tok/s" in text
    facts = [line for line in text.splitlines() if "sessions" in line or "session" in line]
    assert len(facts) == 4, "each device has two lines, however much it holds"


def test_in_a_narrow_terminal_the_bars_are_short_and_each_device_keeps_its_two_lines() -> None:
    lines = shown(66).splitlines()
    (line,) = [line for line in lines if "30.6 tok/s" in line]
    assert "18.0 of 24.0 GiB" in line and "83%" in line


def test_a_bar_is_in_proportion_and_what_is_there_is_seen() -> None:
    whole = bar(MEMORY)
    cells = {str(span.style): span.end - span.start for span in whole.spans}
    assert len(whole) == BAR and cells == {"green": 12, "cyan": 1, "blue": 3, "magenta": 2, "dim": 6}
    assert len(bar({"total_bytes": 1, "weights_bytes": 5 * GIB})) == BAR
    assert len(bar({"total_bytes": 0})) == BAR
    little = bar({"total_bytes": 24 * GIB, "weights_bytes": 1})
    assert little.plain.count("█") == 1


def test_the_busy_share_is_of_the_time_between_two_looks() -> None:
    busy = BusyShares()
    assert busy.of({"workers": [{"name": "w", "up_s": 10.0, "busy_s": 1.0}]}) == {}
    assert busy.of({"workers": [{"name": "w", "up_s": 12.0, "busy_s": 2.5}]}) == {"w": 0.75}
    assert busy.of({"workers": [{"name": "w", "up_s": 1.0, "busy_s": 0.0}]}) == {}
