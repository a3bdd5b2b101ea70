"""How a model's matrices are kept: the `dtype` of a Plan, as text and taken apart. Standard library only.

    bf16                            all in bf16
    int4                            all matrices in 4 bits, 64 weights a group, but the head: that is in 8 where nothing is said
    int4+head=int4                  the head too
    int4/32+attention=int8          4 bits, 32 a group; q, k, v and o in 8 bits, a scale a row
    int4/32+down=int8/16            what a file of mixed kinds may come to: the experts' w2 in 8 bits, 16 weights a group

The embedding, the routers and the norms are never quantized: they have the dtype that is computed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from swarm.errors import UsageError

NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of one number, in the dtypes that models run in."""
GROUPS = {"int8": (0, 16, 32), "int4": (64, 32, 128)}
"""Weights along the input dimension that share a scale and a zero, the default first; 0: a whole row, and no zero."""
ROLES = ("attention", "down", "head")
"""Matrices that may be kept in another form than the rest (the experts' w1 and w3): q, k, v and o; the experts' w2; the output."""
WAYS = ", ".join((*NUMBER_BYTES, *GROUPS))
"""For messages."""


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
        """From the text of a Plan's dtype. Raises UsageError: it is none, or it computes in two dtypes."""
        first, *rest = dtype.split("+")
        experts = Form.of(first)
        forms = {role: _unsaid(role, experts) for role in ROLES}
        for item in rest:
            role, equals, form = item.partition("=")
            if role not in ROLES or not equals:
                raise UsageError(f"{item} in the dtype {dtype} is not understood: write one of {', '.join(ROLES)}, =, and a form")
            forms[role] = Form.of(form)
        if len(kinds := {form.kind for form in (experts, *forms.values()) if not form.quantized}) > 1:
            raise UsageError(f"the dtype {dtype} computes in {' and in '.join(sorted(kinds))}: write one of them")
        return cls(experts, **forms)

    def __str__(self) -> str:
        """The shortest text that `of` reads back: equal Bits have equal texts."""
        others = [f"+{role}={form}" for role in ROLES if (form := getattr(self, role)) != _unsaid(role, self.experts)]
        return f"{self.experts}{''.join(others)}"

    @property
    def measured(self) -> str:
        """The dtype whose speed is this one's: experts are most of what is read, and groups of 4 bits are all about as fast."""
        experts = Form.of(self.experts.kind) if self.experts.kind == "int4" else self.experts
        alone = Bits.of(str(experts))
        return str(alone if alone.numbers == self.numbers else replace(alone, head=Form(self.numbers)))

    @property
    def numbers(self) -> str:
        """What is computed in, and what is never quantized is kept in: a key of `NUMBER_BYTES`."""
        return next((f.kind for f in (self.experts, self.attention, self.down, self.head) if not f.quantized), "bf16")


def _unsaid(role: str, experts: Form) -> Form:
    """A role's form where a dtype does not say it. The head is small, and what its rounding costs is the most of all."""
    return Form("int8") if role == "head" and experts.kind == "int4" else experts


AUTO = "auto"
"""The dtype that is chosen by what the checkpoint has and what fits."""


def canonical(dtype: str) -> str:
    """`auto`, or the one text of a dtype. Raises UsageError: it is none."""
    return dtype if dtype == AUTO else str(Bits.of(dtype))


def with_forms(dtype: str, group: int = 0, attention: str = "", head: str = "") -> str:
    """A dtype with what other options say about it, canonical.

    Args:
        group: weights that share a scale, of its experts; 0: as it says.
        attention, head: forms of those; empty: as it says.

    Raises:
        UsageError: they do not go together.
    """
    if dtype == AUTO and (group or attention or head):
        raise UsageError("--group, --attention and --head say more about a dtype: give --dtype int8 or --dtype int4 too")
    if group:
        first, plus, rest = dtype.partition("+")
        dtype = f"{first.partition('/')[0]}/{group}{plus}{rest}"
    forms = [f"+{role}={form}" for role, form in (("attention", attention), ("head", head)) if form]
    return canonical(dtype + "".join(forms))
