"""Who listens on which TCP port of this machine, and whether that is a swarm."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
"""State in /proc/net/tcp; source: the kernel's include/net/tcp_states.h."""
_COMMANDS = ("up", "join", "worker")
_MOST_PARENTS = 16


@dataclass(frozen=True)
class Listener:
    """A process that listens.

    Args:
        who: it, for people: `nginx, process 7`, or which part of a swarm.
        swarm: the command that it belongs to: `swarm up, process 6`; empty: it is no part of a swarm.
    """

    who: str
    swarm: str = ""


def listeners(root: Path) -> dict[int, Listener]:
    """By port, as far as this user may see."""
    sockets = dict(_listening(root))
    found: dict[int, Listener] = {}
    for process in (root / "proc").glob("[0-9]*"):
        try:
            held = set(filter(None, map(_target, (process / "fd").iterdir())))
            if ports := [sockets[link] for link in held if link in sockets]:
                found |= dict.fromkeys(ports, _listener(process))
        except OSError:
            continue  # somebody else's, or it ended
    return found


def _listener(process: Path) -> Listener:
    who = f"{(process / 'comm').read_text().strip()}, process {process.name}"
    each = process
    for _ in range(_MOST_PARENTS):
        words = _words(each)
        if command := _command(words):
            part = _worker(_words(process)) or ("Ray" if each != process else f"swarm {command}")
            return Listener(part, f"swarm {command}, process {each.name}")
        parent = (each / "stat").read_text().rpartition(")")[2].split()[1]  # proc(5): behind the name, state and parent
        if parent in ("0", "1"):
            break
        each = each.with_name(parent)
    return Listener(who)


def _words(process: Path) -> list[str]:
    return (process / "cmdline").read_text(errors="replace").split("\0")


def _command(words: list[str]) -> str:
    """Which of the commands that run on this is; empty for none."""
    pairs = itertools.pairwise(words)
    return next((then for word, then in pairs if then in _COMMANDS and word.rpartition("/")[2] in ("swarm", "swarm.cli.main")), "")


def _worker(words: list[str]) -> str:
    """`worker attic/cpu` for the process of a Worker."""
    return f"worker {words[words.index('--name') + 1]}" if "swarm.worker" in words and "--name" in words[:-1] else ""


def _target(link: Path) -> str:
    """What a link of /proc points to; empty where it was closed meanwhile."""
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _listening(root: Path) -> Iterator[tuple[str, int]]:
    """What /proc/*/fd calls a socket, and the port it listens on. Source: proc(5), /proc/net/tcp."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (root / "proc/net" / table).read_text(encoding="utf-8", errors="replace").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN:
                yield f"socket:[{fields[9]}]", int(fields[1].rpartition(":")[2], 16)
