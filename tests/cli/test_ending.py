"""How `up` and `join` end when somebody asks for it, and when somebody insists."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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
