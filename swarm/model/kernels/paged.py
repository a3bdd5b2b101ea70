"""Attention over KV pages in Triton: pages are read where they lie, nothing as long as the context is made beside them.

A program has one tile: some rows of one Session, and all heads of one key-value head, which read the same keys. One new
token has too few programs to fill a card, so its positions are split; the parts are put together in order of position.
Where a split ends depends on the position alone, so a row's bits do not depend on the other rows (promise 2).
Softmax as it comes, block by block: arXiv 1805.02867; tiles of queries over blocks of keys: arXiv 2205.14135.

R: rows   NH: heads   KV: key-value heads   G: heads a key-value head   D: head_dim   T: tiles   S: splits
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
"""Powers of two are what a card has."""


@triton.jit(do_not_specialize=["WIDTH", "R", "window"], do_not_specialize_on_alignment=["tiles", "tables"])
def attend(
    q,  # [R, NH, D]; rows may lie apart, heads do not
    keys,  # [pages, page positions, KV, D]
    values,
    sinks,  # [NH], where SINKS
    positions,  # [R] int64
    tiles,  # [T, 3] int32: first row, end row, row of `tables`
    tables,  # [., WIDTH] int32: a Session's pages, in order of position
    out,  # [R, NH, D] where there is one split
    sums,  # [S, R, NH, D] fp32, weighted values of each split
    norms,  # [S, R, NH, 2] fp32: the split's greatest score, and its sum of weights
    Q_ROW,
    WIDTH,
    R,
    scale,  # of scores
    window,  # positions that a row sees; 0: all
    KV: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    PADDED: tl.constexpr,  # D, to a power of two
    PAGE: tl.constexpr,
    M: tl.constexpr,  # rows times heads of a tile
    BLOCK: tl.constexpr,  # positions at a time
    SPLIT: tl.constexpr,  # positions of a split; 0: all
    SINKS: tl.constexpr,  # each head has a logit that takes its share of the softmax and has no value
    DOT: tl.constexpr,
):
    """Grid: tiles, key-value heads, splits."""
    T: tl.constexpr = keys.dtype.element_ty
    tile = tl.program_id(0)
    kv = tl.program_id(1)
    split = tl.program_id(2)
    places = tl.arange(0, M)
    rows = tl.load(tiles + 3 * tile) + places // G
    heads = kv * G + places % G
    row_ok = (rows < tl.load(tiles + 3 * tile + 1)) & (places < M // G * G)
    table = tables + tl.load(tiles + 3 * tile + 2) * WIDTH
    own = tl.load(positions + rows, mask=row_ok, other=-1).to(tl.int32)
    ds = tl.arange(0, PADDED)
    d_ok = ds < D
    queries = tl.load(q + rows[:, None] * Q_ROW + heads[:, None] * D + ds[None, :], mask=row_ok[:, None] & d_ok[None, :], other=0.0)
    first = tl.min(tl.where(row_ok, own, 2147483647), 0)
    end = tl.max(own, 0) + 1
    begin = tl.where(window > 0, tl.maximum(first - window + 1, 0), 0)
    if SPLIT > 0:
        begin = tl.maximum(begin, split * SPLIT)
        end = tl.minimum(end, split * SPLIT + SPLIT)
    greatest = tl.full((M,), float("-inf"), tl.float32)
    weights = tl.zeros((M,), tl.float32)
    acc = tl.zeros((M, PADDED), tl.float32)
    for start in range(begin // BLOCK * BLOCK, end, BLOCK):
        js = start + tl.arange(0, BLOCK)
        page = tl.load(table + js // PAGE, mask=js < end, other=0).to(tl.int64)
        at = (page * PAGE + js % PAGE) * (KV * D) + kv * D
        k = tl.load(keys + at[None, :] + ds[:, None], mask=d_ok[:, None] & (js < end)[None, :], other=0.0)
        v = tl.load(values + at[:, None] + ds[None, :], mask=(js < end)[:, None] & d_ok[None, :], other=0.0)
        scores = tl.dot(queries.to(DOT), k.to(DOT), input_precision="ieee") * (scale * LOG2_E)
        seen = (js[None, :] <= own[:, None]) & ((window <= 0) | (js[None, :] > own[:, None] - window)) & (js < end)[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        above = tl.maximum(greatest, tl.max(scores, 1))
        base = tl.where(above == float("-inf"), 0.0, above)  # a row that has seen nothing yet
        p = tl.exp2(scores - base[:, None])
        less = tl.exp2(greatest - base)
        weights = weights * less + tl.sum(p, 1)
        acc = tl.dot(p.to(T).to(DOT), v.to(DOT), acc * less[:, None], input_precision="ieee")
        greatest = above
    at = (rows * (KV * G) + heads).to(tl.int64)
    ok = row_ok[:, None] & d_ok[None, :]
    if SPLIT > 0:
        at += split.to(tl.int64) * R * (KV * G)
        tl.store(norms + at * 2, greatest, mask=row_ok)
        tl.store(norms + at * 2 + 1, weights, mask=row_ok)
        tl.store(sums + at[:, None] * D + ds[None, :], acc, mask=ok)
    else:
        if SINKS:
            own_sink = tl.load(sinks + heads, mask=row_ok, other=0.0).to(tl.float32) * LOG2_E
            weights += tl.exp2(own_sink - greatest)
        weights = tl.where(row_ok, weights, 1.0)
        tl.store(out + at[:, None] * D + ds[None, :], (acc / weights[:, None]).to(T), mask=ok)


@triton.jit(do_not_specialize=["HEADS", "splits"])
def combine(sums, norms, sinks, out, HEADS, splits, NH: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr, SINKS: tl.constexpr):
    """The splits of one row and head, in order; grid: R NH (`HEADS`)."""
    head = tl.program_id(0).to(tl.int64)
    ds = tl.arange(0, PADDED)
    greatest = float("-inf")
    for s in range(splits):
        greatest = tl.maximum(greatest, tl.load(norms + (s * HEADS + head) * 2))
    weights = 0.0
    acc = tl.zeros((PADDED,), tl.float32)
    for s in range(splits):
        at = s * HEADS + head
        share = tl.exp2(tl.load(norms + at * 2) - greatest)
        weights += share * tl.load(norms + at * 2 + 1)
        acc += share * tl.load(sums + at * D + ds, mask=ds < D, other=0.0)
    if SINKS:
        weights += tl.exp2(tl.load(sinks + head % NH).to(tl.float32) * LOG2_E - greatest)
    tl.store(out + head * D + ds, (acc / weights).to(out.dtype.element_ty), mask=ds < D)
