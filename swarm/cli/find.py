"""Finding the swarm on the local network that somebody means who gave no address."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.cli import output, settings
from swarm.errors import NoSwarm, UsageError, WrongKey
from swarm.wire.authority import short
from swarm.wire.credentials import Credentials

if TYPE_CHECKING:
    from cluster.announcement import Announcement


def find_swarm(key: str | None, key_file: Path | None) -> tuple[str, str]:
    """host:port and key of a swarm that announces itself here. Several are listed, and the key, or whoever sits here, chooses.

    Raises:
        NoSwarm: none announces itself. UsageError: several do, and nobody is there to choose.
        WrongKey: the key is not that of the swarm.
    """
    from cluster.announcement import find

    output.stderr().print("looking for swarms on this network ...")
    found = asyncio.run(find())
    if not found:
        raise NoSwarm("no swarm announces itself on this network: give its address, as `swarm up` prints it: swarm join HOST:PORT")
    given = settings.explicit_key(key, key_file)
    chosen = _of_key(found, given) if given else _choose(found)
    swarm_key = given or settings.resolve_key(None, None, chosen.address)
    check_fingerprint(chosen, swarm_key)
    return chosen.address, swarm_key


def check_fingerprint(swarm: Announcement, key: str) -> None:
    """Raise WrongKey unless a key is that of the swarm that was announced."""
    credentials = Credentials(key)
    credentials.check_member()
    if credentials.fingerprint != swarm.fingerprint:
        raise WrongKey(
            f"this is not the key of {_line(swarm)} (the key's own fingerprint is {short(credentials.fingerprint)}): "
            "give the one that `swarm up` printed there with --key"
        )


def _of_key(found: Sequence[Announcement], key: str) -> Announcement:
    """The one whose key it is; where it is nobody's, the only one: checking it says so. Raises WrongKey."""
    fingerprint = Credentials(key).fingerprint
    chosen = next((each for each in found if each.fingerprint == fingerprint), None if len(found) > 1 else found[0])
    if chosen is None:
        raise WrongKey(
            f"this is the key of none of the {len(found)} swarms that announce themselves here ({', '.join(map(_line, found))}; "
            f"the key's own fingerprint is {short(fingerprint)}): give the one that `swarm up` printed there with --key"
        )
    output.stderr().print(f"found {_line(chosen)}")
    return chosen


def _choose(found: Sequence[Announcement]) -> Announcement:
    console = output.stderr()
    if len(found) == 1:
        console.print(f"found {_line(found[0])}")
        return found[0]
    listed = [f"{number}  {_line(each)}" for number, each in enumerate(found, 1)]
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"several swarms announce themselves here: name one, of {', '.join(each.address for each in found)}")
    console.print("\n".join(listed))
    answer = console.input(f"Which one? [1-{len(found)}] ").strip()
    if not answer.isascii() or not answer.isdigit() or not 1 <= int(answer) <= len(found):
        raise UsageError(f"{answer!r} is none of them: answer a number from 1 to {len(found)}, or give the address")
    return found[int(answer) - 1]


def _line(swarm: Announcement) -> str:
    return f"{swarm.name} at {swarm.address} (fingerprint {short(swarm.fingerprint)})"
