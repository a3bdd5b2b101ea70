/* Many rows times a matrix of bf16 on CPUs with a matrix unit for it (AMX; after amx.h). The weight is the left factor as it lies: 32 inputs of 16
   outputs are a tile. What is next of it is fetched while these are multiplied, so that a product takes as long as reading or as
   multiplying, and not as both.

   n: rows   t: tiles of 16 rows   K: inputs, a multiple of 32   N: outputs, a multiple of 32 */

#define INLINE static inline __attribute__((always_inline))

struct many {
    int64_t rows, inputs, outputs, part; /* of pairs of blocks that a thread takes at a time */
    const uint16_t *x; /* bf16 [n, K] */
    const uint16_t *w; /* bf16 [N, K] */
    uint32_t *pairs;   /* `x` as tiles, [t, K / 32, 16 pairs of inputs, 16 rows] */
    uint16_t *out;     /* bf16 [n, N] */
    uint32_t *gated;   /* where this has w1 above w3: `pairs` of the product with w2, to be written in place of `out` */
};

/* 16 rows of 16 lanes the other way about. */
INLINE void turned_over(__m512i r[TILE])
{
    __m512i t[TILE];
#pragma GCC unroll 8
    for (int i = 0; i < TILE; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < TILE; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

static void many_begun(const struct many *t)
{
    uint32_t *to = t->pairs;
    for (int64_t row = 0; row < t->rows; row += TILE)
        for (int64_t k = 0; k < t->inputs; k += TILE_INPUTS, to += TILE * TILE) {
            __m512i r[TILE];
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++)
                r[i] = row + i < t->rows ? _mm512_loadu_si512(t->x + (row + i) * t->inputs + k) : _mm512_setzero_si512();
            turned_over(r);
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++)
                _mm512_store_si512(to + i * TILE, r[i]);
        }
}

/* 2 to a power, as 2 to a whole one times a series (Cephes). */
INLINE __m512 two_to_the(__m512 power)
{
    const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(power, whole);
    __m512 y = _mm512_fmadd_ps(r, _mm512_set1_ps(1.535336188319500e-4f), _mm512_set1_ps(1.339887440266574e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(9.618437357674640e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.550332471162809e-2f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(2.402264791363012e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(6.931472028550421e-1f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(y, r, _mm512_set1_ps(1)), whole);
}

/* SiLU of the one times the other, by a reciprocal of 14 bits: 5 more than bf16 keeps. */
INLINE __m512 silu_times(__m512 gate, __m512 up)
{
    const __m512 power = two_to_the(_mm512_mul_ps(gate, _mm512_set1_ps(-1.44269504f)));
    return _mm512_mul_ps(_mm512_mul_ps(gate, _mm512_rcp14_ps(_mm512_add_ps(power, _mm512_set1_ps(1)))), up);
}

/* Two blocks of 16 outputs, `first` and `second`, for one or two tiles of rows, while `count` outputs of the blocks that are next are fetched. */
INLINE void multiplied_many(const struct many *t, const uint16_t *first, const uint16_t *second, int64_t tile, int both,
                            const uint16_t *const *next, int64_t count, float products[PARTS][TILE * TILE])
{
    const int64_t inputs = t->inputs;
    const uint32_t *x = t->pairs + tile * inputs / 2 * TILE, *other = x + inputs / 2 * TILE;
    begun();
    for (int64_t k = 0; k < inputs; k += TILE_INPUTS, x += TILE * TILE, other += TILE * TILE) {
        _tile_loadd(4, first + k, 2 * inputs);
        _tile_loadd(6, x, 4 * TILE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, second + k, 2 * inputs);
        _tile_dpbf16ps(2, 5, 6);
        if (both) {
            _tile_loadd(7, other, 4 * TILE);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        for (int64_t i = 0; i < count; i++)
            _mm_prefetch((const char *)(next[i] + k), _MM_HINT_T1);
    }
    ended(products);
}

/* What meets w2: 16 more of its inputs. */
INLINE void gated_many(const struct many *t, int64_t block, int64_t tile, const float *gate, const float *up)
{
    const int64_t ffn = t->outputs / 2, at = block * TILE;
    const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                                           17, 1, 16, 0);
    uint32_t *to = t->gated + (tile * ffn / 2 + at / 2) * TILE;
    for (int i = 0; i < TILE; i += 2, to += TILE, gate += 2 * TILE, up += 2 * TILE) {
        const __m512 one = silu_times(_mm512_load_ps(gate), _mm512_load_ps(up));
        const __m512 other = silu_times(_mm512_load_ps(gate + TILE), _mm512_load_ps(up + TILE));
        _mm512_store_si512(to, _mm512_permutexvar_epi16(turns, (__m512i)_mm512_cvtne2ps_pbh(other, one)));
    }
}

/* 32 outputs of up to 16 rows. */
INLINE void put_out(const struct many *t, int64_t output, int64_t tile, const float *first, const float *second)
{
    __m512i low[TILE], high[TILE];
    const int64_t row = tile * TILE, rows = t->rows - row < TILE ? t->rows - row : TILE;
#pragma GCC unroll 16
    for (int i = 0; i < TILE; i++)
        low[i] = _mm512_load_si512(first + i * TILE);
    turned_over(low);
#pragma GCC unroll 16
    for (int i = 0; i < TILE; i++)
        high[i] = _mm512_load_si512(second + i * TILE);
    turned_over(high);
#pragma GCC unroll 16
    for (int i = 0; i < TILE; i++)
        if (i < rows)
            _mm512_storeu_si512(t->out + (row + i) * t->outputs + output, (__m512i)_mm512_cvtne2ps_pbh((__m512)high[i], (__m512)low[i]));
}

/* `t->part` pairs of blocks, or what is left of them. */
static void many_part(const void *task, int64_t part)
{
    const struct many *const t = task;
    const int64_t blocks = t->outputs / TILE, apart = t->gated ? blocks / 2 : 1, step = t->gated ? 1 : 2;
    const int64_t end = (part + 1) * t->part, last = end < blocks / 2 ? end : blocks / 2, tiles = (t->rows + TILE - 1) / TILE;
    const int64_t block_size = TILE * t->inputs, passes = (tiles + 1) / 2;
    float products[PARTS][TILE * TILE] __attribute__((aligned(64)));
    configured(TILE);
    for (int64_t pair = part * t->part; pair < last; pair++) {
        const uint16_t *first = t->w + pair * step * block_size, *second = first + apart * block_size, *next[2 * TILE];
        const int64_t more = pair + 1 < blocks / 2 ? step * block_size : 0; /* the last one's own once more */
        for (int64_t tile = 0, pass = 0; tile < tiles; tile += 2, pass++) {
            int64_t count = 0; /* rows of one page in different passes: what fetches ahead by itself follows one in each */
            for (int64_t i = pass; i < 2 * TILE; i += passes)
                next[count++] = (i < TILE ? first : second) + more + i % TILE * t->inputs;
            const int both = tile + 1 < tiles;
            if (both)
                multiplied_many(t, first, second, tile, 1, next, count, products);
            else
                multiplied_many(t, first, second, tile, 0, next, count, products);
            for (int i = 0; i <= both; i++)
                if (t->gated)
                    gated_many(t, pair, tile + i, products[i], products[2 + i]);
                else
                    put_out(t, pair * 2 * TILE, tile + i, products[i], products[2 + i]);
        }
    }
    _tile_release();
}

#undef INLINE
