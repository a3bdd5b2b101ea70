"""A short run of what `make chaos` does at length, and of `make soak`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from results import read
from shapes import SHAPES

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(900)
SWARMS = ("spread", "standby")
FAULTS = 15
"""Of each swarm, whatever time they take: every kind that it can have, and one or two again."""
SAID = "said.txt"
SHORT = ("--longest", "1.5", "--seed", "6", "--n", str(FAULTS))


@contextmanager
def breaking(program: str, folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run of the harness; what it says is in the folder. Where the test ends before it, it ends what it started."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "ray")))
    command = [sys.executable, str(ROOT / "tests" / "chaos" / program), "--folder", str(folder), *words]
    folder.mkdir()
    with (folder / SAID).open("wb") as said:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=said, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()


@pytest.mark.alone
@pytest.mark.chaos
def test_thirty_faults_on_two_swarms_lose_no_answer_change_no_token_and_leave_nothing_over(tmp_path: Path) -> None:
    """The swarms are broken side by side: while one waits for a process to start, the other one computes."""
    one, other = (tmp_path / name for name in SWARMS)
    with (
        breaking("chaos.py", one, "--swarms", one.name, *SHORT) as first,
        breaking("chaos.py", other, "--swarms", other.name, *SHORT) as second,
    ):
        codes = [first.wait(), second.wait()]
    assert codes == [0, 0], "\n".join((folder / SAID).read_text() for folder in (one, other))
    results = {name: read(tmp_path / name) for name in SWARMS}
    assert all(result.recovered and result.answers for found in results.values() for result in found)
    for name, found in results.items():
        assert sorted(r.number for r in found) == list(range(FAULTS)) and {r.kind for r in found} == set(SHAPES[name].kinds)


@pytest.mark.chaos
def test_a_short_soak_grows_nothing_and_answers_right(tmp_path: Path) -> None:
    with breaking("soak.py", folder := tmp_path / "soak", "--minutes", "0.25") as soak:
        code = soak.wait()
    said = (folder / SAID).read_text()
    assert code == 0 and "(0 wrong)" in said, said
