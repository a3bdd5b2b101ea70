"""Attention of one Session's rows over its keys and values: softmax of scaled products (arXiv 1706.03762).

n: rows   P: positions   NH: heads   KV: key-value heads   G: heads a key-value head   D: head_dim
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.config import SINK_ROWS
from swarm.model.native.many_queries import many_queries


def attend(q: Tensor, keys: Tensor, values: Tensor, position: int, window: int = 0, sinks: Tensor | None = None) -> Tensor:
    """Queries `q` [n, NH, D], the first at `position`, over keys and values [P, KV, D]; [n, NH, D].

    Args:
        position: counted from the first key that is here.
        window: row i sees positions `position + i - window + 1` to `position + i`; 0: all up to its own. A single row's keys
            begin with its window.
        sinks: [NH] a logit of each head that takes its share of the softmax and has no value (arXiv 2309.17453).
    """
    n, num_heads, head_dim = q.shape
    if sinks is not None:
        return _with_sinks(q, keys, values, position, window, sinks)
    many = many_queries() if not 0 < window < keys.shape[0] else None
    if many and many.takes(q, keys, values):
        return many.attend(q, keys, values, position)
    k, v = keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0)  # [1, KV, P, D]
    if n == 1:  # all heads of a key-value head as rows of one product: keys are read once
        grouped = q.reshape(1, k.shape[1], -1, head_dim)  # [1, KV, G, D]
        return F.scaled_dot_product_attention(grouped, k, v).reshape(1, num_heads, head_dim)
    mask = _mask(n, position, window, keys) if position or 0 < window < n else None
    if mask is not None and q.is_cuda:
        return by_group(q, k, v, mask)
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0), k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )
    return out[0].transpose(0, 1)


def by_group(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The heads of a key-value head as rows of one product: with a mask torch has kernels on cards for equal numbers of heads
    alone, and would copy the keys for each head, in fp32.

    Args:
        k, v: [1, KV, P, D].
        mask: [n, P].
    """
    n, num_heads, head_dim = q.shape
    grouped = q.reshape(n, k.shape[1], -1, head_dim).permute(1, 2, 0, 3).reshape(1, k.shape[1], -1, head_dim)  # [1, KV, G n, D]
    out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask.repeat(num_heads // k.shape[1], 1))
    return out.view(num_heads, n, head_dim).transpose(0, 1)


def _mask(n: int, position: int, window: int, keys: Tensor) -> Tensor:
    """Which of P keys each of n rows sees, [n, P]: 0..position + i, of those the last `window`."""
    mask = torch.ones(n, keys.shape[0], dtype=torch.bool, device=keys.device).tril(position)
    return mask.triu(position - window + 1) if window else mask


def _with_sinks(q: Tensor, keys: Tensor, values: Tensor, position: int, window: int, sinks: Tensor) -> Tensor:
    """One key more, of zeros, whose score is the sink and whose value is zero; a few rows at a time, since scores get a bias."""
    n, num_heads, head_dim = q.shape
    kv_heads, positions = keys.shape[1], keys.shape[0]
    nothing = keys.new_zeros(1, kv_heads, head_dim)
    k, v = (torch.cat((x, nothing)).transpose(0, 1).unsqueeze(0) for x in (keys, values))  # [1, KV, P + 1, D]
    seen = None if n == 1 else _mask(n, position, window, keys)
    parts = []
    for at in range(0, n, SINK_ROWS):
        some = q[at : at + SINK_ROWS].transpose(0, 1)  # [NH, r, D]
        bias = q.new_zeros(num_heads, some.shape[1], positions + 1)
        bias[..., -1] = sinks[:, None]
        if seen is not None:
            bias[..., :-1].masked_fill_(~seen[at : at + SINK_ROWS], float("-inf"))
        grouped = some.reshape(1, kv_heads, -1, head_dim)  # [1, KV, G r, D]
        out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=bias.view(1, kv_heads, -1, positions + 1))
        parts.append(out.view(num_heads, -1, head_dim).transpose(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
