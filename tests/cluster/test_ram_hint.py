"""What is said of host RAM where the GPUs do not hold the model."""

from __future__ import annotations

import re
from dataclasses import replace

from fake_worker import MODELS
from memory_swarm import NEED, Swarm, offer

from cluster.advice import GIB
from cluster.planner import Hardware, Load, needed_bytes
from cluster.ram_hint import ram_hint
from cluster.roster import RigOffer
from swarm.plan import Model

BIG = Model("big", "big", "id-big", "fp32", replace(MODELS["nano"].config, hidden=1024, ffn=8192, vocab=32000, num_blocks=16))


def with_gpu(rig: str, memory_bytes: int, ram_bytes: int) -> RigOffer:
    found = offer(rig, memory_bytes)
    return replace(found, devices=(replace(found.devices[0], device="cuda:0"),), ram_bytes=ram_bytes)


async def test_a_swarm_that_waits_says_which_rigs_ram_would_do_and_what_it_would_bring(swarm: Swarm) -> None:
    await swarm.coordinator.join(with_gpu("attic", NEED // 2, 2 * GIB))
    waiting = (await swarm.until(lambda p: "--ram" in p.waiting)).waiting
    assert re.search(
        r"needs .*, has .*: waiting for `swarm join \.\.\.`; with --ram 1GiB on attic it fits: predicted [\d.]+ tok/s$", waiting
    )


async def test_a_rig_without_a_gpu_or_without_ram_is_not_named(swarm: Swarm) -> None:
    await swarm.coordinator.join(replace(offer("a", NEED // 2), ram_bytes=64 * GIB))
    await swarm.coordinator.join(with_gpu("b", NEED // 4, 2**20))
    assert "--ram" not in (await swarm.until(lambda p: p.waiting.startswith("needs"))).waiting


def test_the_least_ram_that_fits_is_named() -> None:
    load = Load(1, 64)
    need = needed_bytes(BIG, load)
    assert need > 4 * GIB
    least = -(-need // GIB)
    hint = ram_hint(BIG, Hardware(()), load, {"desk": need - GIB, "attic": 64 * GIB})
    assert hint.startswith(f"with --ram {least}GiB on attic it fits: predicted ")
    assert ram_hint(BIG, Hardware(()), load, {"desk": need - GIB}) == ""
