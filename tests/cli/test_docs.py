"""docs/cli.md is what the commands say, and what documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import swarm

from swarm.cli.main import COMMANDS
from swarm.cli.reference import PAGE, page

TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = {part.split()[1]: part for part in TEXT.split("\n## ") if part.startswith("swarm ")}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def test_the_reference_is_what_the_commands_say_now() -> None:
    assert page(TEXT) == TEXT, "run `make reference`: the text of a command is the docstring of its module"


def test_the_reference_has_every_command_that_there_is() -> None:
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_the_reference_stands_in_the_help(name: str) -> None:
    table = [line.split("|")[1] for line in SECTIONS[name].splitlines() if line.startswith("| `")]
    assert set(OPTION.findall("\n".join(table))) <= set(OPTION.findall(swarm(name, "--help").out))


ROOT = Path(__file__).parents[2]
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [DESIGN, RELIABILITY], ids=["design", "reliability"])
def test_every_test_that_a_document_names_exists(text: str) -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named and {name for name in named if f"def {name}(" not in tests} == set()


@pytest.mark.parametrize("text", [DESIGN, README, RELIABILITY], ids=["design", "readme", "reliability"])
def test_every_file_that_a_document_names_exists(text: str) -> None:
    named = set(re.findall(r"[`(]((?:swarm|cluster|tests|docs|docker|benchmarks)/[\w/.-]+)[`)]", text))
    assert {name for name in named if not (ROOT / name).exists()} == set()
