"""When a Device is done: a card is told what to do, and does it later."""

from __future__ import annotations

import torch


def finish(device: torch.device) -> None:
    """Return when all work that it was told to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
