"""`swarm key`: let somebody chat without giving the swarm's key away, shut him out again, or change the key.

- `invite` prints an invitation: a text that is given in the place of the key (`--key-file`, `SWARM_KEY` or `--key`) to `chat`,
  `score`, `status` and `experts`, until it expires. Who has it may chat; joining, `swarm load` and everything that rigs say to
  each other are refused. Needs the swarm's key, and asks nothing of the swarm.
- `list` shows the invitations that were given out from here, and what each is worth now.
- `revoke NAME` calls those for NAME back (or one, by its number in the list): the swarm ends their chats and answers them no more.
  It tells which Workers did not answer; those hear of it as soon as they do.
- `rotate` draws a new key for the swarms that are started here. It is for a swarm that is down: `swarm down` first. The old key
  and all its invitations are worth nothing from the next `swarm up` on; rigs join with the line that it prints
  ([security](security.md)).
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import grpc.aio
import typer
from rich.table import Table

from swarm.cli import invitations, options, output, settings
from swarm.cli.invitations import Invitation
from swarm.cli.one_head import is_headed
from swarm.errors import SwarmError, UsageError
from swarm.wire import invitation
from swarm.wire.authority import Authority
from swarm.wire.credentials import Credentials
from swarm.wire.revoking import request_for
from swarm.wire.status import from_rpc
from swarm.wire.v1.key_pb2_grpc import KeyServiceStub

REVOKE_S = 10.0


class Action(StrEnum):
    """What to do with the key."""

    INVITE = "invite"
    LIST = "list"
    REVOKE = "revoke"
    ROTATE = "rotate"


def key(
    action: Annotated[Action, typer.Argument(help="Print an invitation, list or revoke those given out, or draw a new key.")],
    who: Annotated[str, typer.Argument(metavar="[NAME]", help="revoke: whose invitations, or the number of one.")] = "",
    expires: Annotated[str, typer.Option("--expires", metavar="TIME", help="invite: how long it is good: 12h, 30d, 4w.")] = "7d",
    client_only: Annotated[
        bool, typer.Option("--client-only", help="invite: for chatting, not for joining; there is no other: who joins has the key.")
    ] = True,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="invite: whom it is for; stands in the certificate.")
    ] = "guest",
    json: options.Json = False,
    swarm: options.Swarm = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Invite somebody who may chat and not join, list and revoke such invitations, or draw a new key for a swarm that is down."""
    if who and action is not Action.REVOKE:
        raise UsageError(f"`swarm key {action}` takes no {who!r}: only `swarm key revoke` takes a name")
    if action is Action.ROTATE:
        _rotate(json)
        return
    address = settings.resolve_swarm(swarm)
    swarm_key = settings.resolve_key(key, key_file, address)
    Credentials(swarm_key).check_member()
    authority = Authority.of(swarm_key)
    if action is Action.INVITE:
        _invite(authority, name, options.seconds("--expires", expires), address)
    elif action is Action.LIST:
        _list(authority, json)
    elif not who:
        raise UsageError("whose invitation? Say `swarm key revoke NAME`; `swarm key list` shows the names")
    else:
        _revoke(authority, who, options.target(address, swarm_key, None), json)


def _invite(authority: Authority, name: str, seconds: float, address: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    papers = authority.client(name, until)
    invitations.remember(Invitation.of(papers, name, authority))
    output.stdout().print(invitation.write(papers), soft_wrap=True, highlight=False)
    output.stderr().print(
        f"good until {_time(until.timestamp())}, for: swarm chat --swarm {address} --key-file FILE, with the line above in FILE"
    )


def _list(authority: Authority, json: bool) -> None:
    given_out = [(each, each.state(authority.fingerprint)) for each in invitations.given_out()]
    if json:
        output.print_json({"invitations": [{**asdict(each), "state": state} for each, state in given_out]})
        return
    table = Table("name", "number", "good until", "state", box=None, header_style="bold")
    for each, state in given_out:
        table.add_row(each.name, each.number, _time(each.until), state)
    output.stdout().print(table if given_out else "no invitation was given out from here")


def _revoke(authority: Authority, who: str, target: options.Target, json: bool) -> None:
    found = list(invitations.named(who, authority.fingerprint))
    if not found:
        raise UsageError(f"no invitation for {who} was given out from here that is still good: see `swarm key list`")
    silent = asyncio.run(_tell(target, [int(each.number, 16) for each in found]))
    invitations.note_revoked([each.number for each in found])
    if json:
        output.print_json({"revoked": [each.number for each in found], "silent": silent})
        return
    many = f"{len(found)} invitations" if len(found) > 1 else "1 invitation"
    output.stdout().print(f"revoked {many} for {found[0].name}: chats with it end")
    if silent:
        output.stderr().print(f"these workers did not answer, and hear of it as soon as they do: {', '.join(silent)}")


async def _tell(target: options.Target, numbers: list[int]) -> list[str]:
    """Have the door call them back; the Workers that did not hear of it. Raises what the swarm answers."""
    async with target.channel() as channel:
        try:
            reply = await KeyServiceStub(channel).Revoke(request_for(numbers), timeout=REVOKE_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, target.what) from None
        return list(reply.silent)


def _rotate(json: bool) -> None:
    if is_headed(settings.state_dir()):
        raise SwarmError("a swarm of yours runs here with the key: end it with `swarm down`, then say `swarm key rotate` again")
    fresh = settings.change_own_key()
    if json:
        output.print_json({"key": fresh})
        return
    output.stdout().print(f"the new key is  {fresh}", soft_wrap=True)
    output.stderr().print(
        "`swarm up` starts with it and prints the new join line; rigs and people with the old key, and all invitations, are refused"
    )


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
