"""docs/troubleshooting.md has sentences that swarm says, and tests have heard them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
VALUE = "…"


def said(node: ast.AST) -> str:
    """A text of the code, with what is put into it left open."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    assert isinstance(node, ast.JoinedStr)
    return "".join(said(part) if isinstance(part, ast.Constant) else VALUE for part in node.values)


@cache
def sentences() -> frozenset[str]:
    files = [path for package in ("swarm", "cluster") for path in (ROOT / package).rglob("*.py") if "v1" not in path.parts]
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in files)
    return frozenset(said(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr))


@cache
def heard() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_sentence_that_is_explained_is_one_that_swarm_says(heading: str) -> None:
    pattern = re.compile(".*".join(map(re.escape, heading.split(VALUE))))
    assert any(pattern.search(sentence) for sentence in sentences())


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_sentence_that_is_explained_is_heard_in_a_test(heading: str) -> None:
    words = [part.split() for part in heading.split(VALUE)]
    phrases = {" ".join(part[at : at + 3]) for part in words for at in range(max(1, len(part) - 2)) if len(part) > 1}
    assert any(phrase.strip(":;,()") in heard() for phrase in phrases), phrases


def test_no_sentence_is_explained_twice_and_each_is_explained() -> None:
    assert len(set(HEADINGS)) == len(HEADINGS) > 20
    for part in PAGE.split("\n### ")[1:]:
        assert len(part.partition("\n")[2].partition("\n## ")[0].strip()) > 30, part
