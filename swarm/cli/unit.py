"""A systemd user unit that runs `swarm up` or `swarm join`: its text, and whether systemd takes it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import SwarmError, UsageError

NAME = "swarm.service"
KEPT = (
    "SWARM_HOME",
    "SWARM_CACHE",
    "XDG_STATE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
)
"""Variables that say where things lie: the unit has them as they were when it was written. Keys and tokens are never among them."""
SECRET = "--key"
_TEXT = """\
# Written by `swarm service install`; `swarm service remove` takes it away.
[Unit]
Description=swarm {command}
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={start}
WorkingDirectory={folder}
{environment}Restart=always
RestartSec=10
RestartPreventExitStatus=2
# Blocks and Sessions move elsewhere before a rig ends: its own process alone is asked to, and has the time for it.
KillMode=mixed
TimeoutStopSec=120

[Install]
WantedBy=default.target
"""


@dataclass(frozen=True)
class Unit:
    """What shall run.

    Args:
        program: the interpreter and module, or the script, that is `swarm` here.
        words: `up` or `join`, and what goes behind it.
        environment: of the process that installs it; only `KEPT` of it is kept.
        folder: where it runs, for paths among the words.
    """

    program: Sequence[str]
    words: Sequence[str]
    environment: Mapping[str, str]
    folder: Path

    def text(self) -> str:
        """The unit file. Raises UsageError where it would hold a key."""
        if any(word == SECRET or word.startswith(f"{SECRET}=") for word in self.words):
            raise UsageError(
                "a unit file is no place for a key: give --key-file, or run the command once by hand, which remembers it"
            )
        kept = {name: self.environment[name] for name in KEPT if self.environment.get(name)}
        lines = "".join(f"Environment={_quoted(f'{name}={value}', dollars=False)}\n" for name, value in kept.items())
        start = " ".join(_quoted(word) for word in (*self.program, *self.words))
        return _TEXT.format(command=self.words[0], start=start, environment=lines, folder=_path(self.folder))


def check(path: Path) -> None:
    """Have systemd-analyze look at a unit file, where it is there. Raises SwarmError with what it says."""
    if not shutil.which("systemd-analyze"):
        return
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if NAME in line]
    if done.returncode and said:
        raise SwarmError(f"systemd does not take {path} ({said[0]}): report this with `swarm report`")


def _path(folder: Path) -> str:
    """A path as systemd reads it where only one can stand: to the end of the line, spaces and all."""
    return _one_line(str(folder)).replace("%", "%%")


def _one_line(text: str) -> str:
    if any(character in text for character in "\n\r\0"):
        raise UsageError(f"{text!r} has a line break, which no unit file can hold")
    return text


def _quoted(word: str, dollars: bool = True) -> str:
    """One word as systemd reads it (man 5 systemd.service, "Command lines").

    Args:
        dollars: whether `$` begins a variable there; in `Environment=` it does not.
    """
    escaped = _one_line(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if dollars:
        escaped = escaped.replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word or "'" in word or not word else word
