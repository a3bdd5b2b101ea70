"""What a checkpoint has of its own: a dtype, that of its floats or codes, and which matrices have codes. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod

from swarm.bits import Bits, Form
from swarm.config import OwnCodes
from swarm.weights import names
from swarm.weights.checkpoint import Checkpoint

WIDTH = 1 << 12
"""Inputs of a matrix by which forms are compared."""
ROLES = {
    **dict.fromkeys(("q", "k", "v", "o"), "attention"),
    **dict.fromkeys(("w1", "w3", "w13", "s1", "s3"), "experts"),
    **dict.fromkeys(("w2", "s2"), "down"),
}
"""By the letters of `swarm.weights.names`."""


def own_dtype(checkpoint: Checkpoint) -> str:
    """The widest form that the matrices of each role have in their files, as the text of a Plan's dtype."""
    numbers = Form(checkpoint.config.dtype)
    widest: dict[str, Form] = {}
    for role, name in _matrices(checkpoint):
        form = checkpoint.entries[name].auto_form or numbers
        if role not in widest or form.matrix_bytes(1, WIDTH) > widest[role].matrix_bytes(1, WIDTH):
            widest[role] = form
    return str(Bits(**widest))


def own_codes(checkpoint: Checkpoint) -> tuple[OwnCodes, ...]:
    """The matrices that are in few bits in their files."""
    found: Counter[tuple[str, str, str, int, int]] = Counter()
    for role, name in _matrices(checkpoint):
        entry = checkpoint.entries[name]
        *experts, rows, columns = entry.shape
        if entry.coding:
            found[role, entry.coding, str(entry.form or ""), rows, columns] += prod(experts)
    return tuple(OwnCodes(*which, count) for which, count in found.items())


def _matrices(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Role and name of each."""
    config, entries = checkpoint.config, checkpoint.entries
    yield "head", names.EMBEDDING if config.tied_head else names.OUTPUT
    for block in range(config.num_blocks):
        parts = [names.core(config, block, entries)]
        if names.is_fused(block, entries):
            parts.append(names.experts(config, block))
        else:
            parts += [names.expert(config, block, index) for index in range(config.experts_in(block))]
        yield from ((ROLES[letter], name) for part in parts for letter, (name, _) in part.items() if letter in ROLES)
