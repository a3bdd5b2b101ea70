"""Deciding a Plan: the optimum for a home's swarm, a good one with a stated bound for a large one, beside the Plan in force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cluster.planner.budget import Load, Prices, needed_bytes
from cluster.planner.choice import Choice
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware
from cluster.planner.in_force import choice_in_force
from cluster.planner.large import better, search
from cluster.planner.lay_out import finished, lay_out
from cluster.planner.moving import settle
from cluster.planner.optimum import able, in_reach, optimum
from cluster.planner.predict import best_in_flight
from cluster.planner.reasons import notes
from cluster.planner.tightest import tightest
from swarm.errors import DoesNotFit, gib
from swarm.plan import Model, Plan


def make_plan(model: Model, hardware: Hardware, load: Load, epoch: int, previous: Plan | None = None) -> Plan:
    """Decide who holds what. Pure: the same input gives the same Plan, in whichever order the Devices come.

    Args:
        hardware: the budgets of its WorkerSpecs are ignored, but for `memory_bytes`.
        epoch: of the Plan to make.
        previous: the Plan in force; what it has stays where it is unless the gain pays for the move.

    Raises:
        DoesNotFit: the Devices together hold too little, or no split of the model fits them.
    """
    hardware = replace(hardware, devices=tuple(sorted(hardware.devices, key=lambda d: d.name)))
    choice = decide(model, hardware, load, choice_in_force(previous, model, load))
    if choice is None:
        raise _refusal(model, hardware, load)
    fresh = _laid_out(choice, model, hardware, load, epoch, previous)
    settled = settle(previous, fresh, model, hardware, load, epoch)
    return replace(settled, notes=(*notes(settled, fresh, hardware, load), *settled.notes))


def decide(model: Model, hardware: Hardware, load: Load, previous: Choice | None = None) -> Choice | None:
    """The best Choice there is, or the best that is found in reasonable time; None where nothing fits.

    Args:
        previous: what is in force: what is returned is no worse, where it still can be laid out.
    """
    if not _may_fit(model, hardware, load):
        return None
    choice = _searched(model, hardware, load, previous)
    if choice is None and not load.standby:
        for other in _tight(model, hardware, load):
            choice = better(choice, other, model, hardware, load)
    return choice


def _may_fit(model: Model, hardware: Hardware, load: Load) -> bool:
    """Whether there are as many bytes as it takes, and another Rig for copies: a search for them would be long."""
    prices = Prices.of(model, load)
    copies = prices.num_blocks * prices.whole if load.standby else 0
    several = not load.standby or len({d.rig for d in hardware.devices}) > 1
    return several and sum(d.spec.memory_bytes for d in hardware.devices) >= needed_bytes(model, load) + copies


def _searched(model: Model, hardware: Hardware, load: Load, previous: Choice | None = None) -> Choice | None:
    if in_reach(model, hardware, load):
        choice = optimum(model, hardware, load)
        if previous and (choice is None or choice.at_least < choice.seconds):
            choice = better(choice, previous, model, hardware, load)
        return choice
    found = search(model, hardware, load, previous)
    return replace(found[0], at_least=found[1]) if found else None


def _tight(model: Model, hardware: Hardware, load: Load) -> Iterator[Choice]:
    """Where the search finds nothing: the tightest packing, and with a dense Block 0 what is best were there more on one Device."""
    prices = Prices.of(model, load)
    packing = tightest([d.spec for d in able(hardware, prices)], prices)
    if packing is None or packing.missing_bytes:
        return
    yield packing.choice(prices)
    for at, device in enumerate(hardware.devices if prices.lacking else ()):
        more = replace(device, spec=replace(device.spec, memory_bytes=device.spec.memory_bytes + prices.lacking))
        found = _searched(model, replace(hardware, devices=(*hardware.devices[:at], more, *hardware.devices[at + 1 :])), load)
        if found:
            yield found


def _laid_out(choice: Choice, model: Model, hardware: Hardware, load: Load, epoch: int, previous: Plan | None) -> Plan:
    """With as many micro-batches under way as are best, whatever it was decided for."""
    plan = lay_out(choice, model, hardware, load, epoch, previous)
    costs = Costs(Prices.of(model, load, len(plan.routes)), hardware)
    best = best_in_flight(replace(plan, in_flight=0), costs)
    return plan if best == plan.in_flight else finished(replace(plan, in_flight=best), hardware, load)


def missing_bytes(model: Model, hardware: Hardware, load: Load) -> int:
    """Memory that the Devices lack: with that much more on the right one of them the model fits; 0 where it does."""
    needed, available = needed_bytes(model, load), sum(d.spec.memory_bytes for d in hardware.devices)
    if needed > available:
        return needed - available
    prices = Prices.of(model, load)
    specs = [d.spec for d in hardware.devices]
    packing = tightest(specs, prices)
    alone = max(0, needed - max(w.memory_bytes for w in specs))
    return min(alone, packing.missing_bytes) if packing else alone


def _refusal(model: Model, hardware: Hardware, load: Load) -> DoesNotFit:
    missing = missing_bytes(model, hardware, load)
    needed, specs = needed_bytes(model, load), [d.spec for d in hardware.devices]
    available, what = sum(w.memory_bytes for w in specs), _what(model, load)
    if needed > available:
        return DoesNotFit(needed, available, what)
    if missing:
        split = f"{what} takes {gib(needed)} on one device, but split over these {len(specs)}"
        return DoesNotFit(available + missing, available, f"{split} (each needs a workspace of its own, and no expert is cut) it")
    prices = Prices.of(model, load)
    copies = prices.num_blocks * prices.whole + prices.fixed(False, False)
    why = f"{what} with a copy of every block on another rig than those that serve it"
    if len({w.rig for w in specs}) == 1:
        return DoesNotFit(available + copies, available, f"{why}, where there is one rig only,")
    return DoesNotFit(max(needed + copies, available + prices.whole), available, why)


def _what(model: Model, load: Load) -> str:
    return f"{model.name} in {model.kept_as} for {load.sessions} sessions of {Prices.of(model, load).context} positions"
