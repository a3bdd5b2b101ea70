"""Whatever comes from outside is read, or refused by an error of ours in one sentence, in bounded time and memory.

`tests/corpus` has what is always tried: a folder for each parser, with what it must read (`sound...`) and what once ended
otherwise. `pytest tests/test_parsers.py --hypothesis-profile=long` looks for more; what it finds belongs there.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from little_memory import costs_little
from parsers import CORPUS, PARSERS, refused

settings.register_profile("long", max_examples=20_000, deadline=None, derandomize=False)
TEMPLATE = "chat_template.jinja"
MOST_S = 60.0
MOST_BYTES = 256 << 20
INPUTS = sorted(p for p in CORPUS.glob("*/*") if p.parent.name in PARSERS)
SOUND = {name: [p.read_bytes() for p in INPUTS if p.parent.name == name and p.name.startswith("sound")] for name in PARSERS}
JSON = sorted(name for name in PARSERS if name.endswith(".json"))
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def bounded() -> Iterator[None]:
    """The block ends in time."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it took more than {MOST_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MOST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_is_kept_is_read_where_it_is_sound_and_else_refused_in_little_memory(path: Path) -> None:
    def read() -> None:
        with bounded():
            error = refused(PARSERS[path.parent.name], path.read_bytes())
        assert error is None or not path.name.startswith("sound"), error

    costs_little(read, MOST_BYTES)


def test_every_parser_has_something_that_it_reads() -> None:
    assert not [name for name, sound in SOUND.items() if not sound]


@pytest.mark.parametrize("name", [name for name in PARSERS if name != TEMPLATE])
@FEW
@given(data=st.data())
def test_damaged_anywhere_it_is_read_or_refused(name: str, data: st.DataObject) -> None:
    damaged(name, data)


@settings(FEW, max_examples=8)  # each starts a process
@given(data=st.data())
def test_a_damaged_chat_template_is_read_or_refused(data: st.DataObject) -> None:
    damaged(TEMPLATE, data)


def damaged(name: str, data: st.DataObject) -> None:
    """Read what is damaged in a few places."""
    made = bytearray(data.draw(st.sampled_from(SOUND[name])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(made)))
        made[at : at + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=8) | st.sampled_from(PIECES))
    with bounded():
        refused(PARSERS[name], bytes(made))


PIECES = [b"", b"0", b"-1", b"9" * 400, b"1e999", b"null", b"[]", b"{}", b'"', b"NaN", b"\xff\xfe", b"\\ud800", b"[" * 5000, b"{{"]
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    plain | st.sampled_from([2**63, -1, 10**400, "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside one; of long lists, to the first few."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:5]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """The same document with another value at a place; without it where `by` is None and the place is a key."""
    if not path:
        return by
    found = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and by is None and isinstance(found, dict):
        del found[path[0]]
    else:
        found[path[0]] = replaced(found[path[0]], path[1:], by)
    return found


@pytest.mark.parametrize("name", JSON)
@FEW
@given(data=st.data())
def test_with_another_value_of_any_key_it_is_read_or_refused(name: str, data: st.DataObject) -> None:
    document = json.loads(data.draw(st.sampled_from(SOUND[name])))
    for _ in range(data.draw(st.integers(1, 2))):
        document = replaced(document, data.draw(st.sampled_from(sorted(places(document), key=repr))), data.draw(values))
    with bounded():
        refused(PARSERS[name], json.dumps(document).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", [name for name in PARSERS if name != TEMPLATE])
@settings(FEW, max_examples=15)
@given(raw=st.binary(max_size=200) | st.text(max_size=50).map(str.encode) | values.map(json.dumps).map(str.encode))
def test_anything_at_all_is_read_or_refused(name: str, raw: bytes) -> None:
    with bounded():
        refused(PARSERS[name], raw)
