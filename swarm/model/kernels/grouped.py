"""Rows times the matrices that they chose, in Triton: only the chosen ones are read, and the choice never leaves the card.

A program makes some outputs of one expert for up to `TILE_ROWS` rows; programs of experts that nobody chose end at once. A
row's bits depend on nothing but the row and the matrix: not on the other rows, nor on how many there are (promise 2).

R: rows   K: inputs   N: outputs   E: experts   S: experts a row chose   g: group
"""

from __future__ import annotations

import triton
import triton.language as tl

TILE_ROWS = 16
"""The least that a tensor core takes; a weight is unpacked once for all of them."""


@triton.jit
def _numbers(codes: tl.tensor) -> tl.tensor:
    """Codes of 0 to 15 less 8, fp32. The bits of 2**23 + q are those of 2**23 or q: no conversion, which is slow on a card."""
    return (codes.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - 8388616.0


@triton.jit
def _dense(acc, x, w, xs, ns, n_ok, row_ok, K, BLOCK_K: tl.constexpr, DOT: tl.constexpr):
    """`acc` and the product with rows `ns` of a matrix [., K]."""
    for first in range(0, K, BLOCK_K):
        ks = first + tl.arange(0, BLOCK_K)
        a = tl.load(x + xs[:, None] * K + ks[None, :], mask=row_ok[:, None] & (ks < K)[None, :], other=0.0)
        b = tl.load(w + ns[None, :] * K + ks[:, None], mask=n_ok[None, :] & (ks < K)[:, None], other=0.0)
        acc = tl.dot(a.to(DOT), b.to(DOT), acc, input_precision="ieee")
    return acc


@triton.jit
def _int4(
    acc, x, w, scales, xs, ns, n_ok, row_ok, K, W, GROUP: tl.constexpr, AHEAD: tl.constexpr, T: tl.constexpr, DOT: tl.constexpr
):
    """The same with a matrix of codes [groups, W, g / 2] and scales [groups, W, 2]; a weight is rounded once, to T."""
    HALF: tl.constexpr = GROUP // 2
    js = tl.arange(0, HALF)
    for first in range(0, tl.cdiv(K, GROUP), AHEAD):
        for ahead in tl.static_range(AHEAD):  # so many groups are on their way together
            group = first + ahead
            at = group * W + ns
            ok = n_ok & (tl.full(ns.shape, group * GROUP, tl.int32) < K)
            both = tl.load(w + at[None, :] * HALF + js[:, None], mask=ok[None, :], other=0)
            scale = tl.load(scales + at * 2, mask=ok, other=0.0).to(tl.float32)[None, :]
            zero = tl.load(scales + at * 2 + 1, mask=ok, other=0.0).to(tl.float32)[None, :]
            ks = group * GROUP + js
            a = tl.load(x + xs[:, None] * K + ks[None, :], mask=row_ok[:, None] & (ks < K)[None, :], other=0.0)
            low = (_numbers(both & 15) * scale + zero).to(T)
            acc = tl.dot(a.to(DOT), low.to(DOT), acc, input_precision="ieee")
            ks += HALF
            a = tl.load(x + xs[:, None] * K + ks[None, :], mask=row_ok[:, None] & (ks < K)[None, :], other=0.0)
            high = (_numbers(both >> 4) * scale + zero).to(T)
            acc = tl.dot(a.to(DOT), high.to(DOT), acc, input_precision="ieee")
    return acc


@triton.jit
def _int8(
    acc, x, w, scales, xs, ns, n_ok, row_ok, K, W, GROUP: tl.constexpr, STEP: tl.constexpr, AHEAD: tl.constexpr, T: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """The same with a matrix of codes [groups, W, g] and scales [groups, W, 2], or [1, W, 2] where STEP is 0."""
    js = tl.arange(0, GROUP)
    for first in range(0, tl.cdiv(K, GROUP), AHEAD):
        for ahead in tl.static_range(AHEAD):
            group = first + ahead
            at = group * W + ns
            ok = n_ok & (tl.full(ns.shape, group * GROUP, tl.int32) < K)
            codes = tl.load(w + at[None, :] * GROUP + js[:, None], mask=ok[None, :], other=0)
            line = (group * STEP * W + ns) * 2
            scale = tl.load(scales + line, mask=ok, other=0.0).to(tl.float32)[None, :]
            zero = tl.load(scales + line + 1, mask=ok, other=0.0).to(tl.float32)[None, :]
            ks = group * GROUP + js
            a = tl.load(x + xs[:, None] * K + ks[None, :], mask=row_ok[:, None] & (ks < K)[None, :], other=0.0)
            acc = tl.dot(a.to(DOT), (codes.to(tl.float32) * scale + zero).to(T).to(DOT), acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["R"])
def grouped(
    x,  # [R, K], or [R S, K] where BY_SLOT
    table,  # [E] int64: where each expert's matrix is, 0: not here
    scales,  # [E] int64: where its scales are
    chosen,  # [R, S] int64
    out,  # [R S, N]
    R,
    N,
    K,
    W,  # outputs that the matrix has: N, or 2N where GATED
    CHOICES: tl.constexpr,  # S
    PADDED: tl.constexpr,  # S, to a power of two
    BITS: tl.constexpr,  # 4 or 8; 0: the matrices are in numbers
    GROUP: tl.constexpr,
    STEP: tl.constexpr,  # 0: one scale and zero for all groups of an output
    GATED: tl.constexpr,  # SiLU of the first half of the outputs times the second
    BY_SLOT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr,
    DOT: tl.constexpr,  # what is multiplied in: the interpreter knows no bf16 product
):
    """See the top of the file; grid: tiles of rows (neighbours read the same weights), tiles of outputs, experts."""
    T: tl.constexpr = out.dtype.element_ty
    expert = tl.program_id(2)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    places = tl.arange(0, PADDED)
    mask = (rows < R)[:, None] & (places < CHOICES)[None, :]
    mine = tl.load(chosen + rows[:, None] * CHOICES + places[None, :], mask=mask, other=-1) == expert
    row_ok = tl.max(mine.to(tl.int32), 1) > 0
    where = tl.load(table + expert)
    if (tl.max(row_ok.to(tl.int32), 0) == 0) | (where == 0):
        return
    slots = rows * CHOICES + tl.sum(tl.where(mine, places[None, :], 0), 1)
    xs = slots if BY_SLOT else rows
    ns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    n_ok = ns < N
    acc = tl.zeros((ROWS, BLOCK_N), tl.float32)
    up = tl.zeros((ROWS, BLOCK_N), tl.float32)
    if BITS == 4:
        w = tl.multiple_of(where.to(tl.pointer_type(tl.uint8)), 16)
        pairs = tl.multiple_of(tl.load(scales + expert).to(tl.pointer_type(T)), 16)
        acc = _int4(acc, x, w, pairs, xs, ns, n_ok, row_ok, K, W, GROUP, AHEAD, T, DOT)
        if GATED:
            up = _int4(up, x, w, pairs, xs, ns + N, n_ok, row_ok, K, W, GROUP, AHEAD, T, DOT)
    elif BITS == 8:
        w = tl.multiple_of(where.to(tl.pointer_type(tl.int8)), 16)
        pairs = tl.multiple_of(tl.load(scales + expert).to(tl.pointer_type(T)), 16)
        acc = _int8(acc, x, w, pairs, xs, ns, n_ok, row_ok, K, W, GROUP, STEP, AHEAD, T, DOT)
        if GATED:
            up = _int8(up, x, w, pairs, xs, ns + N, n_ok, row_ok, K, W, GROUP, STEP, AHEAD, T, DOT)
    else:
        w = tl.multiple_of(where.to(tl.pointer_type(T)), 16)
        acc = _dense(acc, x, w, xs, ns, n_ok, row_ok, K, BLOCK_K, DOT)
        if GATED:
            up = _dense(up, x, w, xs, ns + N, n_ok, row_ok, K, BLOCK_K, DOT)
    if GATED:  # rounded where torch's own operations would round
        gate = acc.to(T).to(tl.float32)
        acc = (gate * tl.sigmoid(gate)).to(T).to(tl.float32) * up.to(T).to(tl.float32)
    tl.store(out + slots[:, None] * N + ns[None, :], acc.to(T), mask=row_ok[:, None] & n_ok[None, :])


@triton.jit
def unpack(
    codes,
    scales,
    out,  # [count, K]
    first,
    count,
    K,
    W,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Outputs `first` and on of a matrix [W, K]; grid: tiles of outputs, groups."""
    T: tl.constexpr = out.dtype.element_ty
    group = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    ok = rows < count
    line = (group * STEP * W + first + rows) * 2
    scale = tl.load(scales + line, mask=ok, other=0.0).to(tl.float32)[:, None]
    zero = tl.load(scales + line + 1, mask=ok, other=0.0).to(tl.float32)[:, None]
    at = (group * W + first + rows)[:, None]
    to = out + rows[:, None].to(tl.int64) * K
    if BITS == 4:
        HALF: tl.constexpr = GROUP // 2
        js = tl.arange(0, HALF)
        both = tl.load(codes + at * HALF + js[None, :], mask=ok[:, None], other=0)
        ks = (group * GROUP + js)[None, :]
        tl.store(to + ks, (_numbers(both & 15) * scale + zero).to(T), mask=ok[:, None] & (ks < K))
        tl.store(to + ks + HALF, (_numbers(both >> 4) * scale + zero).to(T), mask=ok[:, None] & (ks + HALF < K))
    else:
        js = tl.arange(0, GROUP)
        some = tl.load(codes + at * GROUP + js[None, :], mask=ok[:, None], other=0)
        ks = (group * GROUP + js)[None, :]
        tl.store(to + ks, (some.to(tl.float32) * scale + zero).to(T), mask=ok[:, None] & (ks < K))
