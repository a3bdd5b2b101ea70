"""How the peers split a model, as Plans of ours, so that one cost model prices all of them.

Each is given the benefit of the doubt: it counts memory as we do, moves what does not fit to whoever has room where its kind
does so, uses CPUs only where the cards do not hold the model, and keeps as many micro-batches under way as is best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from cluster.planner import Load, Prices, budget_of
from cluster.planner.hardware import Hardware, Measured
from swarm.plan import Model, Plan, Route, Stage

Shares = Callable[[Measured, Prices], float]
Policy = Callable[[Model, Hardware, Load], Plan | None]


def by_memory(model: Model, hardware: Hardware, load: Load) -> Plan | None:
    """Blocks in proportion to free memory, whatever the speed (exo, llama.cpp)."""
    return _first(_split(model, devices, load, _memory, True) for devices in _cards_then_all(hardware))


def by_flops(model: Model, hardware: Hardware, load: Load) -> Plan | None:
    """Blocks in proportion to FLOPS, as far as memory goes (Petals, Parallax)."""
    return _first(_split(model, devices, load, _flops, True) for devices in _cards_then_all(hardware))


def fewest_nodes(model: Model, hardware: Hardware, load: Load) -> Plan | None:
    """The first set of the fewest Devices that holds it, in proportion to memory there (exo's placement)."""
    prices = Prices.of(model, load)
    for devices in _cards_then_all(hardware):
        for size in range(1, len(devices) + 1):
            sets = (chosen for chosen in combinations(devices, size) if sum(_rooms(chosen, prices)) >= prices.num_blocks)
            if found := _first(_split(model, chosen, load, _memory, True) for chosen in sets):
                return found
    return None


def even(model: Model, hardware: Hardware, load: Load) -> Plan | None:
    """As many Blocks on each as on any other (vLLM on Ray)."""
    return _first(_split(model, devices, load, lambda device, prices: 1.0, False) for devices in _cards_then_all(hardware))


POLICIES: dict[str, Policy] = {
    "proportional to memory": by_memory,
    "proportional to FLOPS": by_flops,
    "fewest nodes": fewest_nodes,
    "even split": even,
}


def _memory(device: Measured, prices: Prices) -> float:
    return max(0, device.spec.memory_bytes - prices.fixed(False, False))


def _flops(device: Measured, prices: Prices) -> float:
    return device.speed.flops(prices.sizes.element)


def _first(plans: Iterator[Plan | None]) -> Plan | None:
    return next((plan for plan in plans if plan), None)


def _cards_then_all(hardware: Hardware) -> Iterator[Sequence[Measured]]:
    cards = [d for d in hardware.devices if not d.spec.device.startswith("cpu")]
    yield from (devices for devices in (cards, hardware.devices) if devices)


def _rooms(devices: Sequence[Measured], prices: Prices) -> list[int]:
    """Whole Blocks that each has room for, with the ends where they fall in this order."""
    last = len(devices) - 1
    return [max(0, d.spec.memory_bytes - prices.fixed(i == 0, i == last)) // prices.whole for i, d in enumerate(devices)]


def _split(model: Model, devices: Sequence[Measured], load: Load, share: Shares, moves: bool) -> Plan | None:
    """Blocks by shares, largest remainder; None where they do not fit.

    Args:
        moves: Blocks beyond what a Device holds go to others, by the same shares.
    """
    prices = Prices.of(model, load)
    devices = [d for d in devices if d.spec.memory_bytes >= prices.fixed(True, True) + prices.whole] if moves else list(devices)
    devices = devices[: prices.num_blocks]
    if not devices:
        return None
    most = _rooms(devices, prices) if moves else [prices.num_blocks] * len(devices)
    if sum(most) < prices.num_blocks:
        return None
    shares = [share(d, prices) for d in devices]
    counts = [0] * len(devices)
    for _ in range(prices.num_blocks):
        open_ = [i for i in range(len(devices)) if counts[i] < most[i]]
        i = min(open_, key=lambda i: ((counts[i] + 0.5) / max(shares[i], 1e-9), i))
        counts[i] += 1
    return _plan(model, [d for d, n in zip(devices, counts, strict=True) if n], [n for n in counts if n], load)


def _plan(model: Model, devices: Sequence[Measured], counts: Sequence[int], load: Load) -> Plan | None:
    stages, at = [], 0
    for device, count in zip(devices, counts, strict=True):
        stages.append(Stage(device.name, at, at + count))
        at += count
    workers = tuple(d.spec for d in devices)
    context = Prices.of(model, load).context
    plan = Plan(1, model, workers, (Route(tuple(stages)),), sessions=load.sessions, context=context, objective=load.objective)
    budgets = [budget_of(plan, w.name) for w in workers]
    if any(b.total_bytes > w.memory_bytes for w, b in zip(workers, budgets, strict=True)):
        return None
    filled = tuple(
        replace(w, weights_bytes=b.weights_bytes, kv_bytes=b.kv_bytes, workspace_bytes=b.workspace_bytes)
        for w, b in zip(workers, budgets, strict=True)
    )
    return replace(plan, workers=filled)
