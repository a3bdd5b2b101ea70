"""What a Device's memory says when there is none left."""

from __future__ import annotations

import psutil  # type: ignore[import-untyped]
import torch

from swarm.errors import DeviceError, gib


def free_bytes(device: torch.device) -> int:
    """What is free on a Device now; files that are only cached leave room."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def too_little(device: torch.device, planned_bytes: int, what: str) -> DeviceError:
    """What to tell whoever planned more than was really there."""
    return DeviceError(
        f"{device} ran out of memory while loading {what} (planned: {gib(planned_bytes)}, free now: {gib(free_bytes(device))}): "
        f"end what else uses it, or give the swarm less of it with --device {device}=SIZE"
    )
