"""rigs.toml: what people write is read, and each mistake is named by file and line with what to write instead."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.rigs_file import Rigs, parse_rigs, read_rigs
from cluster.toml_lines import line_at, lines_of
from swarm.errors import UsageError

FILE = """\
default_link = { gbit_s = 1.0, rtt_ms = 0.3 }
client = "desk"

[[rig]]
name = "attic"
ram_gib = 64
devices = [
  { card = "RTX 3090" },
  { card = "RTX 3060 12GB", free_gib = 11.2 },
]

[[rig]]
name = "desk"
cpu = "server CPU"
ram_gib = 32
devices = [{ name = "odd", memory_gib = 16, bandwidth_gb_s = 448, tflops = 44 }, { card = "desktop CPU", free_gib = 8 }]

[[link]]
between = ["attic", "desk"]
gbit_s = 2.5
rtt_ms = 0.2

[[link]]
between = ["attic", "attic"]
gbit_s = 100
rtt_ms = 0
"""


def test_a_file_like_the_documented_one_is_read_whole() -> None:
    rigs = parse_rigs(FILE)
    sizes = {d.name: round(d.memory_bytes / 2**30, 1) for d in rigs.devices}
    assert sizes == {"attic/cuda:0": 23.0, "attic/cuda:1": 11.2, "desk/odd": 15.0, "desk/cpu": 8.0}
    assert [d.torch_device for d in rigs.devices] == ["cuda:0", "cuda:1", "cuda:0", "cpu"]
    assert rigs.devices[2].card.bandwidth_gb_s == 448
    assert (rigs.names, rigs.client) == (("attic", "desk"), "desk")
    spare = {name: (d.name, d.memory_bytes >> 30, d.card.name) for name, d in rigs.spare.items()}
    assert spare == {"attic": ("attic/cpu/ram", 64, "desktop CPU"), "desk": ("desk/cpu/ram", 24, "server CPU")}


def test_links_are_in_seconds_and_bytes_with_grpcs_share() -> None:
    links = parse_rigs(FILE).links
    assert links.default.rtt_s == pytest.approx(0.6e-3)
    assert links.default.bytes_per_s == pytest.approx(117.5e6)
    assert links.between("desk", "attic").bytes_per_s == pytest.approx(2.5 * 117.5e6)
    assert links.between("attic", "attic").rtt_s == pytest.approx(0.3e-3)
    assert links.between("desk", "desk") == links.inside


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ('"RTX 3090"', '"RTX 3900"', 8, '"RTX 3090"'),
        ("free_gib = 11.2", "free_gb = 11.2", 9, "write free_gib"),
        ("free_gib = 11.2", 'free_gib = "11"', 9, "must be a number"),
        ("free_gib = 11.2", "free_gib = -1", 9, "must be from"),
        ("free_gib = 11.2", "free_gib = nan", 9, "must be from"),
        ("free_gib = 11.2", "free_gib = inf", 9, "must be from"),
        ("free_gib = 11.2", "free_gib = true", 9, "true or false"),
        ("free_gib = 11.2", "free_gib = 12.1", 9, "from 0.1 to 12"),
        ("memory_gib = 16, ", "", 16, "memory_gib is missing"),
        ("tflops = 44", "tflops = 0", 16, "tflops"),
        ("tflops = 44", "tflops = 1" + "0" * 400, 16, "tflops"),
        ("tflops = 44", "tflops = 44, sm = 86", 16, "no sm here"),
        ('name = "desk"', 'name = "attic"', 13, "two rigs named attic"),
        ('name = "desk"', 'name = ""', 13, "1 to 64 characters"),
        ('name = "desk"', "nam = 3", 12, "name is missing"),
        ('name = "desk"', 'name = "up/desk"', 13, "slash"),
        ('  { card = "RTX 3090" },', '{ card = "RTX 3090" },' * 257, 4, "260 devices"),
        ('{ card = "desktop CPU"', '{ card = "desktop CPU", name = "odd"', 16, "two devices named odd"),
        ('client = "desk"', 'client = "sofa"', 2, "no rig sofa"),
        ('["attic", "desk"]', '["attic", "sofa"]', 19, "no rig sofa"),
        ('["attic", "desk"]', '["attic"]', 19, "two rigs"),
        ('["attic", "desk"]', '["attic", "attic"]', 24, "once"),
        ("gbit_s = 2.5", "gbit_s = 0", 20, "gbit_s"),
        ("rtt_ms = 0.2", "ping_ms = 0.2", 21, "ping_ms"),
        ("rtt_ms = 0.2", "", 18, "rtt_ms is missing"),
        ("ram_gib = 32", "ram_gib = 4", 15, "offer more than its ram_gib"),
        ('cpu = "server CPU"', 'cpu = "RTX 3090"', 14, "kind of CPU"),
        ("default_link = { gbit_s = 1.0, rtt_ms = 0.3 }", "default_link = 1", 1, "must be a table"),
        ("default_link", "defualt_link", 1, "write default_link"),
        ("[[link]]", "[[links]]", 18, "write link"),
        ("client =", "client = = ", 2, "not TOML"),
        ("rtt_ms = 0\n", "rtt_ms = [", 26, "not TOML"),
    ],
)
def test_each_mistake_is_named_by_line_with_what_to_write(old: str, new: str, line: int, says: str) -> None:
    assert old in FILE
    with pytest.raises(UsageError) as error:
        parse_rigs(FILE.replace(old, new, 1), "my.toml")
    message = str(error.value)
    assert message.startswith(f"my.toml line {line}: ") and says in message
    assert "\n" not in message and ": " in message.split("line", 1)[1]


@pytest.mark.parametrize("text", ["", "rig = []", "rig = 3", "[rig]\nname = 'a'", "rig = [3]", "[[rig]]\nname = 'a'\ndevices = []"])
def test_a_file_without_a_rig_or_a_device_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(UsageError, match="RTX 3090"):
        parse_rigs(text)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--rigs"):
        read_rigs(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="--rigs"):
        read_rigs(tmp_path)
    (tmp_path / "a.toml").write_bytes(b"a = 1\n\xff")
    with pytest.raises(UsageError, match=r"line 2: .*UTF-8"):
        read_rigs(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(UsageError, match="more than"):
        read_rigs(tmp_path / "b.toml")
    (tmp_path / "c.toml").write_text(FILE)
    assert read_rigs(tmp_path / "c.toml") == parse_rigs(FILE)


def refused_or_read(text: str) -> None:
    try:
        assert isinstance(parse_rigs(text, "f.toml"), Rigs)
    except UsageError as error:
        assert "f.toml" in str(error) and "\n" not in str(error)


@given(st.text())
@example("a = " + "[" * 5000)
@example("a = " + "9" * 5000)
@example('"" = 1')
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    refused_or_read(text)


PIECES = [
    *FILE.split(),
    "\n",
    '"',
    "'",
    '"""',
    "[",
    "]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "nan",
    "1e999",
    "1979-05-27 07:32:00",
    "rig",
]


@settings(max_examples=300)
@given(st.data())
def test_any_spoilt_file_is_read_or_refused_in_one_sentence(data: st.DataObject) -> None:
    text = FILE
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(st.sampled_from(PIECES)) + text[at + gone :]
    refused_or_read(text)


values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value if not 0xD800 <= ord(c) < 0xE000) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    return repr(value)


@settings(max_examples=200)
@given(st.sampled_from(["default_link", "client", "rig", "link", "name", "devices", "ram_gib", "cpu", "between", "gbit_s"]), values)
def test_any_value_of_any_key_is_read_or_refused_in_one_sentence(key: str, value: object) -> None:
    lines = [line for line in FILE.splitlines() if not line.startswith(f"{key} =")]
    where = next((n for n, line in enumerate(FILE.splitlines()) if line.startswith(f"{key} =")), 0)
    refused_or_read("\n".join([*lines[:where], f"{key} = {toml(value)}", *lines[where:]]))


@given(st.lists(values, max_size=6))
def test_each_value_has_its_own_line(found: list[object]) -> None:
    text = "".join(f"key-{place} = {toml(value)}\n" for place, value in enumerate(found))
    tomllib.loads(text)
    lines = lines_of(text)
    assert [lines[f"key-{place}",] for place in range(len(found))] == list(range(1, len(found) + 1))
    assert max(lines.values(), default=0) == len(found)


ODD = '''\
a.b = 1 # one
"c d" = [ # two
  "]", """three
four""", { e = \'\'\'five\'\'\' },
]
[f]
g = 1979-05-27 07:32:00
[[h.i]]
j = "\\"#"
[[h.i]]
k = {l.m = [1, 2]}
'''


def test_lines_are_those_of_the_text_whatever_it_is_made_of() -> None:
    tomllib.loads(ODD)
    lines = lines_of(ODD)
    at = {("a", "b"): 1, ("c d",): 2, ("c d", 1): 3, ("c d", 2, "e"): 4, ("f", "g"): 7, ("h", "i", 0, "j"): 9}
    assert {path: lines[path] for path in at} == at
    assert line_at(lines, ("h", "i", 1, "k", "l", "m", 1)) == 11
    assert line_at(lines, ("h", "i", 1, "nothing")) == 10
    assert line_at(lines, ("nothing",)) == 1


PLACEMENT = (Path(__file__).parents[2] / "docs" / "placement.md").read_text(encoding="utf-8")


def test_the_file_in_the_documentation_is_one() -> None:
    text = PLACEMENT.split("```toml\n")[1].split("```")[0]
    rigs = parse_rigs(text, "docs/placement.md")
    assert rigs.names == ("attic", "desk")
    assert [d.card.name for d in rigs.devices] == ["RTX 3090", "RTX 3060 12GB", "odd", "desktop CPU"]
