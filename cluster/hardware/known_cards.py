"""Devices by what their makers print: for dry runs only, a measurement always wins.

Figures are those of the reference clocks; GeForce cards multiply 16-bit numbers with fp32 sums at twice their fp32 rate (the
whitepapers' tables), which is how theirs was counted where no table has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from cluster.hardware.cards import BF16_FROM, has_code
from cluster.planner.hardware import Speed
from swarm.bits import Bits

BANDWIDTH_SHARE = 0.8
"""Of the printed memory bandwidth, what decode products are taken to reach. An assumption: measure to know."""
RATE_SHARE = 0.6
"""Of the printed matmul rate, what a prompt's chunk of 256 rows is taken to reach. An assumption: measure to know."""
START_S = 5e-6
"""To start one kernel from Python. An assumption: measure to know."""
GPU_RESERVE_GIB = 1.0
"""Of a card's printed memory: what driver, CUDA context, allocator gaps and a little screen take. An assumption."""
TORCH = "torch 2.13's CUDA 13 build"
ARCHS = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
"""What it has code for; source: the support matrix in pytorch's RELEASE.md, github.com/pytorch/pytorch issue 172352."""

_NOISE = re.compile(r"nvidia|geforce|rtx|tesla|[\s_-]")
_TURING = "https://images.nvidia.com/aem-dam/en-zz/Solutions/design-visualization/technologies/turing-architecture/NVIDIA-Turing-Architecture-Whitepaper.pdf"
_AMPERE = "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_BLACKWELL = "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"
_P40 = "https://images.nvidia.com/content/pdf/tesla/184427-Tesla-P40-Datasheet-NV-Final-Letter-Web.pdf"
_SEEN = "; read at "
"""Where figures were looked up in November 2026: memory, bandwidth and fp32 rate, and the 16-bit rate where the page has it."""
_GEFORCE = "https://www.nvidia.com/en-us/geforce/graphics-cards"
_JEDEC = "JEDEC: channels x 8 bytes x transfers a second; rate: cores x clock x 32 (AVX2) or 64 (AVX-512) flop"


@dataclass(frozen=True)
class KnownCard:
    """One kind of Device.

    Args:
        capability: CUDA's compute capability; None for a CPU, or where nobody said.
        memory_gib: as printed on it; of a CPU, what is given unless somebody says otherwise.
        bandwidth_gb_s: of its memory, 1e9 bytes.
        tflops: dense products of 16-bit numbers with sums in fp32.
        fp32_tflops: the same in fp32.
        source: where the figures are from.
    """

    name: str
    capability: tuple[int, int] | None
    memory_gib: float
    bandwidth_gb_s: float
    tflops: float
    fp32_tflops: float
    source: str
    is_cpu: bool = False

    @property
    def usable_gib(self) -> float:
        """Memory for weights, KV and workspace, where nobody said how much is free."""
        return self.memory_gib if self.is_cpu else self.memory_gib - GPU_RESERVE_GIB

    def speed(self, dtype: str, element_bytes: float) -> Speed:
        """The roofline in one dtype.

        Args:
            element_bytes: one weight as it is kept; quantized ones are unpacked for many rows and multiplied in 16 bits.
        """
        rate = self.fp32_tflops if Bits.of(dtype).numbers == "fp32" else self.tflops
        return Speed.of(self.bandwidth_gb_s * 1e9 * BANDWIDTH_SHARE, rate * 1e12 * RATE_SHARE, START_S, element_bytes)

    @property
    def has_bf16(self) -> bool:
        return self.capability is None or self.capability >= BF16_FROM

    def why_not(self) -> str:
        """Why torch cannot use it, and with which build it can; empty where it can."""
        if self.capability is None or has_code(self.capability, ARCHS):
            return ""
        build = "the CUDA 12.6 build of torch (+cu126), which still has" if self.capability < (7, 5) else "a newer torch that has"
        return f"{TORCH} has no code for sm_{self.capability[0]}{self.capability[1]}: install {build} code for it"

    def why_not_in(self, dtype: str) -> str:
        """Why it cannot compute in a dtype; empty where it can."""
        if Bits.of(dtype).numbers != "bf16" or self.has_bf16 or self.capability is None:
            return ""
        sums = "" if dtype == "bf16" else f", in which {dtype} computes"
        return f"sm_{self.capability[0]}{self.capability[1]} has no bf16{sums}: plan with --dtype fp16"


KNOWN_CARDS = (
    KnownCard("RTX 2080 Ti", (7, 5), 11, 616, 53.8, 13.4, _TURING),
    KnownCard("RTX 3060 12GB", (8, 6), 12, 360, 25.5, 12.7, f"{_GEFORCE}/30-series/rtx-3060-3060ti/{_SEEN}https://cputronic.com/gpu/compare/nvidia-geforce-rtx-3060-vs-nvidia-geforce-rtx-4070"),
    KnownCard("RTX 3080", (8, 6), 10, 760, 59.5, 29.8, _AMPERE + _SEEN + "https://fudzilla.net/news/graphics/51457-nvidia-rtx-30-series-specifications-are-now-official"),
    KnownCard("RTX 3090", (8, 6), 24, 936, 71.2, 35.6, _AMPERE + _SEEN + "https://holynerdvana.blogspot.com/2022/10/nvidia-geforce-rtx-3090-specifications.html"),
    KnownCard("RTX 4060 Ti 16GB", (8, 9), 16, 288, 44.1, 22.1, f"{_GEFORCE}/40-series/rtx-4060-4060ti/{_SEEN}https://cputronic.com/gpu/nvidia-geforce-rtx-4060-ti-16-gb"),
    KnownCard("RTX 4070", (8, 9), 12, 504, 58.3, 29.1, f"{_GEFORCE}/40-series/rtx-4070-family/{_SEEN}https://cputronic.com/gpu/compare/nvidia-geforce-rtx-3060-vs-nvidia-geforce-rtx-4070"),
    KnownCard("RTX 4080", (8, 9), 16, 717, 97.5, 48.7, _ADA + _SEEN + "https://cputronic.com/en/gpu/nvidia-geforce-rtx-4080-16-gb"),
    KnownCard("RTX 4090", (8, 9), 24, 1008, 165.2, 82.6, _ADA + _SEEN + "https://waredb.com/processor/nvidia-geforce-rtx-4090"),
    KnownCard("RTX 5070 Ti", (12, 0), 16, 896, 87.9, 43.9, _BLACKWELL),
    KnownCard("RTX 5090", (12, 0), 32, 1792, 209.5, 104.8, _BLACKWELL + _SEEN + "https://www.libertify.com/interactive-library/nvidia-rtx-blackwell-gpu-architecture-neural-rendering/"),
    KnownCard("RTX A4000", (8, 6), 16, 448, 76.7, 19.2, "https://www.nvidia.com/en-us/design-visualization/rtx-a4000/" + _SEEN + "https://cpu-gpu.alldbin.com/graphics-card-comparison/Tesla-P6-and-RTX-A4000-comparison.html"),
    KnownCard("RTX A6000", (8, 6), 48, 768, 154.8, 38.7, _AMPERE + _SEEN + "https://sysrqmts.com/es/gpus/compare/nvidia-rtx-a6000-vs-nvidia-tesla-p40"),
    KnownCard("Tesla P40", (6, 1), 24, 346, 0.18, 11.8, _P40 + _SEEN + "https://gpuark.com/en/gpu/nvidia-tesla-p40"),
    KnownCard("laptop CPU", None, 8, 51.2, 0.5, 0.5, f"DDR4-3200, 2 channels; 4 cores of 4 GHz; {_JEDEC}", True),
    KnownCard("desktop CPU", None, 16, 51.2, 1.0, 1.0, f"DDR4-3200, 2 channels; 8 cores of 4 GHz; {_JEDEC}", True),
    KnownCard("server CPU", None, 64, 204.8, 5.1, 5.1, f"DDR4-3200, 8 channels; 32 cores of 2.5 GHz; {_JEDEC}", True),
)  # fmt: skip


def known_card(name: str) -> KnownCard | None:
    """The card that a person means: case, spaces and the maker's words do not count."""
    return next((card for card in KNOWN_CARDS if _bare(card.name) == _bare(name)), None)


def nearest_names(name: str) -> tuple[str, ...]:
    """Up to three names that look like this one; all of them where none does."""
    near = get_close_matches(_bare(name), [_bare(card.name) for card in KNOWN_CARDS], 3, 0.5)
    return _names(card for bare in near for card in KNOWN_CARDS if _bare(card.name) == bare) or _names(KNOWN_CARDS)


def _names(cards: Iterable[KnownCard]) -> tuple[str, ...]:
    return tuple(card.name for card in cards)


def _bare(name: str) -> str:
    return _NOISE.sub("", name.lower())
