"""`python -m cluster.hardware.look`: the GPUs that torch sees here, as JSON on standard output. See `cards`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import torch

from cluster.hardware.cards import Card, Cards, has_code


def look() -> Cards:
    """Every GPU; what is free is asked after a context is made, and only where this torch has code for the card."""
    archs = tuple(torch.cuda.get_arch_list())
    cards = tuple(_card(i, archs) for i in range(torch.cuda.device_count()))
    return Cards(torch.__version__, archs, cards, torch.version.cuda or "")


def _card(index: int, archs: tuple[str, ...]) -> Card:
    properties = torch.cuda.get_device_properties(index)
    capability = (properties.major, properties.minor)
    free, broken = None, ""
    if has_code(capability, archs):
        try:
            torch.zeros(1, device=f"cuda:{index}")
            free = torch.cuda.mem_get_info(index)[0]
        except RuntimeError as error:  # it is full, or another program has it alone: the others may be fine
            broken = str(error).strip().partition("\n")[0] or type(error).__name__
    return Card(index, properties.name, capability, properties.total_memory, free, str(properties.uuid), broken)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(look())))
