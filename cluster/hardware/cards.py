"""The GPUs of this machine, as its torch sees them.

Looked at in a process of its own: a CUDA context takes some hundred MiB for as long as its process lives, so that a
probe inside the caller would count its own context as taken. There, what is free is measured beside one context,
which is what a Worker will find.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from swarm.errors import DeviceError

PROBE_S = 120.0
"""How long torch may take to start and to make a context on each card."""
BF16_FROM = (8, 0)
"""Source: CUDA C++ Programming Guide, arithmetic by compute capability: `__nv_bfloat16` from 8.0 on."""
_ARCH = re.compile(r"(sm|compute)_(\d+)(\d)([a-z]?)")


@dataclass(frozen=True)
class Card:
    """One GPU; `free_bytes` is measured with a context on it, None where this torch has no code for it, or it made none.

    Args:
        uuid: its driver's name for it, without the `GPU-` or `MIG-` before it; empty where torch does not say.
        broken: what it said instead of making a context; empty: it made one.
    """

    index: int
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int | None
    uuid: str = ""
    broken: str = ""


@dataclass(frozen=True)
class Cards:
    """All GPUs that torch can see, and what torch has code for (`torch.cuda.get_arch_list()`)."""

    torch: str
    archs: tuple[str, ...]
    cards: tuple[Card, ...]
    cuda: str = ""
    """The CUDA that this torch is built for; empty where it is built for none."""


def probe_cards() -> Cards:
    """Look at the GPUs in a process of its own.

    Raises:
        ModuleNotFoundError: torch is not installed.
        DeviceError: it is, and cannot look.
    """
    if find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    command = [sys.executable, "-m", "cluster.hardware.look"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=True)
        raw = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"the GPUs did not answer torch in {PROBE_S:.0f} s: look at nvidia-smi, or use --device cpu") from None
    except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
        said = (getattr(error, "stderr", "") or "nothing").strip().splitlines()[-1]
        raise DeviceError(f"torch cannot look at the GPUs (it said: {said}): mend that, or use --device cpu") from None
    cards = tuple(Card(**{**card, "capability": tuple(card["capability"])}) for card in raw["cards"])
    return Cards(raw["torch"], tuple(raw["archs"]), cards, raw["cuda"])


def has_code(capability: tuple[int, int], archs: Sequence[str]) -> bool:
    """Whether code built for `archs` runs on a GPU of that compute capability.

    Source: CUDA's rules for binary and PTX compatibility: a cubin runs on its own major version from its minor up
    (with suffix `a` on exactly its own), PTX on everything newer.
    """
    for match in filter(None, map(_ARCH.fullmatch, archs)):
        kind, suffix, arch = match[1], match[4], (int(match[2]), int(match[3]))
        if suffix == "a":
            runs = capability == arch
        elif kind == "compute":
            runs = capability >= arch
        else:
            runs = capability[0] == arch[0] and capability[1] >= arch[1]
        if runs:
            return True
    return False


def why_not(card: Card, cards: Cards) -> str:
    """One sentence that names the GPU that this torch cannot run, and the remedy."""
    if card.broken:
        return (
            f"cuda:{card.index} ({card.name}) cannot be used (torch said: {card.broken}): look at nvidia-smi, close what uses it, "
            f"or leave it out with --exclude cuda:{card.index}"
        )
    return f"{lacks_code(card, cards)}; {build_with_code(card, cards)}, or leave the card out with --exclude cuda:{card.index}"


def lacks_code(card: Card, cards: Cards) -> str:
    """What is wrong with a GPU that this torch cannot run."""
    arch = card.capability[0] * 10 + card.capability[1]
    archs = " ".join(cards.archs) or "no GPU"
    return f"cuda:{card.index} ({card.name}, sm_{arch}) cannot be used: torch {cards.torch} has code for {archs}"


def build_with_code(card: Card, cards: Cards) -> str:
    """Which build of torch runs it, as a remedy."""
    oldest = min((int(m[2]) * 10 + int(m[3]) for m in filter(None, map(_ARCH.fullmatch, cards.archs))), default=0)
    arch = card.capability[0] * 10 + card.capability[1]
    build = "the CUDA 12.6 build of torch (+cu126), which still has" if arch < oldest else "a newer build of torch that has"
    return f"install {build} code for it"
