"""What NVIDIA's driver says of the cards, whichever torch is installed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

NVIDIA_SMI = ("nvidia-smi", "-q", "-x")
CAPABILITIES = ("--query-gpu=compute_cap", "--format=csv,noheader")
WSL_NVIDIA_SMI = "/usr/lib/wsl/lib/nvidia-smi"
SMI_S = 30.0
NVIDIA, AMD = "0x10de", "0x1002"
_MIB = 2**20


@dataclass(frozen=True)
class Use:
    """A process that has memory of a card."""

    pid: int
    name: str
    num_bytes: int


@dataclass(frozen=True)
class DriverCard:
    """A card as its driver knows it.

    Args:
        uuid: without the `GPU-` before it.
        mig: whether it is cut into instances, of which programs see one at a time and never the whole card.
    """

    name: str
    total_bytes: int
    used_bytes: int
    uses: tuple[Use, ...] = ()
    capability: tuple[int, int] | None = None
    uuid: str = ""
    mig: bool = False


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi said.

    Args:
        version: such as `580.65.06`; empty where it did not answer.
        cuda: the newest CUDA that it runs, such as `13.0`.
        trouble: why it did not answer; empty: it did, or it is not installed.
        on_the_bus: PCI vendors of display controllers, as `/sys` writes them.
    """

    version: str = ""
    cuda: str = ""
    cards: tuple[DriverCard, ...] = ()
    trouble: str = ""
    on_the_bus: tuple[str, ...] = ()


def read_driver(root: Path = Path("/"), ask: Callable[[Sequence[str]], tuple[int, str]] | None = None) -> Driver:
    """Ask nvidia-smi, and look at the PCI bus.

    Args:
        ask: runs a command; its exit code and what it printed. Raises OSError where it is not installed.
    """
    bus = tuple(_display_vendors(root))
    for command in (NVIDIA_SMI, (WSL_NVIDIA_SMI, *NVIDIA_SMI[1:])):
        try:
            code, said = (ask or _run)(command)
        except OSError:  # it is not there, or nothing that runs
            continue
        if code:
            return Driver(trouble=" ".join(said.split()) or f"exit code {code}", on_the_bus=bus)
        return parse(said, bus, _capabilities((ask or _run)((command[0], *CAPABILITIES))))
    return Driver(on_the_bus=bus)


def parse(text: str, on_the_bus: tuple[str, ...] = (), capabilities: Sequence[tuple[int, int] | None] = ()) -> Driver:
    """Read what `nvidia-smi -q -x` prints; figures that it does not have (`N/A`) are 0.

    Args:
        capabilities: compute capability of each card, in its order.
    """
    try:
        log = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return Driver(trouble=f"it printed what is no XML ({error})", on_the_bus=on_the_bus)
    cards = tuple(_card(gpu) for gpu in log.findall("gpu"))
    if len(capabilities) == len(cards):
        cards = tuple(replace(card, capability=known) for card, known in zip(cards, capabilities, strict=True))
    return Driver(log.findtext("driver_version", ""), log.findtext("cuda_version", ""), cards, "", on_the_bus)


def _card(gpu: ElementTree.Element) -> DriverCard:
    processes = gpu.findall("processes/process_info")
    uses = tuple(
        Use(_number(p.findtext("pid", "")), p.findtext("process_name", "?"), _bytes(p.findtext("used_memory", "")))
        for p in processes
    )
    memory = gpu.find("fb_memory_usage")
    total, used = (_bytes(memory.findtext(name, "")) for name in ("total", "used")) if memory is not None else (0, 0)
    uuid, mig = gpu.findtext("uuid", "").removeprefix("GPU-"), gpu.findtext("mig_mode/current_mig") == "Enabled"
    return DriverCard(gpu.findtext("product_name", "?"), total, used, uses, None, uuid, mig)


def _capabilities(answer: tuple[int, str]) -> list[tuple[int, int] | None]:
    """Of lines such as `8.6`; drivers older than CUDA 11.4's do not say."""
    found = [re.fullmatch(r"(\d+)\.(\d+)", line.strip()) for line in answer[1].splitlines()] if answer[0] == 0 else []
    return [(int(match[1]), int(match[2])) if match else None for match in found]


def _bytes(text: str) -> int:
    """Of `812 MiB`."""
    number, _, unit = text.partition(" ")
    return _number(number) * _MIB if unit == "MiB" else 0


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _run(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_S, check=False, errors="replace")
    except subprocess.TimeoutExpired:
        return 1, f"no answer in {SMI_S:.0f} s"
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def _display_vendors(root: Path) -> list[str]:
    """PCI class 0x03 is display controllers, 3D ones too. WSL2 has no such bus."""
    found = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        try:
            if (device / "class").read_text().startswith("0x03"):
                found.append((device / "vendor").read_text().strip())
        except OSError:
            continue
    return found
