"""Whether GPU, driver, CUDA and this torch fit each other, and what else uses the card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cluster.doctor.driver import AMD, NVIDIA, Driver, DriverCard, read_driver
from cluster.doctor.finding import Finding, fine, note, stop, stopped
from cluster.hardware.cards import BF16_FROM, Card, Cards, build_with_code, lacks_code, probe_cards
from cluster.hardware.detect import GPU_MARGIN_BYTES
from swarm.errors import DeviceError, gib

ABOUT = "gpu"
MUCH = 0.2
"""Of a card's memory: what others use beyond it is told."""
OLDEST_DRIVER = {12: "525", 13: "580"}
"""For each major version of CUDA. Source: NVIDIA's CUDA compatibility guide, minor version compatibility."""
OLDEST_IN_13 = (7, 5)
"""Compute capability; CUDA 13 builds code for no older one."""
HAS_OLD_CARDS = "the CUDA 12.6 build of torch (+cu126)"


@dataclass(frozen=True)
class GpuFacts:
    """What is known of this machine's GPUs.

    Args:
        torch: its version; empty where it is not installed.
        cards: as torch sees them; None where it was not asked.
        trouble: why torch could not look.
        hidden_by: the value of CUDA_VISIBLE_DEVICES; None: not set.
    """

    driver: Driver
    torch: str = ""
    cards: Cards | None = None
    trouble: str = ""
    hidden_by: str | None = None


def read_gpus(hidden_by: str | None) -> GpuFacts:
    """Ask the driver, and torch in a process of its own. Takes seconds."""
    driver = read_driver()
    try:
        torch = version("torch")
        return GpuFacts(driver, torch, probe_cards(), "", hidden_by)
    except (PackageNotFoundError, ModuleNotFoundError):
        return GpuFacts(driver, hidden_by=hidden_by)
    except DeviceError as error:
        return GpuFacts(driver, torch, None, str(error), hidden_by)


def gpu_findings(facts: GpuFacts) -> Iterator[Finding]:
    """One for each card, and one for each thing that keeps cards from being used."""
    seen = facts.cards.cards if facts.cards else ()
    if facts.trouble:
        yield stopped(ABOUT, facts.trouble)
    yield from _of_the_driver(facts.driver, bool(seen))
    if facts.cards is not None:
        for card in seen:
            yield _of_a_card(card, facts.cards, facts.driver)
        if len(facts.driver.cards) > len(seen):
            yield _unused(facts, facts.cards)


def _of_the_driver(driver: Driver, seen: bool) -> Iterator[Finding]:
    """Args: `seen`: whether torch sees a card, so that there is a driver, whatever nvidia-smi says."""
    if seen and not driver.cards:
        said = f"does not answer ({driver.trouble})" if driver.trouble else "is missing"
        remedy = "restart the machine" if driver.trouble else "start a container with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        yield note(ABOUT, f"nvidia-smi {said}: what uses the cards, how warm they are and what they draw is not known", remedy)
    elif driver.trouble:
        remedy = "restart the machine, so that the driver that was installed is the one that runs"
        if "mismatch" not in driver.trouble:
            remedy = "install NVIDIA's driver again (on Ubuntu: sudo ubuntu-drivers install), and restart the machine"
        yield note(ABOUT, f"NVIDIA's driver does not answer ({driver.trouble}), so that no card is used", remedy)
    elif not driver.version and NVIDIA in driver.on_the_bus:
        remedy = "install it (on Ubuntu: sudo ubuntu-drivers install), and restart the machine"
        yield note(ABOUT, "there is an NVIDIA card and no driver (nvidia-smi is missing), so that the card is not used", remedy)
    elif driver.version and driver.cards:
        yield fine(ABOUT, f"driver {driver.version} runs CUDA up to {driver.cuda}")
    elif AMD in driver.on_the_bus:
        yield note(ABOUT, "the AMD card is not used: swarm computes on NVIDIA cards and CPUs", "give RAM with --ram")
    else:
        yield fine(ABOUT, "no NVIDIA card: this rig gives RAM")


def _of_a_card(card: Card, cards: Cards, driver: Driver) -> Finding:
    place = _place(card, driver)
    known = None if place is None else driver.cards[place]
    there = "" if place in (None, card.index) else f", {place} in nvidia-smi"
    name = f"cuda:{card.index} ({card.name}, sm_{card.capability[0]}{card.capability[1]}{there})"
    spare = f"close what uses it, or leave it out with --exclude cuda:{card.index}"
    if card.broken:
        return stop(ABOUT, f"{name} cannot be used: torch said {card.broken!r}", f"look at nvidia-smi; {spare}")
    if card.free_bytes is None:
        return stop(
            ABOUT, lacks_code(card, cards), f"{build_with_code(card, cards)}, or leave it out with --exclude cuda:{card.index}"
        )
    free = f"{gib(card.free_bytes)} of {gib(card.total_bytes)} free"
    uses = f" ({_uses(known)})" if known and known.uses else ""
    if card.free_bytes <= GPU_MARGIN_BYTES:
        return stop(ABOUT, f"{name} has no memory to give: {free}{uses}", spare)
    if card.total_bytes - card.free_bytes > MUCH * card.total_bytes:
        return note(ABOUT, f"{name}: {free}, something else uses the rest{uses}", spare)
    if card.capability < BF16_FROM:
        return note(ABOUT, f"{name}: {free}; it has no bf16", "nothing to do: --dtype auto plans it in fp16")
    return fine(ABOUT, f"{name}: {free}; torch {cards.torch} has code for it")


def _unused(facts: GpuFacts, cards: Cards) -> Finding:
    """Cards that the driver sees and torch does not."""
    driver, there = facts.driver, facts.driver.cards
    what = f"the driver sees {_count(len(there))} and torch {_count(len(cards.cards))}"
    if not cards.cuda:
        build = _build(driver, there)
        return note(ABOUT, f"{what}: torch {cards.torch} is a build without CUDA, so that no card is used", f"install {build}")
    needs, runs = _major(cards.cuda), _major(driver.cuda)
    if runs and runs < needs:
        built = f"torch {cards.torch} is built for CUDA {cards.cuda}"
        what = f"{built}, and driver {driver.version} runs CUDA up to {driver.cuda}, so that no card is used"
        newer = f"update the driver to {OLDEST_DRIVER[needs]} or newer" if needs in OLDEST_DRIVER else "update the driver"
        return note(ABOUT, what, newer + (f", or install {HAS_OLD_CARDS}" if runs == 12 else ""))
    if facts.hidden_by is not None:
        return note(ABOUT, f"{what}: CUDA_VISIBLE_DEVICES={facts.hidden_by} hides the others", "unset CUDA_VISIBLE_DEVICES")
    if any(card.mig for card in there):
        remedy = "give the whole card back with `sudo nvidia-smi -mig 0`, or make an instance and name it in CUDA_VISIBLE_DEVICES"
        return note(ABOUT, f"{what}: a card is cut into instances (MIG), of which programs see one at most", remedy)
    return note(ABOUT, what, "look at what `python -c 'import torch; torch.cuda.init()'` says")


def _build(driver: Driver, there: tuple[DriverCard, ...]) -> str:
    """Which build of torch runs these cards under that driver."""
    old = any(card.capability is not None and card.capability < OLDEST_IN_13 for card in there)
    return HAS_OLD_CARDS if old or _major(driver.cuda) == 12 else "the CUDA 13 build of torch"


def _uses(card: DriverCard) -> str:
    most = sorted(card.uses, key=lambda use: -use.num_bytes)[:3]
    return ", ".join(f"{u.name.rpartition('/')[2]} (pid {u.pid})" + (f" {gib(u.num_bytes)}" if u.num_bytes else "") for u in most)


def _place(card: Card, driver: Driver) -> int | None:
    """Which of the driver's cards it is: torch counts the fastest first, and only those of CUDA_VISIBLE_DEVICES."""
    there = driver.cards
    if card.uuid and any(known.uuid for known in there):
        return next((at for at, known in enumerate(there) if known.uuid == card.uuid), None)
    return card.index if card.index < len(there) and there[card.index].name == card.name else None


def _count(number: int) -> str:
    return "no card" if number == 0 else "1 card" if number == 1 else f"{number} cards"


def _major(cuda: str) -> int:
    first = cuda.partition(".")[0]
    return int(first) if first.isdigit() else 0
