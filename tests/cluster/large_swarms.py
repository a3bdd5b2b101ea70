"""Random swarms of home cards, of any size: a few Devices a Rig, unequal links between the Rigs."""

from __future__ import annotations

from random import Random

from cluster.planner.hardware import Hardware, Link, Links, Measured, Speed
from swarm.config import ModelConfig
from swarm.plan import Model, WorkerSpec

GIB = 2**30
CARDS = ((24, 936, 71), (12, 360, 51), (10, 760, 60), (24, 1008, 165), (16, 288, 44), (32, 1792, 200), (24, 346, 12), (32, 45, 1))
"""GiB, GB/s and TFLOP/s of cards that people have, and of one desktop CPU."""


def mixtral(blocks: int = 32, hidden: int = 4096, ffn: int = 14336) -> Model:
    """Mixtral 8x7B, or one of another shape."""
    config = ModelConfig(
        "MixtralForCausalLM", hidden, ffn, blocks, 32, 8, 128, 8, 2, 32000, 32768, 1e-5, 1e6, False, "bf16", 1, (2,)
    )
    return Model("mixtral", "mixtral", "1" * 16, "bf16", config)


def card(name: str, rig: str, gib: float, gb_s: float = 900.0, fetch_bytes_per_s: float = 250e6) -> Measured:
    """A Device of that much memory and bandwidth."""
    spec = WorkerSpec(name, rig, "cuda:0", "127.0.0.1:7700", int(gib * GIB))
    return Measured(spec, Speed.of(gb_s * 1e9, 60e12, 8e-6, 2), fetch_bytes_per_s)


def cards(random: Random, count: int) -> Hardware:
    """So many Devices on Rigs of one to four."""
    devices: list[Measured] = []
    rig = 0
    while len(devices) < count:
        for _ in range(min(random.randint(1, 4), count - len(devices))):
            gib, gb_s, tflops = random.choice(CARDS)
            spec = WorkerSpec(
                f"w{len(devices):02d}", f"r{rig:02d}", "cuda:0", "127.0.0.1:7700", int(gib * GIB * random.uniform(0.8, 1))
            )
            devices.append(Measured(spec, Speed.of(gb_s * 1e9 * random.uniform(0.6, 0.9), tflops * 6e11, 1e-5, 2)))
        rig += 1
    pairs = [(f"r{a:02d}", f"r{b:02d}") for a in range(rig) for b in range(a + 1, rig)]
    known = {pair: Link(random.uniform(3e-4, 2e-3), random.choice((58e6, 117e6, 290e6, 1.1e9))) for pair in pairs}
    return Hardware(tuple(devices), Links(known), random.choice(("", "r00")))
