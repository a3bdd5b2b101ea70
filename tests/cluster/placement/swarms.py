"""Random swarms: a model, Devices on Rigs with links between them, and a load, all drawn from one `Random`.

Hypothesis hands in a `Random` of its own, so that what fails is made smaller; seeded loops hand in a plain one.
Memories lie at, just under and just above what a few Blocks and experts take, where plans change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, pairwise
from random import Random

from cluster.planner import Load, Prices
from cluster.planner.hardware import Hardware, Link, Links, Measured, Speed
from swarm.config import ModelConfig
from swarm.plan import Model, WorkerSpec

OBJECTIVES = ("latency", "throughput", "balanced")
LINKS = (Link(20e-6, 5e9, calls_rtt_s=0.5e-3), Link(0.1e-3, 1.2e9), Link(0.4e-3, 1e9), Link(0.6e-3, 117e6), Link(3e-3, 20e6))
"""Cards of one Rig side by side, 10 GbE, a Rig's loopback, gigabit Ethernet, Wi-Fi."""
SPEEDS = (
    (40e9, 0.5e12, 30e-6), (200e9, 2e12, 15e-6), (350e9, 12e12, 10e-6), (450e9, 40e12, 8e-6), (900e9, 70e12, 6e-6),
    (1700e9, 200e12, 5e-6), (900e9, 5e12, 90e-6),
)  # fmt: skip
"""Bytes/s, FLOP/s, seconds to start a kernel: from a laptop's RAM to the newest card, and one with a slow host."""


@dataclass(frozen=True)
class Size:
    """The largest swarm to draw."""

    devices: int
    blocks: int
    experts: int
    sessions: int


@dataclass(frozen=True)
class Swarm:
    """What `make_plan` is asked."""

    model: Model
    hardware: Hardware
    load: Load

    def with_devices(self, devices: Sequence[Measured]) -> Swarm:
        return replace(self, hardware=replace(self.hardware, devices=tuple(devices)))


def swarm(random: Random, size: Size) -> Swarm:
    """A swarm of 2 Devices up to `size`, and one in eight of a single Device."""
    model = shape(random.randint(1, size.blocks), random.choice([e for e in (1, 2, 3, 4, 8) if e <= size.experts]), random)
    load = Load(
        sessions=random.randint(1, size.sessions),
        context=random.choice((512, 8192, 32768)),
        objective=random.choice(OBJECTIVES),
        standby=random.random() < 0.2,
    )
    count = 1 if random.random() < 0.125 else random.randint(2, size.devices)
    rigs = [random.choice("abcdefgh"[: max(1, count)]) for _ in range(count)]
    memories = random.choice((_just_enough, _just_enough, _by_chance))(random, model, load, count)
    twins = random.choice((0.0, 0.0, 0.5))
    devices: list[Measured] = []
    for index, rig in enumerate(rigs):
        if devices and random.random() < twins:
            twin = random.choice(devices)
            devices.append(device(index, random.choice((rig, twin.rig)), twin.spec.memory_bytes, twin.speed))
        else:
            devices.append(device(index, rig, memories[index], _speed(random)))
    return Swarm(model, Hardware(tuple(devices), _links(random, rigs), random.choice(["", *rigs])), load)


def shape(blocks: int, experts: int, random: Random | None = None) -> Model:
    """A model of that many Blocks and experts: Mixtral's widths, or narrower ones and another top-k where `random` says so."""
    hidden, ffn, vocab, top_k = 4096, 14336, 32000, min(2, experts)
    if random:
        hidden, ffn = random.choice(((4096, 14336), (4096, 2048), (1024, 3584)))
        vocab, top_k = random.choice((512, 32000)), random.randint(1, min(2, experts))
    config = ModelConfig(
        "MixtralForCausalLM", hidden, ffn, blocks, 32, 8, 128, experts, top_k, vocab, 32768, 1e-5, 1e6, False, "bf16", 1, (2,)
    )
    return Model("random", "random", "0" * 16, "bf16", config)


def device(index: int, rig: str, memory: int, speed: Speed) -> Measured:
    """The Device w0, w1, .. of a Rig."""
    return Measured(WorkerSpec(f"w{index}", rig, f"cuda:{index}", f"127.0.0.1:{7700 + index}", memory), speed)


def _just_enough(random: Random, model: Model, load: Load, count: int) -> list[int]:
    """What a random Plan takes, on some Devices a byte, an expert or a few Blocks more or less."""
    prices = Prices.of(model, load, random.choice((1, 1, 1, 2)))
    cuts = sorted(random.randint(0, prices.num_blocks) for _ in range(count - 1))
    stages = [range(a, b) for a, b in pairwise((0, *cuts, prices.num_blocks))]
    random.shuffle(stages)
    away = [random.choice((0, 0, random.randint(0, len(s) * prices.num_experts))) for s in stages]
    homeless, held = sum(away), [0] * count
    for _ in range(homeless):
        held[random.randrange(count)] += 1
    memories = [prices.budget(s, out, in_).total_bytes for s, out, in_ in zip(stages, away, held, strict=True)]
    extras = (0, 0, 0, -1, 1, -prices.expert, prices.expert, 2 * prices.whole, prices.num_blocks * prices.whole)
    return [max(0, memory + random.choice(extras)) for memory in memories]


def _by_chance(random: Random, model: Model, load: Load, count: int) -> list[int]:
    """From next to nothing to more than all."""
    prices = Prices.of(model, load)
    most = prices.budget(range(prices.num_blocks), 0, 0).total_bytes
    return [int(most * random.choice((0.2, 0.4, 0.6, 1.1)) * random.uniform(0.6, 1.1)) for _ in range(count)]


def _speed(random: Random) -> Speed:
    bandwidth, flops, start_s = random.choice(SPEEDS)
    speed = Speed.of(bandwidth * random.uniform(0.8, 1.2), flops, start_s, 2)
    if int(speed.bandwidth) % 3 == 0:
        speed = replace(speed, several_start_s=10 * start_s)
    return replace(speed, slowed=3.0) if random.random() < 0.1 else speed


def _links(random: Random, rigs: Sequence[str]) -> Links:
    pairs = [pair for pair in combinations_with_replacement(sorted(set(rigs)), 2) if random.random() < 0.7]
    known = {(a, b): random.choice(LINKS[:3] if a == b else LINKS) for a, b in pairs}
    return Links(known, random.choice(LINKS), random.choice(LINKS[:3]))
