"""`swarm chat --via RIG`: a chat whose Decoder runs on that rig."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

from swarm.cli import options, output
from swarm.cli.status import ask
from swarm.client.client import open_client
from swarm.client.far_talk import FarTalk
from swarm.client.own_link import own_link
from swarm.client.roving_talk import RovingTalk
from swarm.client.talk import Talk, Wishes
from swarm.errors import NoSwarm, SwarmError, UsageError


class Places:
    """Where a chat can go on: over each rig of the swarm, at last from here.

    Args:
        stack: closes what is opened.
    """

    def __init__(self, target: options.Target, wishes: Wishes, notify: Callable[[str], None], stack: AsyncExitStack) -> None:
        self._target, self._wishes, self._notify, self._stack = target, wishes, notify, stack
        self._here, self._rigs = "", dict[str, str]()

    async def first(self, rig: str) -> FarTalk:
        """The chat over the rig that was named. Raises UsageError for one that is none, and what `FarTalk.open` raises."""
        rigs = await text_addresses(self._target)
        address = text_address(rig, rigs, self._target)
        self._here, self._rigs = rig, {name: at for name, at in rigs.items() if at}
        return await self._over(rig, address)

    async def next(self, why: SwarmError) -> Talk | FarTalk:
        """Another one, now that the last is gone. Raises what `open_client` raises."""
        gone = self._here
        self._rigs |= {gone: self._rigs.pop(gone)}  # to the end: it may be back when the others are gone, too
        for rig, address in list(self._rigs.items())[:-1]:
            try:
                talk = await self._over(rig, address)
            except SwarmError:
                continue
            self._here = rig
            self._notify(f"{gone} is gone; the chat goes on via {rig}")
            return talk
        client = await self._stack.enter_async_context(
            open_client(self._target.source(self._notify), self._target.credentials, self._notify)
        )
        self._notify(f"{gone} is gone; the chat goes on from here")
        here = Talk(client, self._wishes)
        self._stack.push_async_callback(here.close)
        return here

    async def _over(self, rig: str, address: str) -> FarTalk:
        channel = await self._stack.enter_async_context(self._target.channel(address))
        talk = FarTalk(channel, rig, self._wishes, self._notify)
        self._stack.push_async_callback(talk.close)
        await talk.open()
        return talk


@asynccontextmanager
async def talking_via(rig: str, target: options.Target, wishes: Wishes, notify: Callable[[str], None]) -> AsyncIterator[RovingTalk]:
    """The chat, until the block ends. Raises UsageError for a rig that is none of the swarm's, and what `FarTalk.open` raises."""
    seed = secrets.randbits(64) if wishes.seed is None else wishes.seed  # drawn here: whichever Decoder goes on draws the same
    async with AsyncExitStack() as stack:
        places = Places(target, replace(wishes, seed=seed), notify, stack)
        yield RovingTalk(await places.first(rig), places.next)


async def hint_at_via(target: options.Target, talk: Talk | RovingTalk) -> bool:
    """Say, at a terminal, that a Decoder near the swarm would help, where it would; whether that was said."""
    console = output.stderr()
    if not console.is_terminal or not target.address or isinstance(talk, RovingTalk):
        return False
    with suppress(SwarmError):  # a hint is no reason to fail
        link = await own_link(talk.answer, talk.plan, target.credentials)
        if link is not None and (await text_addresses(target)).get(link.rig):
            console.print(link.hint, style="dim")
            return True
    return False


def text_address(rig: str, rigs: dict[str, str], target: options.Target) -> str:
    """host:port where a rig's Decoder listens. Raises UsageError, NoSwarm."""
    if rig not in rigs:
        raise UsageError(f"{rig} is no rig of {target.what}: give one of {', '.join(rigs) or 'those that will join'}")
    if not rigs[rig]:
        raise NoSwarm(f"{rig} offers no Decoder: start it again with this version of swarm, or chat without --via")
    return rigs[rig]


async def text_addresses(target: options.Target) -> dict[str, str]:
    """The same of all rigs, as the swarm says; empty where one has none. Raises UsageError where there is no swarm to ask."""
    if not target.address:
        raise UsageError("--via needs a swarm with rigs: workers of a plan file have no Decoder, leave out one of both options")
    return {str(each["name"]): str(each.get("text") or "") for each in (await ask(target)).get("rigs", ())}
