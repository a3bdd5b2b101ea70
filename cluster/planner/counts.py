"""How many Blocks each seat gets."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.planner.budget import Prices
from cluster.planner.seats import Seat


def whole_blocks(seats: Sequence[Seat], prices: Prices) -> list[int] | None:
    """Whole Blocks in proportion to room (largest remainder), at least one a seat with a Stage; None if they do not fit."""
    most = [seat.stage_room // prices.whole for seat in seats]
    least = [int(seat.end or seat.stage_room > 0) for seat in seats]
    if sum(most) < prices.num_blocks or sum(least) > prices.num_blocks or any(m < n for m, n in zip(most, least, strict=True)):
        return None
    rooms = sum(seat.stage_room for seat in seats)
    quotas = [prices.num_blocks * seat.stage_room / rooms for seat in seats]
    counts = [min(max(int(q), low), high) for q, low, high in zip(quotas, least, most, strict=True)]
    while (short := prices.num_blocks - sum(counts)) != 0:
        step = 1 if short > 0 else -1
        open_ = [i for i, n in enumerate(counts) if least[i] <= n + step <= most[i]]
        best = max(open_, key=lambda i: (step * (quotas[i] - counts[i]), -i))
        counts[best] += step
    return counts


def split_blocks(seats: Sequence[Seat], prices: Prices) -> list[int]:
    """Blocks by their cores: as many whole ones as fit, then those that leave the fewest Blocks with experts elsewhere.

    The sum falls short of the model's Blocks where their cores do not fit; it is 0 where an end cannot hold one.
    """
    counts = [int(seat.end) for seat in seats]
    if any(seat.end and seat.stage_room < prices.core for seat in seats):
        return [0] * len(seats)
    while sum(counts) < prices.num_blocks:
        open_ = [i for i, seat in enumerate(seats) if (counts[i] + 1) * prices.core <= seat.stage_room]
        if not open_:
            break
        best = min(open_, key=lambda i: (*_added(seats[i], counts[i], prices), counts[i] - seats[i].stage_room / prices.whole, i))
        counts[best] += 1
    return counts


def experts_held(seat: Seat, count: int, prices: Prices) -> int:
    """Experts that a seat with that many Blocks has room for."""
    room = seat.stage_room - count * prices.core if count else seat.helper_room
    return max(0, room // prices.expert)


def exported(seat: Seat, count: int, prices: Prices) -> int:
    """Experts of its own Blocks that a seat has no room for."""
    return max(0, count * prices.num_experts - experts_held(seat, count, prices)) if count else 0


def missing_bytes(seats: Sequence[Seat], counts: Sequence[int], prices: Prices) -> int:
    """Bytes of cores and experts that find no place; 0 where all do."""
    held = sum(experts_held(seat, n, prices) for seat, n in zip(seats, counts, strict=True))
    experts = max(0, prices.num_blocks * prices.num_experts - held)
    return (prices.num_blocks - sum(counts)) * prices.core + experts * prices.expert


def _added(seat: Seat, count: int, prices: Prices) -> tuple[int, int]:
    """Blocks with experts elsewhere, and experts elsewhere, that one more Block brings."""
    before, after = exported(seat, count, prices), exported(seat, count + 1, prices)
    return -(-after // prices.num_experts) - -(-before // prices.num_experts), after - before
