"""Deciding a Plan: a proportional fit of whole Blocks, with experts split off where whole Blocks do not fit.

Where neither finds a place for all, the tightest fit there is decides: what can be placed is never refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from cluster.planner.budget import Load, Prices, budget_of, needed_bytes
from cluster.planner.counts import missing_bytes, split_blocks, whole_blocks
from cluster.planner.layout import Layout, lay_out
from cluster.planner.packing import pack
from cluster.planner.reasons import notes
from cluster.planner.seats import Seat, arrange, largest_first, seat, subsets
from swarm.errors import DoesNotFit, gib
from swarm.plan import Model, Plan, Route, WorkerSpec

Count = Callable[[Sequence[Seat], Prices], list[int] | None]


def make_plan(model: Model, devices: Sequence[WorkerSpec], load: Load, epoch: int, previous: Plan | None = None) -> Plan:
    """Decide who holds what. Pure: the same input gives the same Plan, in whichever order the Devices come.

    Args:
        devices: one WorkerSpec a Device, with `memory_bytes`; their budgets are ignored.
        epoch: of the Plan to make.
        previous: the Plan in force; its Blocks stay where they are unless a new Plan needs fewer ExpertShards.

    Raises:
        DoesNotFit: the Devices together hold too little, or no split of the model fits them.
    """
    needed, available = needed_bytes(model, load), sum(w.memory_bytes for w in devices)
    if needed > available:
        raise DoesNotFit(needed, available, _what(model, load))
    prices = Prices.of(model, load)
    before = [s.worker for s in previous.routes[0].stages] if previous else []
    fresh = _decide(devices, prices, load.spread, before)
    kept = _kept(model, devices, load, previous)
    layout = min((x for x in (kept, fresh) if x), key=_worth(load.spread), default=None)
    if layout is None:
        split = f"{_what(model, load)} takes {gib(needed)} on one device, but split over these {len(devices)}"
        why = f"{split} (each needs a workspace of its own, and no expert is cut) it"
        raise DoesNotFit(available + _missing(devices, prices), available, why)
    return _plan(model, devices, load, epoch, layout)


def _decide(devices: Sequence[WorkerSpec], prices: Prices, spread: bool, before: Sequence[str]) -> Layout | None:
    """The fewest Devices (or all, to spread) without ExpertShards; else the fewest with, in the fewest Blocks."""
    sizes = [len(devices)] if spread else range(1, len(devices) + 1)
    least = prices.budget(range(prices.num_blocks), 0, 0).total_bytes
    for count, block in ((whole_blocks, prices.whole), (_split, prices.core)):
        for size in sizes:
            for chosen in subsets(devices, size):
                if sum(w.memory_bytes for w in chosen) < least:
                    continue
                if layout := _best(_seatings(chosen, prices, block, before), count, prices, spread):
                    return layout
    return _tightest(devices, prices, spread)


def _tightest(devices: Sequence[WorkerSpec], prices: Prices, spread: bool) -> Layout | None:
    """The packing that has room for most; with the usual counts on its seats, where they do and need fewer ExpertShards."""
    packing = pack(devices, prices)
    if packing is None or packing.missing_bytes:
        return None
    usual = _best([packing.seats], _split, prices, spread)
    layouts = [lay_out(packing.seats, packing.counts, prices, spread)] + ([usual] if usual else [])
    return min(layouts, key=_worth(spread))


def _best(seatings: Iterable[list[Seat]], count: Count, prices: Prices, spread: bool) -> Layout | None:
    """Of the seatings that hold the model, the one that uses most Devices where that is asked, in the fewest split Blocks."""
    fits = [(seats, counts) for seats in seatings if (counts := count(seats, prices))]
    return min((lay_out(seats, counts, prices, spread) for seats, counts in fits), key=_worth(spread), default=None)


def _worth(spread: bool) -> Callable[[Layout], tuple[int, int]]:
    return lambda layout: (-len(layout.used) if spread else 0, layout.split)


def _split(seats: Sequence[Seat], prices: Prices) -> list[int] | None:
    counts = split_blocks(seats, prices)
    return None if missing_bytes(seats, counts, prices) else counts


def _seatings(chosen: Sequence[WorkerSpec], prices: Prices, block: int, before: Sequence[str]) -> Iterator[list[Seat]]:
    """Stages for the Devices that hold `block` bytes beside what an end, or a place in between, costs; the others help."""
    for ends in (True, False):
        floor = prices.fixed(ends, ends) + block
        able = [w for w in largest_first(chosen) if w.memory_bytes >= floor][: prices.num_blocks]
        if able:
            yield seat(arrange(able, before), [w for w in largest_first(chosen) if w not in able], prices)


def _kept(model: Model, devices: Sequence[WorkerSpec], load: Load, previous: Plan | None) -> Layout | None:
    """The layout of the Plan in force, where its Devices are all there and hold it under the new load."""
    if previous is None or (previous.model.model_id, previous.model.dtype) != (model.model_id, model.dtype):
        return None
    layout = Layout(previous.routes[0].stages, previous.shards)
    if not layout.used <= {w.name for w in devices} or len(previous.routes) != 1:
        return None
    plan = _plan(model, devices, load, previous.epoch, layout)
    return layout if all(w.planned_bytes <= w.memory_bytes for w in plan.workers) else None


def _plan(model: Model, devices: Sequence[WorkerSpec], load: Load, epoch: int, layout: Layout) -> Plan:
    prices = Prices.of(model, load)
    order = [s.worker for s in layout.stages]
    used = sorted((w for w in devices if w.name in layout.used), key=lambda w: (_place(order, w.name), w.name))
    plan = Plan(
        epoch=epoch,
        model=model,
        workers=tuple(used),
        routes=(Route(layout.stages),),
        shards=layout.shards,
        sessions=load.sessions,
        context=prices.context,
    )
    budgets = {w.name: budget_of(plan, w.name) for w in used}
    workers = tuple(
        replace(w, weights_bytes=b.weights_bytes, kv_bytes=b.kv_bytes, workspace_bytes=b.workspace_bytes)
        for w in used
        for b in (budgets[w.name],)
    )
    return replace(plan, workers=workers, notes=tuple(notes(plan, devices, load)))


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _missing(devices: Sequence[WorkerSpec], prices: Prices) -> int:
    """Bytes that would be enough on the right Device, though all Devices together have what one would need."""
    packing = pack(devices, prices)
    alone = prices.budget(range(prices.num_blocks), 0, 0).total_bytes - max(w.memory_bytes for w in devices)
    return min(alone, packing.missing_bytes) if packing else alone


def _what(model: Model, load: Load) -> str:
    return f"{model.name} in {model.dtype} for {load.sessions} sessions of {Prices.of(model, load).context} positions"
