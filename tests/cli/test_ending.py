"""How `up` and `join` end when somebody asks for it, and when somebody insists."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typist import Typist

pytest.importorskip("torch")

CODE = """
import asyncio
from swarm.cli.rig_options import run_until_stopped
from swarm.cli.screen import Screen

async def serve():
    try:
        print("serves", flush=True)
        await asyncio.Event().wait()
    finally:
        try:
            print("leaves", flush=True)
            await asyncio.Event().wait()
        finally:
            print("gone", flush=True)

run_until_stopped(Screen(), serve)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_cuts_the_polite_end_short(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as rig:
        assert rig.stdout is not None
        for said in ("serves", "leaves"):
            assert rig.stdout.readline() == f"{said}\n"
            rig.send_signal(number)
        out, err = rig.communicate(timeout=60)
    assert (rig.returncode, out) == (0, "gone\n") and "at once" in err and "Traceback" not in err


GONE = """
import os, signal, sys
from pathlib import Path
from swarm.cli.screen import Screen

signal.signal(signal.SIGHUP, signal.SIG_IGN)
screen, ended = Screen(), Path(sys.argv[1])
screen.tell("serves")
while os.path.exists(sys.argv[2]):
    pass
screen.tell("news")
screen.show("a fact")
screen.doing("loading")
ended.write_text("still there")
"""


def test_a_terminal_that_is_gone_is_no_reason_to_serve_no_more(tmp_path: Path) -> None:
    ended, there = tmp_path / "ended", tmp_path / "there"
    there.touch()
    with Typist(GONE, str(ended), str(there), terminal="xterm") as typist:
        typist.see("serves")
        typist.hang_up()
        there.unlink()
        typist.wait()
    assert ended.read_text() == "still there"


def test_hanging_up_ends_a_rig_politely(tmp_path: Path) -> None:
    with Typist(CODE.replace('print("leaves", flush=True)', f'open({str(tmp_path / "left")!r}, "w").close(); return')) as typist:
        typist.see("serves")
        typist.hang_up()
        typist.wait()
    assert (tmp_path / "left").exists()
