"""The document of `swarm status --json` as it comes from a door: every value is of its kind, and nothing in it obeys a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from swarm.errors import SwarmError
from swarm.wire.status import UNREADABLE, in_one_line

MOST = 2**53
"""Bytes, seconds and rates stay below."""


@dataclass(frozen=True)
class Maybe:
    """A value that may be null."""

    form: Any


@dataclass(frozen=True)
class Record:
    """An object: keys that it must have, and others that it may have; of any more nothing is asked."""

    must: Mapping[str, Any]
    may: Mapping[str, Any]


@dataclass(frozen=True)
class ById:
    """An object whose keys are numbers."""

    form: Any


@dataclass(frozen=True)
class Pair:
    """Two of a kind."""

    form: Any


SHARD = Record({"block": int, "experts": [int], "route": int, "copy": bool}, {})
MEASURED = Record(dict.fromkeys(("bandwidth_gb_s", "tflops", "start_us", "slowed"), float), {})
MEMORY = Record(
    dict.fromkeys(("total_bytes", "free_bytes"), int),
    dict.fromkeys(("weights_bytes", "kv_bytes", "kv_used_bytes", "workspace_bytes"), int),
)
WORKER = Record(
    {
        "name": str, "rig": str, "address": str, "blocks": Pair(int), "experts": ById([int]), "memory": MEMORY, "sessions": int,
        "alive": bool,
    },
    {
        "device": str, "epoch": int, "tokens": int, "busy_s": float, "up_s": float, "loading": [str], "out": str, "label": str,
        "temperature_c": Maybe(float), "watts": Maybe(float), "tokens_per_s": Maybe(float), "route": Maybe(int), "shards": [SHARD],
        "choices": ById([int]), "measured": Maybe(MEASURED),
    },
)  # fmt: skip
RIG = Record({"id": str, "name": str}, {"text": str, "devices": [str], "leaving": bool, "versions": Record({}, {})})
LINK = Record({"between": Pair(str), "rtt_ms": Maybe(float), "gbit_s": Maybe(float), "why": str, "at": float}, {})
COMING = Record({"rig": str, "files": [str], "done_bytes": float, "total_bytes": float, "bytes_per_s": float}, {})
PREDICTED = Record(dict.fromkeys(("ttft_s", "tokens_per_s", "total_tokens_per_s"), float), {})
DOCUMENT = Record(
    {},
    dict.fromkeys(("model", "dtype", "kv", "waiting", "activity", "objective", "bottleneck", "address", "head", "silence"), str)
    | {
        "epoch": int, "tokens_per_s": float, "notes": [str], "sources": [str], "rigs": [RIG], "workers": [WORKER], "links": [LINK],
        "fetching": [COMING], "predicted": Maybe(PREDICTED), "standbys": [Record({"worker": str, "blocks": Pair(int)}, {})],
    },
)  # fmt: skip


def read_status(text: str, what: str) -> dict[str, Any]:
    """The document that a door answered.

    Args:
        what: whose, for the message: `the swarm at 10.0.0.2:7700`.

    Raises SwarmError where it is none that this version reads.
    """
    try:
        found = _harmless(json.loads(text))
        wrong = _misfit(found, DOCUMENT, "")
    except UNREADABLE:
        wrong = "it is no JSON"
    if wrong:
        raise SwarmError(f"{what} answered no status that this version reads ({wrong}): compare `swarm --version` there and here")
    document: dict[str, Any] = found
    return document


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return in_one_line(value)
    if isinstance(value, list):
        return [_harmless(each) for each in value]
    return {in_one_line(key): _harmless(each) for key, each in value.items()} if isinstance(value, dict) else value


def _misfit(value: Any, form: Any, at: str) -> str:
    """What is not as it should be, in words; empty where all is."""
    if isinstance(form, Maybe):
        return "" if value is None else _misfit(value, form.form, at)
    if isinstance(form, Record | ById):
        return _misfit_inside(value, form, at) if isinstance(value, dict) else f"{at or 'all of it'} is no object"
    if isinstance(form, list | Pair):
        many = isinstance(value, list) and (isinstance(form, list) or len(value) == 2)
        inner = form[0] if isinstance(form, list) else form.form
        return _first(_misfit(each, inner, at) for each in value) if many else f"{at} is no list as it should be"
    return "" if _is(value, form) else f"{at} is {value!r:.40}"


def _misfit_inside(value: dict[str, Any], form: Record | ById, at: str) -> str:
    if isinstance(form, ById):
        return _first(
            _misfit(each, form.form, at) if key.isdecimal() and len(key) < 10 else f"{at} has {key!r:.40}"
            for key, each in value.items()
        )
    if missing := form.must.keys() - value.keys():
        return f"{at} has no {min(missing)}"
    forms = {**form.must, **form.may}
    return _first(_misfit(value[key], forms[key], f"{at}.{key}".lstrip(".")) for key in value.keys() & forms.keys())


def _first(wrong: Iterable[str]) -> str:
    return next(filter(None, wrong), "")


def _is(value: Any, kind: type) -> bool:
    """Whether it is of that kind; a number is finite and has a size that can be computed with."""
    if kind in (int, float):
        allowed = (int,) if kind is int else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool) and abs(value) < MOST and isfinite(value)
    return isinstance(value, kind)
