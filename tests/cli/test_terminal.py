"""A person at a terminal: lines in turn, Ctrl-C, and the end."""

from __future__ import annotations

import pytest
from typist import CTRL_C, CTRL_D, Typist

WORK = """
import asyncio, sys
from swarm.cli.terminal import Terminal
from swarm.errors import SwarmError

terminal, busy = Terminal(), []

async def work():
    while (line := await terminal.line("ask> ")) is not None:
        if line == "fail":
            raise SwarmError("it failed")
        if line == "wait":
            busy.append(asyncio.create_task(asyncio.Event().wait()))
            print("waiting", flush=True)
            await asyncio.wait(busy)
            print("stopped", flush=True)
            busy.clear()
        if line == "hang":
            print("hanging", flush=True)
            await asyncio.Event().wait()
        print(f"<{line}>", flush=True)

def interrupt():
    return bool(busy) and busy[0].cancel()

try:
    terminal.serve(work(), interrupt)
except KeyboardInterrupt:
    sys.exit(130)
except SwarmError as error:
    print(f"error: {error}")
    sys.exit(1)
"""


@pytest.fixture
def typist() -> Typist:
    return Typist(WORK)


def test_lines_reach_the_work_in_turn_until_ctrl_d(typist: Typist) -> None:
    with typist:
        for line in ("one", "two"):
            typist.see("ask> ")
            typist.type(line + "\n")
            typist.see(f"<{line}>")
        typist.see("ask> ")
        typist.type(CTRL_D)
        assert typist.leave()[0] == 0


def test_what_is_still_under_way_at_the_end_is_ended_without_a_word() -> None:
    """A library's task, for one, that nobody waited for."""
    left = "async def left():\n    try:\n        await asyncio.Event().wait()\n    finally:\n        print('left', flush=True)\n"
    code = WORK.replace("async def work():\n", f"{left}\nasync def work():\n    lost.append(asyncio.create_task(left()))\n")
    with Typist(code.replace("busy = Terminal(), []", "busy, lost = Terminal(), [], []")) as typist:
        typist.see("ask> ")
        typist.type(CTRL_D)
        typist.see("left")
        code, rest = typist.leave()
        assert code == 0 and "destroyed" not in rest


def test_ctrl_c_in_a_line_gives_the_line_up_and_nothing_else(typist: Typist) -> None:
    with typist:
        typist.see("ask> ")
        typist.type("half a li")
        typist.see("half a li")
        typist.press_until(CTRL_C, "<>")
        typist.see("ask> ")
        typist.type("whole\n")
        typist.see("<whole>")
        typist.see("ask> ")  # before it the terminal is in another mode, in which Ctrl-D means something else
        typist.type(CTRL_D)
        assert typist.leave()[0] == 0


def test_ctrl_c_stops_what_can_be_stopped_and_the_work_goes_on(typist: Typist) -> None:
    with typist:
        typist.see("ask> ")
        typist.type("wait\n")
        typist.see("waiting")
        typist.type(CTRL_C)
        typist.see("stopped")
        typist.see("ask> ")
        typist.type(CTRL_D)
        assert typist.leave()[0] == 0


def test_ctrl_c_ends_everything_where_nothing_can_be_stopped(typist: Typist) -> None:
    with typist:
        typist.see("ask> ")
        typist.type("hang\n")
        typist.see("hanging")
        typist.type(CTRL_C)
        code, rest = typist.leave()
        assert code == 130 and "Traceback" not in rest


def test_an_error_of_the_work_is_raised_where_it_was_started(typist: Typist) -> None:
    with typist:
        typist.see("ask> ")
        typist.type("fail\n")
        code, rest = typist.leave()
        assert code == 1 and "error: it failed" in rest
