"""Which experts a row goes to: softmax over all, the best K, their weights normalised as the family does.

R: rows   H: hidden   E: experts   K: experts a row   n: rows of one expert
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.model.product import product


@dataclass(frozen=True)
class Share:
    """The rows that one expert is given, and how much its output counts for each."""

    index: Tensor  # [n] int64, ascending
    weight: Tensor  # [n, 1] fp32


@dataclass(frozen=True)
class Router:
    """One Block's router.

    Args:
        norm: the chosen weights are divided by their p-norm of this p; 0: they are left as they are. With 1 they equal a softmax
            over the chosen logits alone, as Mixtral and gpt-oss define it.
    """

    weight: Tensor  # [E, H]
    top_k: int
    norm: float = 1.0
    bias: Tensor | None = None  # [E]

    @property
    def num_experts(self) -> int:
        return self.weight.shape[0]

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For rows `x` [R, H] the weights [R, K] fp32, and which experts they are of [R, K]."""
        logits = product(x, self.weight)  # [R, E]
        if self.bias is not None:
            logits = logits + self.bias
        weight, chosen = torch.topk(F.softmax(logits, -1, dtype=torch.float32), self.top_k, -1)
        if self.norm == 1.0:
            weight = weight / weight.sum(-1, keepdim=True)
        elif self.norm:
            weight = weight / torch.linalg.vector_norm(weight, self.norm, -1, keepdim=True)
        return weight, chosen

    def route(self, x: Tensor) -> dict[int, Share]:
        """Each chosen expert's Share of the rows `x` [R, H], by expert id, ascending."""
        weight, chosen = self.choose(x)
        if x.shape[0] == 1:
            index = torch.zeros(1, dtype=torch.int64, device=x.device)
            return {e: Share(index, weight[:, k, None]) for e, k in sorted(zip(chosen[0].tolist(), range(self.top_k), strict=True))}
        return _by_expert(weight, chosen, self.num_experts)


def _by_expert(weight: Tensor, chosen: Tensor, num_experts: int) -> dict[int, Share]:
    flat = chosen.flatten()  # [R K]
    order = torch.argsort(flat, stable=True)
    index = order // chosen.shape[1]
    weight = weight.flatten()[order].unsqueeze(1)
    shares, at = {}, 0
    for expert, count in enumerate(torch.bincount(flat, minlength=num_experts).tolist()):
        if count:
            shares[expert] = Share(index[at : at + count], weight[at : at + count])
        at += count
    return shares
