"""`swarm down`, with a real process in the head's place."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import is_one_sentence, swarm

from swarm.cli.one_head import one_head
from swarm.errors import SwarmError

HEAD = """
import signal, sys, time
from pathlib import Path
from swarm.cli.one_head import one_head
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with one_head(Path(sys.argv[1]), "10.0.0.1:7700"):
    print("starting", flush=True)
    signal.sigwait({signal.SIGTERM})
"""
SLEEP = "import signal; print('up', flush=True); signal.pause()"


@contextmanager
def process(code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None and running.stdout.readline()
            yield running
        finally:
            running.kill()


def note(home: Path, pid: int) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "head.json"
    path.write_text(json.dumps({"pid": pid, "address": "10.0.0.1:7700"}))
    return path


def test_down_ends_the_head_from_the_moment_it_starts_and_forgets_it(own_home: Path) -> None:
    with process(HEAD, str(own_home)) as head:
        path = own_home / "head.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        ran = swarm("down")
        assert (ran.code, ran.err) == (0, "") and "10.0.0.1:7700" in ran.out
        assert head.wait(60) == 0
    assert not path.exists()


def test_down_after_a_kill_touches_no_other_program_that_got_the_number_since(own_home: Path, tmp_path: Path) -> None:
    with process(HEAD, str(own_home)) as head:
        head.kill()
        head.wait(60)
    with process(SLEEP, str(tmp_path / "swarm")) as stranger:
        path = note(own_home, stranger.pid)
        ran = swarm("down")
        assert ran.code == 1 and is_one_sentence(ran.err) and "is gone" in ran.err
        assert stranger.poll() is None
    assert not path.exists()


def test_a_second_head_is_told_where_the_first_is(own_home: Path) -> None:
    with process(HEAD, str(own_home)), pytest.raises(SwarmError, match=r"already, at 10\.0\.0\.1:7700"), one_head(own_home, "x"):
        raise AssertionError("two heads")


def test_down_without_a_swarm_is_one_sentence() -> None:
    ran = swarm("down")
    assert ran.code == 1 and is_one_sentence(ran.err) and "heads no swarm" in ran.err


def test_a_broken_note_is_one_sentence(own_home: Path) -> None:
    note(own_home, os.getpid()).write_text('{"pid": "x"}')
    ran = swarm("down")
    assert ran.code == 1 and is_one_sentence(ran.err) and "head.json" in ran.err
