"""The program of one set of owners with the number of each owner's Blocks chosen by itself, and from it the room for experts.

What a Block keeps with its owner is no whole number of experts, so `Program` alone may cut an expert wherever an owner's room ends.
Here there is a variable for every number of Blocks that an owner may have, with the whole number of experts that then find room:
the linear program comes near to the optimum, and the integer program seldom branches. See `exact_near` for both.
N: Devices   O: owners   Y: variables of `Program`   V: those that are kept   Z: numbers of Blocks of all owners
P: ways: first and last Stage, and an order
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from cluster.planner.exact_ground import Ends, Flags, Floats, Ints
from cluster.planner.exact_program import Program

FIRST, LAST, KINDS_OF_ENDS = 1, 2, 4
"""Ends of the model that a Stage has, added up; how many sums there are."""


class Limits(NamedTuple):
    """Left and right sides of what must not be exceeded, and of what must be equal."""

    upper: Floats
    right: Floats
    equal: Floats
    equals: Floats


@dataclass(frozen=True)
class Rooms:
    """Some variables of a program, the numbers of Blocks that each owner may have, and some ways.

    Args:
        kept: [V] variables of the program; all but Blocks must be among them.
        numbers: [Z, 3] an owner's place in the program, its ends of the model, and a number of Blocks.
    """

    program: Program
    ways: Sequence[Ends]
    kept: Ints
    numbers: Ints

    @classmethod
    def of(cls, program: Program, ways: Sequence[Ends], kept: Ints) -> Rooms:
        """With every number of Blocks that an owner has memory for."""
        core, every = program.ground.prices.core, range(1, program.ground.prices.num_blocks + 1)
        owners = list(enumerate(program.owners))
        numbers = {(o, _ends(way, d), n) for o, d in owners for way in ways for n in every if n * core <= way.room[d]}
        return cls(program, ways, kept, np.array(sorted(numbers), np.int64).reshape(-1, 3))

    @property
    def size(self) -> int:
        return len(self.kept) + len(self.numbers) + len(self.ways)

    @property
    def none(self) -> bool:
        """Whether nothing is left of it to choose from."""
        return not len(self.ways) or not len(self.numbers)

    @cached_property
    def blocks(self) -> Flags:
        """[V] which variables are of Blocks."""
        return np.asarray(self.kept < self.program.alone_s.size, np.bool_)

    def fewer(self, reduced: Floats, most: float, kinds: int | None = None, ways: int | None = None) -> Rooms:
        """Without Blocks, numbers and ways that add more than `most`; so many kinds of Blocks and ways, those that add least.

        Args:
            reduced: [V + Z + P] what one more of each variable adds.
        """
        v, z = len(self.kept), len(self.numbers)
        stays = reduced <= most
        stays[:v] = (stays[:v] & _least(reduced[:v], self.blocks, kinds)) | ~self.blocks
        stays[v + z :] &= _least(reduced[v + z :], np.ones(len(self.ways), np.bool_), ways)
        left = [way for way, stay in zip(self.ways, stays[v + z :], strict=True) if stay]
        ends = {(o, _ends(way, d)) for way in left for o, d in enumerate(self.program.owners)}
        numbers = [n for n, stay in zip(self.numbers, stays[v : v + z], strict=True) if stay and (int(n[0]), int(n[1])) in ends]
        return Rooms(self.program, left, self.kept[stays[:v]], np.array(numbers, np.int64).reshape(-1, 3))

    @property
    def soonest(self) -> float:
        """Seconds of the objective of the way that takes least, which `cost` leaves out."""
        return self.program.weights.alone * min(way.alone for way in self.ways)

    @cached_property
    def units(self) -> Floats:
        """[V] by which variables are divided: seconds, so that they are about 1 as all others are."""
        return np.where(self.kept == self.program.alone_s.size, 1 / self.program.row_units.min(), 1.0)

    @cached_property
    def cost(self) -> Floats:
        """[V + Z + P] of each variable, in scaled seconds."""
        alone = self.program.weights.alone * self.program.scale * np.array([way.alone for way in self.ways])
        return np.concatenate([self.program.cost[self.kept] * self.units, np.zeros(len(self.numbers)), alone - alone.min()])

    @property
    def most(self) -> Floats:
        """[V + Z + P] of each variable; of numbers and ways it follows from the rest."""
        return np.concatenate([self.program.upper[self.kept] / self.units, np.full(self.size - len(self.kept), np.inf)])

    @cached_property
    def limits(self) -> Limits:
        """Those of the program, with room for whole experts; each owner has one number of Blocks, and there is one way."""
        program, (v, z, p) = self.program, (len(self.kept), len(self.numbers), len(self.ways))
        rights, by = np.array([program.right(way) for way in self.ways]), program.row_units
        right, (taken, room, helping) = rights.max(axis=0), self._room
        upper = [
            np.hstack([program.rows[:, self.kept] * by[:, None] * self.units, np.zeros((len(by), z)), (by * (right - rights)).T]),
            np.hstack([taken, -room, np.zeros((len(taken), p))]),
        ]
        equal, equals = program.equal
        (mine, numbers), (ends, ways) = self.shares, self._ends
        rows = [
            np.hstack([equal[:, self.kept], np.zeros((len(equal), z + p))]),
            np.hstack([mine, -numbers, np.zeros((len(mine), p))]),
            np.hstack([np.zeros((len(ends), v)), ends, -ways]),
            np.hstack([np.zeros((1, v + z)), np.ones((1, p))]),
        ]
        sums = np.append(np.zeros(len(mine) + len(ends)), 1.0)
        return Limits(np.vstack(upper), np.append(by * right, helping), np.vstack(rows), np.append(equals, sums))

    @property
    def _room(self) -> tuple[Floats, Floats, Floats]:
        """[N, V] experts that Blocks put on each Device, [N, Z] experts that it has room for, [N] the same without a Stage."""
        program, prices = self.program, self.program.ground.prices
        o, k = np.divmod(np.where(self.blocks, self.kept, 0), program.alone_s.shape[1])
        owners = np.array(program.owners)
        taken = program.held.transpose(1, 0, 2)[:, o, k]
        taken[owners[o], np.arange(len(o))] += prices.num_experts - program.many.kinds.away[k]
        rooms = {(o, _ends(way, d)): int(way.room[d]) for way in self.ways for o, d in enumerate(program.owners)}
        room, helping = np.zeros((len(taken), len(self.numbers))), self.ways[0].room // prices.expert
        for at, (owner, ends, number) in enumerate(self.numbers.tolist()):
            room[owners[owner], at] = (rooms[owner, ends] - number * prices.core) // prices.expert
        helping[owners] = 0
        return taken * self.blocks, room, helping.astype(np.float64)

    @cached_property
    def shares(self) -> tuple[Floats, Floats]:
        """[O, V] Blocks of each owner that a variable counts, [O, Z] those that a number stands for."""
        owners = np.arange(len(self.program.owners))[:, None]
        mine = (self.kept // self.program.alone_s.shape[1] == owners) * self.blocks
        return mine.astype(np.float64), ((self.numbers[:, 0] == owners) * self.numbers[:, 2]).astype(np.float64)

    @property
    def _ends(self) -> tuple[Floats, Floats]:
        """[4 O, Z] of which ends of which owner each number of Blocks is, [4 O, P] what ends an owner has on each way."""
        every = np.arange(KINDS_OF_ENDS * len(self.program.owners))[:, None]
        numbers = KINDS_OF_ENDS * self.numbers[:, 0] + self.numbers[:, 1] == every
        places = np.array([[KINDS_OF_ENDS * o + _ends(way, d) for o, d in enumerate(self.program.owners)] for way in self.ways])
        return numbers.astype(np.float64), (places.T[:, None, :] == every).any(axis=0).astype(np.float64)


def _least(values: Floats, of: Flags, number: int | None) -> Flags:
    """Which are the least so many of some values; all of them without a number."""
    if number is None:
        return of
    kept = np.zeros(len(values), np.bool_)
    kept[np.argsort(np.where(of, values, np.inf), kind="stable")[:number]] = True
    return kept & of


def _ends(way: Ends, device: int) -> int:
    return FIRST * (way.first == device) + LAST * (way.last == device)
