"""`swarm key`: let somebody chat without giving the swarm's key away, shut him out again, or change the key.

- `invite` prints an invitation: a text that is given in the place of the key (`--key-file`, `SWARM_KEY` or `--key`) to `chat`,
  `score`, `bench`, `status` and `experts`, until it expires. Who has it may chat; joining, `swarm load` and everything that rigs
  say to each other are refused. Needs the swarm's key, and asks nothing of the swarm.
- `show` prints the key of the swarm that this user heads here, and the line that other rigs join with; where none runs, the key
  that `swarm up` starts with.
- `list` shows the invitations that were given out from here, and what each is worth now.
- `revoke NAME` calls those for NAME back (or one, by its number in the list): the swarm ends their chats and answers them no more.
  It tells which Workers did not answer; those hear of it as soon as they do.
- `rotate` draws another key for the swarm that this user heads here, also while it runs: the rigs that are in get the new one over
  the connections that they have, both are accepted until they use it (three minutes at most), then the old one and all its
  invitations are refused. Chats go on where the swarm's own users had the old key from `swarm up` or `swarm join`; those that were
  given it with `--key` end with a sentence. Ray cannot change its key, and is started again, which chats do not notice. Rigs that
  do not answer are named: they join with the line that is printed. `--without RIG` leaves a rig out, whose owner shall not have
  the new key; it is of the swarm no more ([security](security.md#another-key)). With `--json`: `{"key", "join": the line, "rigs":
  [names], "without": [those that do not have it], "missing": [those that are not in again],
  "later": [those that refuse the old key within three minutes only]}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import grpc.aio
import typer
from rich.table import Table

from swarm.cli import invitations, options, output, settings
from swarm.cli.invitations import Invitation
from swarm.cli.one_head import is_headed, noted_head
from swarm.cli.rotation import Rotation
from swarm.cli.status import ask
from swarm.errors import Expired, NoSwarm, SwarmError, UsageError
from swarm.wire import invitation
from swarm.wire.authority import Authority
from swarm.wire.credentials import Credentials
from swarm.wire.join_line import join_line
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
    SHOW = "show"


def key(
    action: Annotated[
        Action,
        typer.Argument(help="Print an invitation, list or revoke those given out, draw a new key, or show the one there is."),
    ],
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
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="RIG", help="rotate: a rig that shall not have the new key; repeatable."),
    ] = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Invite somebody who may chat and not join, list and revoke such invitations, or give the swarm another key."""
    if who and action is not Action.REVOKE:
        raise UsageError(f"`swarm key {action}` takes no {who!r}: only `swarm key revoke` takes a name")
    if without and action is not Action.ROTATE:
        raise UsageError(f"`swarm key {action}` takes no --without: only `swarm key rotate` leaves rigs out")
    if action is Action.ROTATE:
        _rotate(without or (), json, swarm)
        return
    if action is Action.SHOW:
        _show(json)
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
    if not seconds or not name.strip():
        raise UsageError("an invitation is for somebody, and for a while: give a --name, and an --expires of more than 0")
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


def _show(json: bool) -> None:
    here = settings.state_dir()
    head = noted_head(here) if is_headed(here) else None
    shown = settings.recall().keys.get(head.address, "") if head else settings.own_key()
    line = join_line(head.address, shown) if head else ""
    if json:
        output.print_json({"key": shown, "join": line})
        return
    output.stdout().print(f"the key is  {shown}" + (f"\njoin line:  {line}" if line else ""), soft_wrap=True, highlight=False)
    if not line:
        _tell_person("no swarm of yours runs here: `swarm up` starts with it")


def _rotate(without: Sequence[str], json: bool, swarm: str | None) -> None:
    here = settings.state_dir()
    if not is_headed(here):
        if without:
            raise UsageError("no swarm of yours runs here, so that --without leaves nobody out: all rigs join with the new line")
        _check_own(swarm)
        _change_own(json)
    elif (head := noted_head(here)) is None:
        raise SwarmError("a swarm of yours is starting or ending here: try again in a moment")
    elif not (old := settings.recall().keys.get(head.address)):
        raise SwarmError(f"the key of the swarm at {head.address} is not kept here: end it with `swarm down` first")
    else:
        _change_running(head.address, old, without, json)


def _change_running(address: str, old: str, without: Sequence[str], json: bool) -> None:
    fresh = settings.draw_key()
    line = join_line(address, fresh)
    try:
        rotated = asyncio.run(Rotation(address, old, fresh, _tell_person).run(without))
    except KeyboardInterrupt:
        _tell_person(f"stopped: where the swarm says that it has another key now, that is  {fresh}\njoin line:      {line}")
        raise
    if json:
        output.print_json({"key": fresh, "join": line, **asdict(rotated)})
        return
    output.stdout().print(f"the new key is  {fresh}\njoin line:      {line}", soft_wrap=True, highlight=False)
    _tell_person(f"{', '.join(rotated.rigs)} use it; the old key and its invitations are refused from now on")
    if rotated.later:
        _tell_person(f"but not yet by {', '.join(rotated.later)}, which did not answer: there within three minutes")
    if rotated.missing:
        _tell_person(f"not in again yet: {', '.join(rotated.missing)}; look at `swarm status`")
    if rotated.without:
        _tell_person(f"without it, and out of the swarm until they join with that line: {', '.join(rotated.without)}")
    _tell_person(
        "a rig that was away joins with that line, too; where one is started with --key, --key-file or SWARM_KEY (a service, say), "
        "put the new key there"
    )


def _check_own(swarm: str | None) -> None:
    """Raise SwarmError where a swarm is meant that is not headed here: its key is changed on its head.

    Args:
        swarm: the one that --swarm names; without, the one that is remembered here is meant, if it answers.
    """
    address = settings.parse_address(swarm) if swarm else settings.recall().address
    if swarm or (address and _answers(address)):
        raise SwarmError(f"the swarm at {address} is not headed by you here, so that nothing was changed: run this on its head rig")


def _answers(address: str) -> bool:
    try:
        asyncio.run(ask(options.target(address, settings.recall().keys.get(address), None)))
    except (NoSwarm, Expired):
        return False
    except SwarmError:
        return True  # it refuses us
    return True


def _change_own(json: bool) -> None:
    fresh = settings.change_own_key()
    if json:
        output.print_json({"key": fresh})
        return
    output.stdout().print(f"the new key is  {fresh}", soft_wrap=True)
    _tell_person(
        "no swarm of yours runs here, so that none was changed: the next `swarm up` starts with it and prints the new join line; "
        "it refuses rigs and people with the old key, and all invitations"
    )


def _tell_person(message: str) -> None:
    output.stderr().print(message, soft_wrap=True)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
