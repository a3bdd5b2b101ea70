"""A person at one machine: runs `swarm` commands with a home of their own, and looks what they leave behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from claimed_ports import claimed_range, range_text

HOST = "127.0.0.1"
LIMIT_S = 120.0
GONE_S = 60.0
POLL_S = 0.1
NOISE = ("Traceback", "WARNING", "raylet", "(pid=", "UserWarning", "\x1b")
TEMPORARY = re.compile(r"/tmp/swarm-[^/\s\0]+")
T = TypeVar("T")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def failed_in_one_sentence(self) -> bool:
        return self.code == 1 and self.err.startswith("swarm: ") and self.err.count("\n") == 1 and not self.out

    @property
    def document(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Running:
    """A command that goes on: what it has printed so far, and its end."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out, self._err = out, err

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def shows(self, text: str, times: int = 1) -> None:
        """Wait until it has printed a text so many times. AssertionError with all it printed where it ends or takes too long."""

        def there() -> bool:
            return (self.out + self.err).count(text) >= times

        wait_for(lambda: there() or self.process.poll() is not None, f"{text!r} in {self._err.name}")
        assert there(), f"{text!r} did not appear before the end (exit {self.process.poll()}) in:\n{self.out}\n{self.err}"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = LIMIT_S) -> Ran:
        """Wait for its end."""
        return Ran(self.process.wait(seconds), self.out, self.err)


class Person:
    """One user on one machine, with a range of ports; `folder` keeps their home and what their commands printed."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.folder = folder
        ports = claimed_range()
        self.ports = range_text(ports)
        self.address = f"{HOST}:{ports[0]}"
        self.place = ("--address", HOST, "--ports", self.ports)
        self._started: list[Running] = []
        self._temporary: set[Path] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, *words: str, text: str = "") -> Ran:
        """A command until its end."""
        done = subprocess.run(
            self._command(words), input=text, capture_output=True, text=True, timeout=LIMIT_S, env=self._environment()
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> Running:
        """A command that goes on."""
        stem = f"{len(self._started)}-{words[0]}"
        out, err = self.folder / f"{stem}.out", self.folder / f"{stem}.err"
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                self._command(words), stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err, env=self._environment()
            )
        self._started.append(Running(process, out, err))
        return self._started[-1]

    def up(self, *words: str) -> Running:
        """`swarm up` at this person's address, once its door is open."""
        up = self.start("up", *words, *self.place)
        up.shows("Another rig:")
        return up

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = self.run("status", "--json").document
        return document

    def status_where(self, true: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The first status of which something is true."""
        return wait_for(lambda: next((s for s in [self.status()] if true(s)), None), what, instead=self.status)

    def processes(self) -> dict[int, str]:
        """Command lines of all processes that were started with this home, by process id, also of those whose parents are gone."""
        mark = f"SWARM_HOME={self.home}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
            except OSError:
                continue  # it ended while we looked
        running = {pid: line for pid, line in found.items() if line}  # a zombie has no command line
        self._temporary |= {Path(name) for line in running.values() for name in TEMPORARY.findall(line)}
        return running

    def nothing_is_left(self) -> None:
        """Wait until no process of this person runs. AssertionError with what is left of processes and folders."""
        wait_for(lambda: not self.processes(), "the end of all processes", GONE_S, self.processes)
        wait_for(lambda: not self._left(), "the end of all temporary folders", GONE_S, self._left)

    def close(self) -> None:
        """End what a failed test left running, by process id."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for running in self._started:
                if running.process.poll() is None:
                    running.send(number)
            try:
                wait_for(lambda: all(r.process.poll() is not None for r in self._started), "the end of the commands", GONE_S)
            except AssertionError:
                continue
            break
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def _left(self) -> list[Path]:
        return [path for path in self._temporary if path.exists()]

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "swarm.cli.main", *words]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SWARM_HOME": str(self.home), "COLUMNS": "100"}


def wait_for(there: Callable[[], T], what: str, seconds: float = LIMIT_S, instead: Callable[[], object] = lambda: "") -> T:
    """The first true value; AssertionError after so many seconds, with what was there instead."""
    deadline = time.monotonic() + seconds
    while not (value := there()):
        assert time.monotonic() < deadline, f"no {what} after {seconds:.0f} s {instead()}"
        time.sleep(POLL_S)  # between two looks
    return value


def join_words(up: Running) -> tuple[str, ...]:
    """`join ADDRESS --key KEY`, copied from what `up` printed."""
    line = next(line for line in up.out.splitlines() if line.startswith("Another rig:"))
    return tuple(line.split("swarm ", 1)[1].split())
