"""Running commands as a person does: in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

LIMIT_S = 120


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def swarm(*words: str, text: str | None = None) -> Ran:
    """Run `swarm WORDS`, with `text` on standard input (nothing where it is None)."""
    return python("from swarm.cli.main import main; main()", *words, text=text)


def python(code: str, *words: str, text: str | None = None) -> Ran:
    """Run Python code with arguments, its output no terminal."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        input=text or "",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=dict(os.environ),
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def is_one_sentence(err: str) -> bool:
    """Whether standard error holds exactly one line of ours and no traceback."""
    return err.startswith("swarm: ") and err.count("\n") == 1 and "Traceback" not in err
