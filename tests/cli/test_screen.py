"""What a rig prints: lines that can be copied, and one at the bottom that never gets into them."""

from __future__ import annotations

import re

from commands import python
from typist import Typist

CONTROL = re.compile(r".*\x1b\[[0-9;?]*[a-zA-Z]")
"""All of a line up to the last of the words that move the cursor or colour the text."""
LONG = "swarm join " + "x" * 200
CODE = f"""
from swarm.cli.screen import Screen
screen = Screen()
screen.doing("loading: 1 of 2")
screen.show("a fact")
screen.doing("loading: 2 of 2")
screen.tell("news")
screen.doing("")
screen.show({LONG!r})
"""


def test_the_bottom_line_gets_into_no_other_and_is_gone_at_the_end() -> None:
    with Typist(CODE, terminal="xterm") as typist:
        code, seen = typist.leave()
    assert code == 0 and "loading: 1 of 2" in seen
    lines = [CONTROL.sub("", line) for line in seen.split("\n")]
    assert [line for line in lines if line in ("a fact", "news", LONG)] == ["a fact", "news", LONG]
    assert "loading" not in lines[-2]


def test_without_a_terminal_there_is_no_bottom_line_and_the_two_streams_stay_apart() -> None:
    ran = python(CODE)
    assert (ran.code, ran.out, ran.err) == (0, f"a fact\n{LONG}\n", "news\n")


def test_what_a_library_writes_below_python_is_kept_out_of_what_was_asked_for() -> None:
    ran = python("""
import os
from swarm.cli import output
with output.only_ours():
    os.write(1, b"a word of a library\\n")
print("a fact")
""")
    assert (ran.code, ran.out, ran.err) == (0, "a fact\n", "a word of a library\n")
