"""`swarm key`: let somebody chat without giving the swarm's key away.

Print an invitation: a text that is given in the place of the key (`--key-file`, `SWARM_KEY` or `--key`) to `chat`, `score`,
`status` and `experts`, until it expires. Who has it may chat; joining, `swarm load` and everything that rigs say to each other
are refused. Needs the swarm's key, and asks nothing of the swarm; it cannot be called back before it expires
([security](security.md)).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from swarm.cli import options, output, settings
from swarm.wire import invitation
from swarm.wire.authority import Authority
from swarm.wire.credentials import Credentials


class Action(StrEnum):
    """What to do with the key."""

    INVITE = "invite"


def key(
    action: Annotated[Action, typer.Argument(help="Print an invitation.")],
    expires: Annotated[str, typer.Option("--expires", metavar="TIME", help="How long it is good: 12h, 30d, 4w.")] = "7d",
    client_only: Annotated[
        bool, typer.Option("--client-only", help="For chatting, not for joining; there is no other: who joins has the key.")
    ] = True,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Whom it is for; stands in the certificate.")] = "guest",
    swarm: options.Swarm = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Print a text that is given in the place of the key: its bearer may chat until it expires, and not join.

    Needs the swarm's key, and asks nothing of the swarm. It cannot be called back before it expires.
    """
    address = settings.resolve_swarm(swarm)
    swarm_key = settings.resolve_key(key, key_file, address)
    Credentials(swarm_key).check_member()
    until = datetime.now(UTC) + timedelta(seconds=options.seconds("--expires", expires))
    output.stdout().print(invitation.write(Authority.of(swarm_key).client(name, until)), soft_wrap=True, highlight=False)
    output.stderr().print(
        f"good until {until:%Y-%m-%d %H:%M} UTC, for: swarm chat --swarm {address} --key-file FILE, with the line above in FILE"
    )
