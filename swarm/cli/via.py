"""`swarm chat --via RIG`: a chat whose Decoder runs on that rig."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from swarm.cli import options, output
from swarm.cli.status import ask
from swarm.client.far_talk import FarTalk
from swarm.client.own_link import own_link
from swarm.client.talk import Talk, Wishes
from swarm.errors import NoSwarm, SwarmError, UsageError


@asynccontextmanager
async def talking_via(rig: str, target: options.Target, wishes: Wishes, notify: Callable[[str], None]) -> AsyncIterator[FarTalk]:
    """The chat, until the block ends. Raises UsageError for a rig that is none of the swarm's, and what `FarTalk.open` raises."""
    async with target.channel(await text_address(rig, target)) as channel:
        talk = FarTalk(channel, rig, wishes, notify)
        try:
            await talk.open()
            yield talk
        finally:
            await talk.close()


async def hint_at_via(target: options.Target, talk: Talk | FarTalk) -> bool:
    """Say, at a terminal, that a Decoder near the swarm would help, where it would; whether that was said."""
    console = output.stderr()
    if not console.is_terminal or not target.address or isinstance(talk, FarTalk):
        return False
    with suppress(SwarmError):  # a hint is no reason to fail
        link = await own_link(talk.answer, talk.plan, target.credentials)
        if link is not None and await text_address(link.rig, target):
            console.print(link.hint, style="dim")
            return True
    return False


async def text_address(rig: str, target: options.Target) -> str:
    """host:port where a rig's Decoder listens, as the swarm says. Raises UsageError, NoSwarm."""
    if not target.address:
        raise UsageError("--via needs a swarm with rigs: workers of a plan file have no Decoder, leave out one of both options")
    rigs = {str(each["name"]): str(each.get("text") or "") for each in (await ask(target)).get("rigs", ())}
    if rig not in rigs:
        raise UsageError(f"{rig} is no rig of {target.what}: give one of {', '.join(rigs) or 'those that will join'}")
    if not rigs[rig]:
        raise NoSwarm(f"{rig} offers no Decoder: start it again with this version of swarm, or chat without --via")
    return rigs[rig]
