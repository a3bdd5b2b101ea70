"""`swarm up`: start a swarm here.

Start a swarm here and stay in the foreground: Ray's head, the Coordinator and this rig's Workers. Prints the join line for other
rigs and the dashboard's address. Where the memory of all rigs is too little it waits for `swarm join`. Ctrl-C, or `swarm down`,
ends it; its Workers end with it, also when it is killed. A second Ctrl-C cuts short what it waits for then. Where it is at a
loopback address, only this machine reaches it; of Ray's ports, those of the GCS, the node manager, the object manager, the agent
and the metrics listen on all interfaces even so. All but the agent's HTTP port, which wants Ray's token, and the metrics, which
ask for nothing, refuse whoever shows no certificate of this swarm ([security](security.md)). Each device is measured before it is
planned on, in the model's own dtype and shapes: 2 s each, on one rig the CPU devices one after the other, on different rigs at
the same time. Where the model does not fit and a rig with GPUs has RAM to spare, the line that says what is missing also says
what `--ram` would bring.

`--dtype auto` is the best that fits: the checkpoint's own, or `fp16` on all where a card has no bf16; else `int8`, else `int4`
with attention in `int8`, else `int4`, at last in groups of 128. The head of `int4` is in `int8` unless `--head int4`. Without
`--key`, `--key-file` or `SWARM_KEY` the swarm's key is this user's own, drawn once and kept.

With `--idle-unload 30m` the model's memory is given back on all rigs when nobody has asked for 30 minutes, as with
`swarm unload`: the next question brings it back.

The swarm announces itself on the local network (mDNS: its name, its address and the fingerprint of its key, no secret), so that
`swarm join` finds it without an address, unless `--no-announce` is given or it is at a loopback address.

A user heads one swarm a machine: a second `up` says where the first one is and starts nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.address import is_loopback, own_address
from cluster.ports import DEFAULT_PORTS
from swarm.api.text_servicer import serving_text
from swarm.bits import with_forms
from swarm.cli import options, rig_options, settings
from swarm.cli.cache_limit import limited_cache
from swarm.cli.install import need
from swarm.cli.one_head import one_head
from swarm.cli.rig_watch import watching
from swarm.cli.screen import Screen
from swarm.config import kv_dtype
from swarm.errors import gib
from swarm.weights.describe import describe
from swarm.weights.source import NANO, local
from swarm.wire.authority import short

if TYPE_CHECKING:
    from cluster.head_rig import HeadRig

REAL_MODEL = "mistralai/Mixtral-8x7B-Instruct-v0.1"


def up(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a Hub id, or nano.")] = NANO,
    device: rig_options.Device = None,
    ram: rig_options.Ram = None,
    exclude: rig_options.Exclude = None,
    threads: rig_options.Threads = None,
    spread: rig_options.Spread = False,
    dtype: Annotated[str, typer.Option("--dtype", help=options.DTYPES)] = "auto",
    group: options.Group = 0,
    attention: options.Attention = "",
    head: options.Head = "",
    kv: options.KV = "full",
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="How many sessions to budget KV for.")] = 4,
    context: Annotated[int, typer.Option("--context", min=1, help="Positions of each session.")] = 8192,
    objective: options.Objective = "balanced",
    standby: Annotated[
        bool, typer.Option("--standby", help="Keep a copy of every Block on another rig: a lost rig costs no loading.")
    ] = False,
    address: rig_options.Address = None,
    ports: rig_options.Ports = DEFAULT_PORTS,
    name: rig_options.Name = None,
    cache: options.Cache = None,
    cache_limit: options.CacheLimit = None,
    idle_unload: Annotated[
        str,
        typer.Option("--idle-unload", metavar="TIME", help="Give the memory back after so long without a question: 30m."),
    ] = "",
    no_announce: Annotated[bool, typer.Option("--no-announce", help="Do not let `swarm join` find it without an address.")] = False,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Start a swarm here and stay in the foreground: Ray's head, the Coordinator and this rig's Workers.

    Too little memory is no error: it waits for `swarm join`.
    """
    options.check_objective(objective)
    idle_s = options.seconds("--idle-unload", idle_unload) if idle_unload else 0
    need("torch", "ray", "scipy", *(() if no_announce else ("zeroconf",)))
    # Imported here, because planning comes with them, whose solver a client lacks that asks for --help.
    from cluster.head_rig import HeadRig
    from cluster.target import Target

    dtype, kept_as = with_forms(dtype, group, attention, head), kv_dtype(kv)
    settings.hub_cache(cache)
    describe(model, dtype)  # what is wrong with the model is said before anything starts
    source = str(found) if model != NANO and (found := local(model)) else model
    swarm_key = settings.explicit_key(key, key_file) or settings.own_key()
    screen = Screen()
    where = {
        "host": address or own_address(),
        "key": swarm_key,
        "ports": ports,
        "spread": spread,
        "notify": screen.tell,
        "cache": limited_cache(cache, cache_limit),
    }
    rig = HeadRig(
        rig_options.rig_settings(device, ram, exclude, threads, name, **where),
        Target(source, dtype, sessions, context, spread, objective, standby, kept_as, idle_unload_s=idle_s),
        token=secrets.token_hex(32),
    )
    with one_head(rig.settings.state_dir, rig.address):
        rig_options.run_until_stopped(screen, lambda: _serve(rig, model, screen, announce=not no_announce))


async def _serve(rig: HeadRig, model: str, screen: Screen, announce: bool) -> None:
    credentials = rig.credentials
    screen.tell(f"starting a swarm at {rig.address} ...")
    async with rig:
        settings.remember(rig.address, rig.settings.key)
        for device in rig.settings.devices:
            screen.show(f"{device.name:8} {gib(device.memory_bytes):>9}  {device.label}")
        screen.show(f"\nAnother rig:  {rig.join_line}")
        if is_loopback(rig.settings.host):
            screen.show("              (only this machine reaches it there: give --address for others)")
        screen.show("Talk to it:   swarm chat")
        _show_dashboard(rig, screen)
        if model == NANO:
            screen.show(f"\nThis is the model that comes with swarm. A real one:  swarm load {REAL_MODEL}")
        async with (
            _announcing(rig, screen, announce and not is_loopback(rig.settings.host)) as announce_again,
            watching(screen, rig.address, credentials) as watch,
            serving_text(f"{rig.bind}:{rig.ports.text}", lambda: rig.own_door, credentials),
        ):

            def rekeyed(before: str, key: str) -> None:
                """The swarm was given another key: commands here use it, too."""
                settings.replace_key(before, key)
                screen.show(f"\nAnother rig:  {rig.join_line}")
                _show_dashboard(rig, screen)
                watch.at(rig.address)
                announce_again()

            rig.rekeyed = rekeyed
            await rig.run()


def _show_dashboard(rig: HeadRig, screen: Screen) -> None:
    if rig.dashboard:
        screen.show(f"Dashboard:    {rig.dashboard}  (token: {rig.token})")


@asynccontextmanager
async def _announcing(rig: HeadRig, screen: Screen, wanted: bool) -> AsyncIterator[Callable[[], None]]:
    """Announce the swarm until the block ends, where that is wanted; yields what does it again, with another key."""
    key_changed = asyncio.Event()
    announcing = asyncio.create_task(_announce(rig, screen, key_changed)) if wanted else None
    try:
        yield key_changed.set
    finally:
        if announcing:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)


async def _announce(rig: HeadRig, screen: Screen, key_changed: asyncio.Event) -> None:
    from cluster.announcement import Announcement, announced

    while True:
        key_changed.clear()
        fingerprint = rig.credentials.fingerprint
        screen.show(f"Fingerprint:  {short(fingerprint)}  (`swarm join` without an address finds this swarm by it)")
        async with announced(Announcement(rig.name, rig.address, fingerprint), screen.tell):
            await key_changed.wait()
