"""How a model's matrices are kept: the `dtype` of a Plan, as text and taken apart. Standard library only.

    bf16                            all in bf16
    int4                            all matrices in 4 bits, 64 weights a group
    int4/32+attention=int8          4 bits, 32 a group; q, k, v and o in 8 bits, a scale a row
    int4/32+down=int8/16            what a file of mixed kinds may come to: the experts' w2 in 8 bits, 16 weights a group

The embedding, the routers and the norms are never quantized: they have the dtype that is computed in.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.errors import UsageError

NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of one number, in the dtypes that models run in."""
GROUPS = {"int8": (0, 16, 32), "int4": (64, 32, 128)}
"""Weights along the input dimension that share a scale and a zero, the default first; 0: a whole row, and no zero."""
ROLES = ("attention", "down", "head")
"""Matrices that may be kept in another form than the rest (the experts' w1 and w3): q, k, v and o; the experts' w2; the output."""
WAYS = ", ".join((*NUMBER_BYTES, *GROUPS))


@dataclass(frozen=True)
class Form:
    """How one matrix is kept.

    Args:
        kind: a key of `NUMBER_BYTES` or of `GROUPS`.
        group: see `GROUPS`; 0 where nothing is quantized.
    """

    kind: str
    group: int = 0

    @classmethod
    def of(cls, text: str) -> Form:
        """From `bf16`, `int4` or `int4/32`. Raises UsageError."""
        kind, slash, group = text.partition("/")
        if kind in NUMBER_BYTES and not slash:
            return cls(kind)
        groups = GROUPS.get(kind, ())
        if not groups or (slash and (not group.isdecimal() or int(group) not in groups)):
            raise UsageError(f"{text} is no way to keep weights: give {WAYS}, int8/16, int8/32, int4/32 or int4/128")
        return cls(kind, int(group) if slash else groups[0])

    def __str__(self) -> str:
        return self.kind if self.group in (0, GROUPS.get(self.kind, (0,))[0]) else f"{self.kind}/{self.group}"

    @property
    def quantized(self) -> bool:
        return self.kind in GROUPS

    def matrix_bytes(self, rows: int, columns: int) -> int:
        """A matrix with that many outputs (rows) and inputs (columns): codes, and scales and zeros of 2 bytes each."""
        if not self.quantized:
            return rows * columns * NUMBER_BYTES[self.kind]
        codes = columns if self.kind == "int8" else -(-columns // 2)
        return rows * (codes + (4 * -(-columns // self.group) if self.group else 2))


@dataclass(frozen=True)
class Bits:
    """The forms of all of a model's matrices."""

    experts: Form
    attention: Form
    down: Form
    head: Form

    @classmethod
    def of(cls, dtype: str) -> Bits:
        """From the text of a Plan's dtype. Raises UsageError: it is none."""
        first, *rest = dtype.split("+")
        experts = Form.of(first)
        forms = dict.fromkeys(ROLES, experts)
        for item in rest:
            role, equals, form = item.partition("=")
            if role not in ROLES or not equals:
                raise UsageError(f"{item} in the dtype {dtype} is not understood: write one of {', '.join(ROLES)}, =, and a form")
            forms[role] = Form.of(form)
        return cls(experts, **forms)

    def __str__(self) -> str:
        """The shortest text that `of` reads back: equal Bits have equal texts."""
        others = [f"+{role}={form}" for role in ROLES if (form := getattr(self, role)) != self.experts]
        return f"{self.experts}{''.join(others)}"

    @property
    def numbers(self) -> str:
        """What is computed in, and what is never quantized is kept in: a key of `NUMBER_BYTES`."""
        return next((f.kind for f in (self.experts, self.attention, self.down, self.head) if not f.quantized), "bf16")
