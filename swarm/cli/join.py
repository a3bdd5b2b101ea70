"""`swarm join`: contribute this rig's devices.

Contribute this rig's devices until Ctrl-C, which leaves politely: its Blocks and Sessions move first, for as long as something
moves; a second Ctrl-C leaves at once. Its devices are measured first (2 s each; CPU devices one after the other), and its link to
each other rig (half a second each, 3 s together at most). A device that the swarm leaves out is named, with the reason; one that
serves slower than it did is priced at what it reads now. When the swarm goes away the rig waits for it with its
Workers, and joins again when it is back, at that address or at another one ([reliability](reliability.md#come-and-go)). A rig that
drops four times in a row is held back for a while.

Before anything starts, every rig of the swarm dials this one, on the first port, the one for text and those of its Workers, and
this one dials a Worker of each; what does not get through is told with both addresses, the port, and what to do. Other versions
than the swarm's are refused with the line that installs the right ones. `swarm doctor` looks at all of it without joining.

Without `ADDRESS` it looks for swarms on the local network for 3 seconds (mDNS), lists them with the fingerprints of their keys
where there are several, and asks for the key; `swarm up` shows the fingerprint of its own. A key that is given chooses the swarm
that it belongs to.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.address import own_address
from cluster.joined_rig import JoinedRig
from cluster.ports import DEFAULT_PORTS
from swarm.api.text_servicer import serving_text
from swarm.cli import options, rig_options, settings
from swarm.cli.cache_limit import limited_cache
from swarm.cli.find import find_swarm
from swarm.cli.install import need
from swarm.cli.rig_watch import SwarmWatch, watching
from swarm.cli.screen import Screen


def join(
    swarm: Annotated[
        str | None, typer.Argument(metavar="ADDRESS", help="The swarm's HOST:PORT, as `swarm up` prints it. [default: looked for]")
    ] = None,
    device: rig_options.Device = None,
    ram: rig_options.Ram = None,
    exclude: rig_options.Exclude = None,
    threads: rig_options.Threads = None,
    spread: rig_options.Spread = False,
    address: rig_options.Address = None,
    ports: rig_options.Ports = DEFAULT_PORTS,
    name: rig_options.Name = None,
    cache: options.Cache = None,
    cache_limit: options.CacheLimit = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Contribute this rig's devices to a swarm until Ctrl-C, which leaves politely: its Blocks and Sessions move first."""
    need("torch", "ray", *(() if swarm else ("zeroconf",)))
    if swarm:
        door = settings.parse_address(swarm)
        swarm_key = settings.resolve_key(key, key_file, door)
    else:
        door, swarm_key = find_swarm(key, key_file)
    host = address or own_address(door.rpartition(":")[0].strip("[]"))
    screen = Screen()
    settings.hub_cache(cache)
    where = {
        "host": host,
        "key": swarm_key,
        "ports": ports,
        "spread": spread,
        "notify": screen.tell,
        "cache": limited_cache(cache, cache_limit),
    }
    rig = JoinedRig(rig_options.rig_settings(device, ram, exclude, threads, name, **where), door)
    rig_options.run_until_stopped(screen, lambda: _serve(rig, screen))


async def _serve(rig: JoinedRig, screen: Screen) -> None:
    credentials = rig.credentials
    screen.tell(f"joining the swarm at {rig.swarm} ...")
    async with rig:
        settings.remember(rig.swarm, rig.settings.key)
        async with (
            watching(screen, rig.swarm, credentials) as watch,
            serving_text(f"{rig.bind}:{rig.ports.text}", lambda: rig.swarm, credentials),
        ):
            rig.moved = lambda address: _follow(rig, watch, address)
            rig.rekeyed = lambda before, key: _rekey(rig, watch, before, key)
            await rig.run(lambda reply: screen.tell(f"joined the swarm at {rig.swarm} as {rig.name}; Ctrl-C leaves it"))


def _follow(rig: JoinedRig, watch: SwarmWatch, address: str) -> None:
    """The head came back at another address: that is the swarm which commands here mean from now on."""
    settings.remember(address, rig.settings.key)
    watch.at(address)


def _rekey(rig: JoinedRig, watch: SwarmWatch, before: str, key: str) -> None:
    """The swarm was given another key: commands here use it, too."""
    settings.replace_key(before, key)
    watch.at(rig.swarm)
