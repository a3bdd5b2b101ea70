"""docs/cli.md tells of every command and option, and of no other."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from commands import swarm

from swarm.cli.main import COMMANDS

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {part.split()[1]: part for part in TEXT.split("\n## ") if part.startswith("swarm ")}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def test_the_reference_has_every_command_that_there_is() -> None:
    assert set(SECTIONS) == {name for name in COMMANDS if importlib.util.find_spec(f"swarm.cli.{name}")}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_reference_has_the_options_that_the_command_has(name: str) -> None:
    table = [line.split("|")[1] for line in SECTIONS[name].splitlines() if line.startswith("| `")]
    listed = [line for line in swarm(name, "--help").out.splitlines() if line.startswith("  --")]
    there = {match[0] for line in listed if (match := OPTION.search(line))} - {"--help"}
    assert set(OPTION.findall("\n".join(table))) == there


ROOT = Path(__file__).parents[2]
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_test_that_the_design_names_exists() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", DESIGN))
    assert named and {name for name in named if f"def {name}(" not in tests} == set()


@pytest.mark.parametrize("text", [DESIGN, README], ids=["design", "readme"])
def test_every_file_that_a_document_names_exists(text: str) -> None:
    named = set(re.findall(r"[`(]((?:swarm|cluster|tests|docs|docker|benchmarks)/[\w/.-]+)[`)]", text))
    assert {name for name in named if not (ROOT / name).exists()} == set()
