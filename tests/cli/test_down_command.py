"""`swarm down`, with a real process in the head's place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import is_one_sentence, swarm

IDLE = "import signal, sys; print('up', flush=True); signal.sigwait({signal.SIGTERM})"
SLEEP = "import signal; signal.pause()"


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def note(home: Path, pid: int) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "head.json"
    path.write_text(json.dumps({"pid": pid, "address": "10.0.0.1:7700"}))
    return path


def test_down_ends_the_head_and_forgets_it(own_home: Path, tmp_path: Path) -> None:
    entry = tmp_path / "swarm"
    entry.write_text(
        IDLE.replace("; signal.sigwait", "; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); signal.sigwait")
    )
    with process(sys.executable, str(entry), "up") as head:
        assert head.stdout is not None and head.stdout.readline() == "up\n"
        path = note(own_home, head.pid)
        ran = swarm("down")
        assert (ran.code, ran.err) == (0, "") and "10.0.0.1:7700" in ran.out
        assert head.wait(10) == 0
    assert not path.exists()


def test_down_touches_no_other_program_that_got_the_number_since(own_home: Path) -> None:
    with process(sys.executable, "-c", SLEEP) as stranger:
        path = note(own_home, stranger.pid)
        ran = swarm("down")
        assert ran.code == 1 and is_one_sentence(ran.err)
        assert stranger.poll() is None
    assert not path.exists()


def test_down_without_a_swarm_is_one_sentence() -> None:
    ran = swarm("down")
    assert ran.code == 1 and is_one_sentence(ran.err) and "heads no swarm" in ran.err


def test_a_broken_note_is_one_sentence(own_home: Path) -> None:
    note(own_home, os.getpid()).write_text('{"pid": "x"}')
    ran = swarm("down")
    assert ran.code == 1 and is_one_sentence(ran.err) and "head.json" in ran.err
