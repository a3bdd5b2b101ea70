"""When a Device is done: a card is told what to do, and does it later. And whether it does anything at all any more."""

from __future__ import annotations

import logging

import torch

_LOG = logging.getLogger(__name__)


def finish(device: torch.device) -> None:
    """Return when all work that it was told to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def still_computes(device: torch.device) -> bool:
    """Whether this process can go on with a Device on which something failed.

    After an illegal access, an ECC error or a card that fell off its bus, everything that a process asks of CUDA fails, for good
    (CUDA C++ Programming Guide, errors): another process has to take over.
    """
    try:
        finish(device)
    except RuntimeError as error:
        _LOG.error("%s answers this process no more (%s)", device, error)
        return False
    return True
