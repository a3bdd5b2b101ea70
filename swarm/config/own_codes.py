"""Which matrices of a model have few bits in its files already, and what a dtype makes of them. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarm.bits import Bits, Form

ROLE_NAMES = {"experts": "w1 and w3", "down": "w2", "attention": "attention", "head": "head"}
"""For people."""
AGAIN = "quantized a second time: "
"""How what `said_again` says begins."""


@dataclass(frozen=True)
class OwnCodes:
    """Matrices of one role, one kind and one shape.

    Args:
        role: `experts` (w1 and w3), or one of `swarm.bits.ROLES`.
        kind: what their format calls it: `Q4_K`, `gptq`.
        form: in which their codes can be kept as they are; empty: in none.
        rows, columns: outputs and inputs of one matrix.
        count: how many such matrices the model has.
    """

    role: str
    kind: str
    form: str
    rows: int
    columns: int
    count: int

    def again(self, bits: Bits) -> Form | None:
        """What they are quantized to anew; None: they are kept code for code, or as numbers, of which nothing is lost."""
        form: Form = getattr(bits, self.role)
        if not form.quantized:
            return None
        return None if self.form and fits(Form.of(self.form), form, self.rows, self.columns) else form


def fits(own: Form, form: Form, rows: int, columns: int) -> bool:
    """Whether a matrix's own codes take no more than the form that is asked for."""
    return own.matrix_bytes(rows, columns) <= form.matrix_bytes(rows, columns)


def said_again(codes: Iterable[OwnCodes], dtype: str) -> str:
    """What a dtype quantizes a second time, in one line for people; empty where it is nothing."""
    bits, changes = Bits.of(dtype), dict[tuple[str, str, str], int]()
    for some in codes:
        if form := some.again(bits):
            change = some.kind, ROLE_NAMES[some.role], str(form)
            changes[change] = changes.get(change, 0) + some.count
    return AGAIN + "; ".join(f"{n} {k} ({role}) into {form}" for (k, role, form), n in changes.items()) if changes else ""
