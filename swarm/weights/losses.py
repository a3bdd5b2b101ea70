"""What quantizing did to a model's matrices: how much of each was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Loss:
    """Of one tensor.

    Args:
        name: the tensor's; `[3]` behind it: that part of it.
        role: `experts`, or one of `swarm.bits.ROLES`.
        error: squared error of all its weights together, beside their squares.
        again: it had few bits already in its file, and could not keep them.
    """

    name: str
    role: str
    error: float
    again: bool = False


@dataclass(frozen=True)
class Again:
    """What quantizing a second time cost: how many tensors, and the mean of their errors."""

    count: int = 0
    error: float = 0.0

    def __add__(self, other: Again) -> Again:
        count = self.count + other.count
        return Again(count, (self.count * self.error + other.count * other.error) / count if count else 0.0)


def again(losses: Sequence[Loss]) -> Again:
    """Of those that had few bits already in their file."""
    return sum((Again(1, loss.error) for loss in losses if loss.again), Again())


def said(losses: Sequence[Loss]) -> str:
    """By role: mean and worst error; for people. Empty where nothing was quantized."""
    roles = dict.fromkeys(loss.role for loss in losses)
    return "; ".join(_of_role(role, [loss for loss in losses if loss.role == role]) for role in roles)


def _of_role(role: str, losses: Sequence[Loss]) -> str:
    worst = max(losses, key=lambda loss: loss.error)
    mean = sum(loss.error for loss in losses) / len(losses)
    again = sum(loss.again for loss in losses)
    text = f"{role}: squared error {mean:.2e} of the weights' squares, at most {worst.error:.2e} ({worst.name})"
    return f"{text}, {again} of {len(losses)} quantized a second time" if again else text
