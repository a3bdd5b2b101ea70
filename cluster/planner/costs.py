"""What each thing costs in seconds: the one place that prices it, whether a Plan is searched for or predicted.

All of it is per micro-batch of `rows` rows; in decode each row is another Session. Routing is taken as uniform: each of the
E experts of a Block is one of a row's K with the same chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

from cluster.planner.budget import Prices
from cluster.planner.hardware import Hardware, Measured

KERNELS_CORE = 30
"""Kernels started for a Block without its experts."""
KERNELS_EXPERT = 8
"""Kernels started for each expert that a micro-batch touches."""
KERNELS_HEAD = 20
"""Kernels started for embedding or head."""
COLD = 2.0
"""How much longer a kernel takes to start between products that empty the caches than in a Block of next to no weights, which is
what is measured: 0.5 to 0.6 ms more a Block in all swarms of `benchmarks.prediction`, on the machine of docs/performance.md."""
FRAME_WORK = 44
"""What a Worker's own software takes for a micro-batch in and on, beside gRPC's, in `software_s`."""
SHARD_WORK = 40
"""The same for one request to an ExpertShard and its answer, on each of the two Workers."""
CLIENT_WORK = 15
"""The same for a client's token, on a machine like the entry Worker's."""
WAIT_SHARE = 0.5
"""A Worker that is busy with its own Stage takes shard work between Blocks: half a Block's time, on average."""


@dataclass(frozen=True)
class Away:
    """So many experts of a Block on another Device than its owner's."""

    device: Measured
    experts: int
    busy: bool = False
    """It has a Stage of its own, which it is busy with."""


@dataclass(frozen=True)
class BlockTime:
    """What one Block takes of its owner, and of each of those that hold experts of it, in their order; seconds."""

    owner_s: float
    away_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Costs:
    """Prices in seconds for one model under one load on some hardware."""

    prices: Prices
    hardware: Hardware

    def touched(self, rows: float) -> float:
        """Distinct experts of a Block that so many rows choose, on average."""
        e, k = self.prices.num_experts, self.prices.sizes.config.top_k
        missed: float = (1 - k / e) ** max(rows, 1.0)
        return e * (1 - missed)

    def core_s(self, device: Measured, rows: float) -> float:
        """A Block without its experts: its weights once, and the KV of the whole planned context for each row."""
        speed, sizes = device.speed, self.prices.sizes
        kv = rows * sizes.kv(self.prices.context)
        return sizes.block_core * speed.seconds_a_byte(rows) + kv * speed.seconds_a_byte(1) + KERNELS_CORE * _start_s(device, rows)

    def prompt_core_s(self, device: Measured, rows: float) -> float:
        """A Block without its experts for a chunk of one Session's prompt."""
        speed = device.speed
        return self.prices.sizes.block_core * speed.seconds_a_byte(rows) + KERNELS_CORE * _start_s(device, rows)

    def expert_s(self, device: Measured, rows: float) -> float:
        """One touched expert, with its share of the rows."""
        each = max(1.0, rows * self.prices.sizes.config.top_k / self.touched(rows))
        speed = device.speed
        return self.prices.expert * speed.seconds_a_byte(each) + KERNELS_EXPERT * _start_s(device, rows)

    def ends_s(self, device: Measured, first: bool, last: bool, rows: float) -> float:
        """Embedding and head, where a Stage has them."""
        speed = device.speed
        head = self.prices.sizes.head * speed.seconds_a_byte(rows) if last else 0.0
        return head + (first + last) * KERNELS_HEAD * _start_s(device, rows)

    def frame_s(self, device: Measured) -> float:
        """A Worker's software for one micro-batch, beside computing it."""
        return FRAME_WORK * device.speed.software_s * device.speed.slowed

    def hop_s(self, a: Measured, b: Measured, rows: float) -> float:
        """Hidden states of a micro-batch from one Worker to the next."""
        return self.hardware.links.between(a.rig, b.rig).one_way_s(rows * self.hidden_bytes)

    def hop_busy_s(self, a: Measured, b: Measured, rows: float) -> float:
        """How long a Hop keeps its link from taking the next one."""
        return rows * self.hidden_bytes / self.hardware.links.between(a.rig, b.rig).bytes_per_s

    def client_s(self, first: Measured, last: Measured) -> float:
        """From the last Worker to the client, its token, and to the entry Worker."""
        links, at = self.hardware.links, self.hardware.client
        ways = [links.between(at, d.rig) if at else links.default for d in (first, last)]
        return sum(way.client_s for way in ways) + CLIENT_WORK * first.speed.software_s

    @property
    def hidden_bytes(self) -> int:
        """One row of hidden states."""
        return self.prices.sizes.config.hidden * self.prices.sizes.hidden_element

    def block_s(self, owner: Measured, away: Sequence[Away], rows: float, prompt: bool = False) -> BlockTime:
        """A Block whose owner holds all its experts but those that are `away`.

        One row: the exact mean over which experts it chooses. More: local and remote work as on average, the longest of them.
        """
        core = self.prompt_core_s(owner, rows) if prompt else self.core_s(owner, rows)
        local, total = self.prices.num_experts - sum(a.experts for a in away), self.prices.num_experts
        each, asked = self.expert_s(owner, rows), self.touched(rows)
        if not away:
            return BlockTime(core + asked * each)
        work = tuple(asked * a.experts / total * self.expert_s(a.device, rows) for a in away)
        if rows <= 1:
            return BlockTime(core + self._one_row_s(owner, away, local), work)
        here, top_k = asked * local / total * each, self.prices.sizes.config.top_k
        longest = max(
            self.asked_s(owner, a, rows, rows * top_k * a.experts / total, work_s) for a, work_s in zip(away, work, strict=True)
        )
        return BlockTime(core + max(here, longest), work)

    def _one_row_s(self, owner: Measured, away: Sequence[Away], local: int) -> float:
        each = self.expert_s(owner, 1)
        there = [self.expert_s(a.device, 1) for a in away]
        mean = 0.0
        for counts, chance in choices((local, *(a.experts for a in away)), self.prices.sizes.config.top_k):
            remote = (self.asked_s(owner, a, 1, n, n * each_s) for a, n, each_s in zip(away, counts[1:], there, strict=True) if n)
            mean += chance * max(counts[0] * each, *remote, 0.0)
        return mean

    def asked_s(self, owner: Measured, a: Away, rows: float, answers: float, work_s: float) -> float:
        """From asking one ExpertShard until its answer is there.

        Args:
            a: whom; how many experts it holds does not matter.
            answers: (row, expert) pairs that are asked for, which take its Device `work_s` to compute.
        """
        link = self.hardware.links.between(owner.rig, a.device.rig)
        software = SHARD_WORK * (owner.speed.software_s + a.device.speed.software_s)
        wait = WAIT_SHARE * (self.core_s(a.device, rows) + self.touched(rows) * self.expert_s(a.device, rows)) if a.busy else 0.0
        return link.rtt_s + (rows + answers) * self.hidden_bytes / link.bytes_per_s + software + wait + work_s


def _start_s(device: Measured, rows: float) -> float:
    """One kernel, where it stands between products."""
    return COLD * device.speed.starting_s(rows)


@lru_cache(maxsize=4096)
def _all_choices(groups: tuple[int, ...], chosen: int) -> tuple[tuple[tuple[int, ...], float], ...]:
    total = comb(sum(groups), chosen)

    def counts(rest: tuple[int, ...], left: int) -> Iterator[tuple[tuple[int, ...], int]]:
        if len(rest) == 1:
            if left <= rest[0]:
                yield (left,), comb(rest[0], left)
            return
        for n in range(min(rest[0], left) + 1):
            for others, ways in counts(rest[1:], left - n):
                yield (n, *others), comb(rest[0], n) * ways

    return tuple((numbers, ways / total) for numbers, ways in counts(groups, chosen))


def choices(groups: tuple[int, ...], chosen: int) -> tuple[tuple[tuple[int, ...], float], ...]:
    """How many of a row's experts fall into each group, with the chance of it (multivariate hypergeometric)."""
    return _all_choices(groups, chosen)
