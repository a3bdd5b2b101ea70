"""`swarm service`: have `up` or `join` run by itself, from the start of the machine on.

`swarm service install up ...` or `swarm service install join ADDRESS ...` writes a systemd user unit with these words, lets it
run without anybody logged in (`loginctl enable-linger`), and starts it: it survives logout and reboot, and is started again 10
seconds after it ended for any other reason than a command line that makes no sense. `status` says whether it runs, `remove` stops
it and takes the unit away. What it says goes to `swarm logs`.

A unit file holds no key: `up` has its own, `join` the one that is remembered once you joined by hand, or give `--key-file`.
Variables that say where things lie (`SWARM_HOME`, `SWARM_CACHE`, `HF_HOME` and the like) are kept in the unit as they are when it
is installed. Where no systemd runs, the unit is written and the sentence says what is left to do.

In WSL2, systemd runs where `/etc/wsl.conf` has `systemd=true` under `[boot]` (then `wsl --shutdown`, once). Windows starts a
distribution only when something asks for it, and ends it seconds after the last program that was started from Windows, whatever
systemd runs in it: have the task scheduler run `wsl.exe -d NAME --exec sleep infinity` at log on, so that the rig is there after a
reboot and stays. How other rigs reach it is told [here](troubleshooting.md#wsl2).

With `--json`: `{"unit", "installed", "enabled", "active", "linger", "command"}`; `null` is what cannot be known without systemd.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from swarm.cli import options, output, settings
from swarm.cli.unit import NAME, Unit, check
from swarm.errors import SwarmError, UsageError, WrongKey

LIMIT_S = 150.0
"""How long systemd may take: stopping a rig moves its Blocks first."""
UNITS = ("up", "join")


class Action(StrEnum):
    """What to do with the service."""

    INSTALL = "install"
    STATUS = "status"
    REMOVE = "remove"


@dataclass(frozen=True)
class State:
    """How the service is; None: nobody knows without systemd."""

    unit: str
    installed: bool
    enabled: bool | None
    active: bool | None
    linger: bool | None
    command: str


def service(
    action: Annotated[Action, typer.Argument(help="Write and start it, say how it is, or take it away.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[up|join ...]", help="With install: the command, with what goes behind it.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Have `up` or `join` run by itself from the start of the machine on: a systemd user unit that survives logout and reboot."""
    given = words or []
    if (action is Action.INSTALL) != bool(given):
        raise UsageError(
            "write `swarm service install up ...` or `swarm service install join ADDRESS ...`; nothing behind the others"
        )
    path = settings.unit_dir() / NAME
    if action is Action.INSTALL:
        _install(path, given)
    elif action is Action.REMOVE:
        _remove(path)
    now = state(path)
    if as_json:
        output.print_json(asdict(now))
    elif action is Action.STATUS:
        output.stdout().print(_said(now), soft_wrap=True)
    if action is Action.STATUS and now.active is False:
        raise typer.Exit(1)


def _install(path: Path, words: list[str]) -> None:
    if words[0] not in UNITS:
        raise UsageError(f"`swarm {words[0]}` is no service: install `up` or `join`")
    if words[0] == "join" and len(words) < 2:
        raise UsageError("a service joins one swarm: write `swarm service install join ADDRESS`")
    if words[0] == "join" and words[1].startswith("-"):
        raise UsageError(f"the address comes first: write `swarm service install join ADDRESS {words[1]} ...`")
    has_file = any(word == "--key-file" or word.startswith("--key-file=") for word in words)
    if words[0] == "join" and not has_file and settings.parse_address(words[1]) not in settings.recall().keys:
        raise WrongKey(
            f"a service cannot be asked for the key of {words[1]}: join once by hand, which remembers it, or give --key-file"
        )
    text = Unit(_program(), words, os.environ, Path.cwd()).text()
    with tempfile.TemporaryDirectory() as scratch:  # looked at before it is where systemd reads it
        tried = Path(scratch) / NAME
        tried.write_text(text, encoding="utf-8")
        check(tried)
    settings.write_private(path, text)
    news = output.stderr()
    if not _runs():
        news.print(f"{path} is written, but no systemd runs for this user: {_remedy()}", soft_wrap=True)
        return
    _systemctl("daemon-reload")
    _systemctl("enable", NAME)
    _systemctl("restart", NAME)
    if _linger() is not True and _run("loginctl", "enable-linger").returncode:
        news.print(
            f"it ends when you log out: let it stay with `sudo loginctl enable-linger {settings.user_name() or os.getuid()}`",
            soft_wrap=True,
        )
    output.stdout().print(f"{NAME} runs `swarm {' '.join(words)}`; `swarm logs -f` shows what it says", soft_wrap=True)


def _remove(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"no service is installed: {path} is not there")
    if _runs():
        _systemctl("disable", "--now", NAME)
    path.unlink()
    if _runs():
        _systemctl("daemon-reload")
    output.stdout().print(f"{NAME} is removed", soft_wrap=True)


def state(path: Path) -> State:
    """How the service is whose unit file this is."""
    command = ""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        command = next((line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")), "")
    if not _runs():
        return State(str(path), path.exists(), None, None, None, command)
    enabled, active = (_run("systemctl", "--user", "-q", word, NAME).returncode == 0 for word in ("is-enabled", "is-active"))
    return State(str(path), path.exists(), enabled, active, _linger(), command)


def _said(now: State) -> str:
    if not now.installed:
        return "no service is installed: `swarm service install up`, or `swarm service install join ADDRESS`"
    if now.active is None:
        return f"{now.unit} is written, but no systemd runs for this user: {_remedy()}"
    runs = "runs" if now.active else "does not run (`systemctl --user status swarm` says why)"
    reboot = "comes back after a reboot" if now.enabled and now.linger else "does not come back after a reboot or a logout"
    return f"{NAME} {runs} and {reboot}: {now.command}"


def _remedy() -> str:
    wsl = Path("/proc/sys/fs/binfmt_misc/WSLInterop").exists()
    if wsl:
        return "write systemd=true under [boot] in /etc/wsl.conf, run `wsl --shutdown` in Windows, and install it again"
    return "log in on that machine itself or over ssh (not with su or sudo), and install it again"


def _program() -> list[str]:
    """What is `swarm` here: this interpreter, which has what it needs installed."""
    return [sys.executable, "-m", "swarm.cli.main"]


def _runs() -> bool:
    """Whether systemd serves this user."""
    return shutil.which("systemctl") is not None and _run("systemctl", "--user", "show-environment").returncode == 0


def _linger() -> bool | None:
    done = _run("loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value")
    return done.stdout.strip() == "yes" if done.returncode == 0 else None


def _systemctl(*words: str) -> None:
    done = _run("systemctl", "--user", *words)
    if done.returncode:
        raise SwarmError(
            f"systemd refused `systemctl --user {' '.join(words)}` ({done.stderr.strip()}): see `journalctl --user -u swarm`"
        )


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
