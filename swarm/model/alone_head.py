"""The end of a model as a row that is alone on a CPU meets it: its last norm and the output matrix, in one call.

H: hidden   V: vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from swarm.model.alone import fits, matrix_of
from swarm.model.native.halves import Halves, LastHalf, halves
from swarm.model.norm import Norm
from swarm.model.product import Weight


@dataclass(frozen=True)
class HeadAlone:
    """Both in one call: what Python does between them finds the caches full of weights."""

    half: LastHalf
    calls: Halves
    kept: tuple[object, ...]
    """Whose memory `half` points at."""

    @classmethod
    def of(cls, norm: Norm, weight: Tensor, eps: float, output: Weight) -> HeadAlone | None:
        """None where this CPU has no such call, or their form is another one."""
        calls, matrix = halves(), matrix_of(output)
        if calls is None or matrix is None or not fits(norm, weight):
            return None
        return cls(LastHalf(matrix, weight.data_ptr(), eps), calls, (weight, output))

    def takes(self, h: Tensor) -> bool:
        """Whether rows `h` [R, H] are one that is alone here."""
        return self.calls.takes(h)

    def logits(self, h: Tensor) -> Tensor:
        """Logits [1, V] of `h` [1, H]."""
        return self.calls.logits(self.half, h)
