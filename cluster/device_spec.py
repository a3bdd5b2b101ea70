"""What a person writes after `--device`: `cuda:0`, `cuda:1=20GiB`, `cpu`, `cpu=4GiB`; and sizes such as `48GiB`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from swarm.errors import UsageError

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = {unit.lower(): size for unit, size in UNITS.items()}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?([a-z]+)", re.ASCII)
_NAME = re.compile(r"cpu|cuda:(0|[1-9]\d{0,2})", re.ASCII)


@dataclass(frozen=True)
class DeviceSpec:
    """One `--device`.

    Args:
        device: `cpu` or `cuda:N`, as torch names it.
        memory_bytes: what it may use; None: as much as is usual for it.
    """

    device: str
    memory_bytes: int | None = None


def parse_device(text: str) -> DeviceSpec:
    """Read a `--device SPEC`. Raises UsageError."""
    name, equals, size = text.strip().partition("=")
    if not _NAME.fullmatch(name):
        raise UsageError(f"--device {text} names no device: write cuda:0, cuda:1=20GiB, cpu or cpu=4GiB")
    return DeviceSpec(name, parse_size(size, f"--device {text}") if equals else None)


def parse_size(text: str, where: str) -> int:
    """Bytes of a size such as `20GiB`, `512 MiB` or `1.5GB`, upper or lower case. Raises UsageError naming `where`."""
    match = _SIZE.fullmatch(text.strip().lower())
    unit = _UNITS.get(match[2]) if match else None
    if match is None or unit is None:
        raise UsageError(f"{where} has no size in it that can be read: write a number and one of {', '.join(UNITS)}, such as 20GiB")
    size = int(Decimal(match[1]) * unit)
    if size < 1:
        raise UsageError(f"{where} gives nothing: write a size above zero, such as 20GiB")
    return size
