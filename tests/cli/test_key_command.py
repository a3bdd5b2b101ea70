"""`swarm key`: what a friend can do with an invitation, and what not; shutting him out; another key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from commands import Ran, is_one_sentence, swarm
from fake_swarm import Door, listening

from swarm.cli import settings
from swarm.cli.one_head import one_head
from swarm.wire.credentials import Credentials
from swarm.wire.revoking import numbers_of
from swarm.wire.v1 import key_pb2, key_pb2_grpc

WAITING = {"waiting": "needs 26.1 GiB, has 22.4: waiting for `swarm join`", "workers": []}


async def test_who_is_invited_asks_the_swarm_how_it_is_and_may_not_change_it(tmp_path: Path) -> None:
    async with listening(Door({}), key="k") as address:
        invited = await asyncio.to_thread(swarm, "key", "invite", "--expires", "2d", "--swarm", address, "--key", "k")
        assert invited.code == 0 and invited.out.count("\n") == 1
        assert f"swarm chat --swarm {address} --key-file" in invited.err
        card = tmp_path / "invitation"
        card.write_text(invited.out)
        with_it = ("--swarm", address, "--key-file", str(card))
        assert (await asyncio.to_thread(swarm, "status", "--json", *with_it)).code == 0
        for refused in (("load", "nano"), ("key", "invite")):
            ran = await asyncio.to_thread(swarm, *refused, *with_it)
            assert ran.code == 1 and is_one_sentence(ran.err) and "give the swarm's key with --key" in ran.err


@pytest.mark.parametrize("expires", ["7", "7y", "", "99999d"])
def test_a_time_that_is_none_is_one_sentence(expires: str) -> None:
    ran = swarm("key", "invite", "--expires", expires, "--swarm", "127.0.0.1:1", "--key", "k")
    assert ran.code == 2 and is_one_sentence(ran.err) and "12h, 30d or 4w" in ran.err


class KeyDoor(key_pb2_grpc.KeyServiceServicer):
    """A door that notes what is called back, and says which Workers did not hear of it."""

    def __init__(self, silent: list[str]) -> None:
        self.silent, self.revoked = silent, list[int]()

    async def Revoke(self, request: key_pb2.RevokeRequest, context: Any) -> key_pb2.RevokeReply:
        self.revoked += sorted(numbers_of(request))
        return key_pb2.RevokeReply(silent=self.silent)


async def test_invitations_are_listed_and_called_back_by_name_or_number() -> None:
    door, credentials = KeyDoor(["10.0.0.9:7731"]), Credentials("k")
    server = credentials.server()
    key_pb2_grpc.add_KeyServiceServicer_to_server(door, server)
    where = ("--swarm", f"127.0.0.1:{credentials.bind(server, '127.0.0.1:0')}", "--key", "k")
    await server.start()

    async def key(*arguments: str) -> Ran:
        return await asyncio.to_thread(swarm, "key", *arguments, *where)

    assert "no invitation was given out from here" in (await key("list")).out
    for name in ("ada", "ada", "bob"):
        await key("invite", "--name", name)
    listed = json.loads((await key("list", "--json")).out)["invitations"]
    assert [(each["name"], each["state"]) for each in listed] == [("ada", "good"), ("ada", "good"), ("bob", "good")]
    by_name = await key("revoke", "ada")
    assert by_name.code == 0 and "revoked 2 invitations for ada" in by_name.out and "10.0.0.9:7731" in by_name.err
    by_number = await key("revoke", listed[2]["number"], "--json")
    assert json.loads(by_number.out) == {"revoked": [listed[2]["number"]], "silent": ["10.0.0.9:7731"]}
    assert sorted(door.revoked) == sorted(int(each["number"], 16) for each in listed)
    assert "revoked" in (await key("list")).out
    nobody = await key("revoke", "ada")
    assert nobody.code == 2 and is_one_sentence(nobody.err) and "swarm key list" in nobody.err
    await server.stop(None)


def test_what_is_called_back_is_said_and_nothing_else_takes_a_name() -> None:
    for arguments in (("revoke",), ("invite", "ada"), ("rotate", "ada")):
        ran = swarm("key", *arguments, "--swarm", "127.0.0.1:1", "--key", "k")
        assert ran.code == 2 and is_one_sentence(ran.err) and "swarm key" in ran.err


def test_a_new_key_takes_the_old_ones_place_wherever_it_is_remembered(own_home: Path) -> None:
    old = settings.own_key()
    settings.remember("10.0.0.2:7700", "another swarm's")
    settings.remember("127.0.0.1:7700", old)
    swarm("key", "invite", "--name", "ada")
    ran = swarm("key", "rotate", "--json")
    fresh = json.loads(ran.out)["key"]
    assert ran.code == 0 and fresh != old
    assert settings.own_key() == fresh
    assert settings.recall().keys == {"10.0.0.2:7700": "another swarm's", "127.0.0.1:7700": fresh}
    assert json.loads(swarm("key", "list", "--json").out)["invitations"][0]["state"] == "of another key"
    assert (own_home / "own-key").stat().st_mode & 0o077 == 0


def test_a_running_swarm_that_does_not_answer_keeps_its_key(own_home: Path) -> None:
    old = settings.own_key()
    with one_head(settings.state_dir(), "127.0.0.1:1"):
        unknown = swarm("key", "rotate")
        settings.remember("127.0.0.1:1", old)
        silent = swarm("key", "rotate")
    assert unknown.code == 1 and is_one_sentence(unknown.err) and "end it with `swarm down` first" in unknown.err
    assert silent.code == 1 and is_one_sentence(silent.err) and "does not answer" in silent.err
    assert settings.own_key() == old == settings.recall().keys["127.0.0.1:1"]


def test_the_key_of_a_swarm_that_runs_elsewhere_is_not_said_to_be_changed(own_home: Path) -> None:
    old = settings.own_key()
    named = swarm("key", "rotate", "--swarm", "10.0.0.2:7700")
    assert named.code == 1 and is_one_sentence(named.err) and "run this on its head rig" in named.err and not named.out
    assert settings.own_key() == old
    settings.remember("127.0.0.1:1", "another swarm's")  # which does not answer: it may be this user's own that is down
    ran = swarm("key", "rotate")
    assert ran.code == 0 and settings.own_key() in ran.out and "none was changed" in ran.err


def test_the_key_and_the_line_to_join_with_can_be_seen_again(own_home: Path) -> None:
    ran = swarm("key", "show")
    assert ran.code == 0 and settings.own_key() in ran.out and "join" not in ran.out and "no swarm of yours runs here" in ran.err
    with one_head(settings.state_dir(), "127.0.0.1:1"):
        settings.remember("127.0.0.1:1", "two words")
        assert "swarm join 127.0.0.1:1 --key 'two words'" in swarm("key", "show").out
        shown = json.loads(swarm("key", "show", "--json").out)
    assert shown == {"key": "two words", "join": "swarm join 127.0.0.1:1 --key 'two words'"}


@pytest.mark.parametrize("words", [("--expires", "0d"), ("--name", " ")])
def test_an_invitation_is_for_somebody_and_for_a_while(own_home: Path, words: tuple[str, str]) -> None:
    ran = swarm("key", "invite", *words, "--swarm", "127.0.0.1:1", "--key", "k")
    assert ran.code == 2 and is_one_sentence(ran.err) and not ran.out


def test_only_a_running_swarm_has_rigs_that_can_be_left_out(own_home: Path) -> None:
    old = settings.own_key()
    for arguments in (("rotate", "--without", "desk"), ("invite", "--without", "desk")):
        ran = swarm("key", *arguments, "--swarm", "127.0.0.1:1", "--key", "k")
        assert ran.code == 2 and is_one_sentence(ran.err) and "--without" in ran.err
    assert settings.own_key() == old
