"""A short run of what `make chaos` does at length, and of `make soak`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(900)
SHORT = ("--longest", "1.5", "--seed", "6")
CHANGED_OR_LOST = 2


def broken(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "ray")))
    command = [sys.executable, str(ROOT / "tests" / "chaos" / program), *words]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.alone
def test_what_breaks_a_swarm_changes_no_token_and_loses_no_answer(tmp_path: Path) -> None:
    """As many faults of two dozen as begin in half a minute, all on one swarm: its start takes longer than most of them.

    What else is left over is for `make chaos-short` to find.
    """
    ran = broken("chaos.py", *SHORT, "--swarms", "spread", "--n", "24", "--minutes", "0.6", "--folder", str(tmp_path))
    assert ran.returncode < CHANGED_OR_LOST and "| **all** |" in ran.stdout, f"{ran.stdout}\n{ran.stderr}"


@pytest.mark.chaos
def test_faults_one_after_another_lose_no_answer_change_no_token_and_leave_nothing_over(tmp_path: Path) -> None:
    """Two dozen, or as many as a slow machine begins in two minutes."""
    ran = broken(
        "chaos.py", *SHORT, "--swarms", "spread,standby", "--n", "24", "--run", "12", "--minutes", "1.75", "--folder", str(tmp_path)
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert "as it was" in ran.stdout


@pytest.mark.chaos
def test_a_short_soak_grows_nothing_and_answers_right(tmp_path: Path) -> None:
    ran = broken("soak.py", "--minutes", "0.25", "--folder", str(tmp_path))
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert "(0 wrong)" in ran.stdout
