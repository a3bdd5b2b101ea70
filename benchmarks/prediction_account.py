"""Where a token's time was predicted to go, beside where it went."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from benchmarks.prediction_measure import Timed, answer_s, entry_s, hop_s, mean_of
from cluster.planner.budget import Load, Prices
from cluster.planner.costs import Costs
from cluster.planner.hardware import Hardware
from cluster.planner.predict import Round, best_in_flight, going_round
from swarm.plan import Plan


def account(plan: Plan, hardware: Hardware, load: Load, timed: Timed) -> Iterator[str]:
    """Lines for people: what was measured of the hardware, one stream's parts, and each Worker with all Sessions."""
    costs = Costs(Prices.of(plan.model, load, len(plan.routes)), hardware)
    for device in hardware.devices:
        speed = device.speed
        rates = ", ".join(f"{rows}: {1e-9 / speed.seconds_a_byte(rows):.1f}" for rows in (1, 2, 4, 16, 256))
        yield f"{device.name}: GB/s at rows {rates}; {1e6 * speed.start_s:.1f} us a kernel, {1e6 * speed.software_s:.1f} us a frame"
    for (a, b), link in hardware.links.known.items():
        yield f"{a} to {b}: {1e3 * link.rtt_s:.2f} ms there and back, {link.bytes_per_s / 1e6:.0f} MB/s"
    yield from _alone(costs, round_taken(plan, hardware, load, timed), timed)
    yield from _together(plan, costs, timed)


def round_taken(plan: Plan, hardware: Hardware, load: Load, timed: Timed) -> Round:
    """The prediction for one row over the Route that the one stream took."""
    names = tuple(stage.worker for stage in timed.tokens[0].stages)
    route = next(r for r, each in enumerate(plan.routes) if tuple(s.worker for s in each.stages) == names)
    return going_round(plan, route, Costs(Prices.of(plan.model, load, len(plan.routes)), hardware), 1, False)


def _alone(costs: Costs, round_: Round, timed: Timed) -> Iterator[str]:
    names = tuple(stage.worker for stage in timed.tokens[0].stages)
    devices = {d.name: d for d in costs.hardware.devices}
    software = {name: costs.frame_s(devices[name]) for name in names}
    for place, name in enumerate(names):
        stages = [token.stages[place] for token in timed.tokens]
        waits = mean_of([s.shard_wait_s for s in stages])
        text = f", of that waiting for experts {1e3 * waits:.2f}" if waits else ""
        yield _line(f"one stream, {name} computes", round_.busy_s[name], mean_of([s.compute_s for s in stages]), text)
    for place, (a, b) in enumerate(pairwise(names)):
        said = costs.hop_s(devices[a], devices[b], 1) + (software[a] + software[b]) / 2
        yield _line(f"one stream, {a} to {b}", said, mean_of([hop_s(token)[place] for token in timed.tokens]))
    to_entry, back = (mean_of([of(token) for token in timed.tokens]) for of in (entry_s, answer_s))
    more = f", {1e3 * to_entry:.2f} of that to the entry Worker"
    said = costs.client_s(devices[names[0]], devices[names[-1]]) + (software[names[0]] + software[names[-1]]) / 2
    yield _line("one stream, client and its ways", said, to_entry + back, more)


def _together(plan: Plan, costs: Costs, timed: Timed) -> Iterator[str]:
    in_flight = plan.in_flight or best_in_flight(plan, costs)
    rows = plan.sessions / len(plan.routes) / in_flight
    yield f"all sessions: predicted {in_flight} in flight of {rows:.1f} rows each"
    for worker in plan.workers:
        route = plan.route_of(worker.name)
        before, after = timed.before[worker.name], timed.after[worker.name]
        busy = (after.busy_s - before.busy_s) / timed.together_s
        batches, tokens = after.micro_batches - before.micro_batches, after.tokens - before.tokens
        if route is None or not batches:
            yield f"all sessions, {worker.name}: busy {busy:.0%} of the time"
            continue
        said = going_round(plan, route, costs, rows, True).busy_s[worker.name]
        each = (after.busy_s - before.busy_s) / batches
        yield _line(
            f"all sessions, {worker.name} a micro-batch", said, each, f"; {tokens / batches:.1f} rows each, busy {busy:.0%}"
        )
        yield from _elsewhere(plan, worker.name, timed)


def _elsewhere(plan: Plan, name: str, timed: Timed) -> Iterator[str]:
    """Whether routers choose the experts of other Workers as often as is assumed."""
    held = {c.block: c.counts for c in timed.after[name].choices if plan.remote_experts(name, c.block)}
    total = sum(sum(counts) for counts in held.values())
    if total:
        away = sum(counts[e] for block, counts in held.items() for e in plan.remote_experts(name, block))
        assumed = sum(len(plan.remote_experts(name, b)) for b in held) / len(held) / plan.model.config.num_experts
        yield f"{name}'s routers chose experts elsewhere for {away / total:.0%} of their rows; {assumed:.0%} was assumed"


def _line(what: str, said: float, was: float, more: str = "") -> str:
    return f"{what:36} predicted {1e3 * said:7.2f} ms   was {1e3 * was:7.2f}{more}"
