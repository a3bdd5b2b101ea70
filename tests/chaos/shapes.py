"""The kinds of swarm that are broken, and what breaks each."""

from __future__ import annotations

from dataclasses import dataclass

from clear_questions import FEW_BITS_MARGIN, MARGIN

from cluster.target import Target

MIB = 2**20
RIGS = ("rig-a", "rig-b", "rig-c")
EVERYWHERE = (
    "worker killed", "owner killed", "worker stopped", "owner stopped", "worker asked to end", "rig leaves", "coordinator killed",
    "a thousand sessions",
)  # fmt: skip
OVER_RELAYS = ("link cut", "link late", "link narrow", "stream torn", "answers swallowed")


@dataclass(frozen=True)
class Shape:
    """A kind of swarm.

    Args:
        about: for people.
        memory_bytes: of each Rig; any two hold the model.
        kinds: the faults; one that is named twice comes twice as often.
        cables: between network namespaces; else relays on loopback.
        disk: each Rig's folder is a small file system of its own, with a cache of quantized weights in it.
        margin: of the questions, see `clear_questions`.
    """

    about: str
    target: Target
    memory_bytes: int
    kinds: tuple[str, ...]
    cables: bool = False
    disk: bool = False
    ray: bool = False
    margin: float = MARGIN


_FP32 = Target("nano", "fp32", sessions=6, context=512)
SHAPES = {
    "spread": Shape("three Rigs, nothing twice", _FP32, 64 * MIB, (*EVERYWHERE, *OVER_RELAYS)),
    "standby": Shape(
        "three Rigs, with standby copies",
        Target("nano", "fp32", sessions=6, context=512, standby=True), 150 * MIB, (*EVERYWHERE, "worker killed", *OVER_RELAYS),
    ),
    "cached": Shape(
        "three Rigs, int8, each with a disk of its own",
        Target("nano", "int8", sessions=6, context=512), 28 * MIB, 
        ("cache corrupted", "cache corrupted", "disk full", "worker killed"),
        disk=True, margin=FEW_BITS_MARGIN,
    ),
    "cables": Shape(
        "three Rigs in network namespaces", _FP32, 64 * MIB,
        ("link cut", "link narrow", "link cut", "worker killed", "owner killed"),
        cables=True,
    ),
    "ray": Shape(
        "two Rigs by the real commands, on Ray", _FP32, 100 * MIB,
        ("worker killed", "owner killed", "worker stopped", "coordinator killed", "raylet killed", "rig leaves",
         "a thousand sessions", "head killed"),
        ray=True,
    ),
}  # fmt: skip
NEEDS_ROOT = frozenset(name for name, shape in SHAPES.items() if shape.disk or shape.cables)
