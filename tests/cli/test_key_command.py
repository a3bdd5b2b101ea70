"""`swarm key invite`: what a friend can do with an invitation, and what not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from commands import is_one_sentence, swarm
from fake_swarm import Door, listening

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
