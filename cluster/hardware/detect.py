"""The Devices that this rig gives: what was asked for, or what is usual."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.device_spec import DeviceSpec
from cluster.hardware.cards import Card, Cards, probe_cards, why_not
from cluster.hardware.host import Host, read_host
from swarm.errors import DeviceError, UsageError, gib

GPU_MARGIN_BYTES = 512 * 2**20
"""Left free on each GPU for the libraries' own workspaces, recorded Steps and the allocator's gaps."""


@dataclass(frozen=True)
class Device:
    """One Device that this rig gives.

    Args:
        name: unlike that of any other Device of this rig: `cuda:0`, `cpu`, or `cpu:0` and `cpu:1` where there are several.
        torch_device: what torch calls it.
        memory_bytes: for weights, KV and workspace together.
        threads: torch threads of a CPU Device; 0 for a GPU.
        label: what is printed on it.
    """

    name: str
    torch_device: str
    memory_bytes: int
    threads: int
    label: str


def detect(
    specs: Sequence[DeviceSpec],
    ram_bytes: int | None = None,
    exclude: Sequence[str] = (),
    threads: int | None = None,
    *,
    cards: Callable[[], Cards] = probe_cards,
    host: Callable[[], Host] = read_host,
) -> tuple[Device, ...]:
    """The Devices that `specs` name; with none, every GPU, or half the RAM where there is no GPU.

    Args:
        ram_bytes: a CPU Device of that much beside them.
        exclude: names of Devices to leave out.
        threads: torch threads of each CPU Device; None shares the cores out evenly.

    Raises:
        DeviceError: a Device that is not there, cannot be used, or is asked for more than it has; or none is left.
        UsageError: a GPU is named twice, or threads are below 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads} must be at least 1")
    wanted = [spec for spec in specs if spec.device not in exclude]
    gpus = [spec for spec in wanted if spec.device != "cpu"]
    twice = next((s.device for i, s in enumerate(gpus) if s.device in [g.device for g in gpus[:i]]), None)
    if twice:
        raise UsageError(f"--device names {twice} twice: name each GPU once")
    seen = cards() if gpus or not specs else None
    there = [spec.device for spec in specs] or ["cpu", *(f"cuda:{c.index}" for c in (seen.cards if seen else ()))]
    _check_excluded(exclude, [*there, *(["cpu"] if ram_bytes else [])])
    if not specs and seen:
        gpus = [DeviceSpec(f"cuda:{c.index}") for c in seen.cards if f"cuda:{c.index}" not in exclude]
    rams = [spec for spec in wanted if spec.device == "cpu"] + ([DeviceSpec("cpu", ram_bytes)] if ram_bytes else [])
    if not specs and not gpus and not rams and "cpu" not in exclude:
        rams = [DeviceSpec("cpu")]
    found = tuple(_gpu(spec, seen) for spec in gpus if seen) + (_cpus(rams, host(), threads) if rams else ())
    if not found:
        raise DeviceError("no device is left to use: name one with --device, or leave --exclude out")
    return found


def _check_excluded(exclude: Sequence[str], there: Sequence[str]) -> None:
    """Raise DeviceError for a name that leaves nothing out: a card that was meant to be spared would be used."""
    unknown = next((name for name in exclude if name not in there), None)
    if unknown is not None:
        names = ", ".join(dict.fromkeys(there))
        raise DeviceError(f"there is no {unknown} here to leave out: name one of {names} with --exclude")


def _gpu(spec: DeviceSpec, cards: Cards) -> Device:
    card = next((c for c in cards.cards if f"cuda:{c.index}" == spec.device), None)
    if card is None:
        there = ", ".join(f"cuda:{c.index} ({c.name})" for c in cards.cards) or "no GPU"
        raise DeviceError(
            f"there is no {spec.device} that torch {cards.torch} can see, it sees {there}: name another with --device"
        )
    if card.free_bytes is None:
        raise DeviceError(why_not(card, cards))
    usable = card.free_bytes - GPU_MARGIN_BYTES
    if usable < (spec.memory_bytes or 1):
        raise DeviceError(_too_much(spec, card, usable))
    return Device(spec.device, spec.device, spec.memory_bytes or usable, 0, card.name)


def _too_much(spec: DeviceSpec, card: Card, usable: int) -> str:
    asked = f"{gib(spec.memory_bytes)} asked" if spec.memory_bytes else "nothing to give"
    return (
        f"{spec.device} ({card.name}): {asked}, {gib(max(0, usable))} of its {gib(card.total_bytes)} can be used now: "
        f"close what else uses it (nvidia-smi lists it), ask for less, or leave it out with --exclude {spec.device}"
    )


def _cpus(specs: Sequence[DeviceSpec], host: Host, threads: int | None) -> tuple[Device, ...]:
    """CPU Devices; those without a size share what the others leave of half the RAM."""
    sized = sum(spec.memory_bytes or 0 for spec in specs)
    if sized > host.total_bytes:
        raise DeviceError(f"the CPU devices ask for {gib(sized)} and this machine has {gib(host.total_bytes)} of RAM: ask for less")
    unsized = sum(spec.memory_bytes is None for spec in specs)
    rest = min(host.total_bytes // 2, host.available_bytes) - sized
    if unsized and rest < unsized:
        raise DeviceError(
            f"{gib(sized)} of RAM are given already, and no more than {gib(rest + sized)} are used unasked: write cpu=SIZE for each"
        )
    share = threads or max(1, host.cores // len(specs))
    names = ["cpu"] if len(specs) == 1 else [f"cpu:{i}" for i in range(len(specs))]
    return tuple(
        Device(name, "cpu", spec.memory_bytes or rest // unsized, share, host.label)
        for name, spec in zip(names, specs, strict=True)
    )
