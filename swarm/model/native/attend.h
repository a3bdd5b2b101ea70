/* Attention of many rows of one Session on CPUs that multiply bf16 in pairs, or have a matrix unit for it (AMX; after many.h): softmax of scaled
   products, each row over all positions up to its own. The scores of 32 rows of a head are kept whole, in a core's own cache.

   n: rows   P: positions   NH: heads   KV: key-value heads   D: head_dim, a multiple of 32 */

#define INLINE static inline __attribute__((always_inline))

struct queries {
    int64_t rows, heads, kv_heads, head_dim, position, positions; /* `position`: of the first row; P: of the last one, and one more */
    int64_t row_step, key_step, value_step;                       /* numbers from a row, or a position, to the next */
    float scale, reserved;
    const uint16_t *q;            /* bf16 [n, NH, D] */
    const uint16_t *keys, *values; /* bf16 [P, KV, D] */
    uint32_t *keys_first;          /* [KV, P / 16, D / 32, 16 pairs of D, 16 positions], P rounded up to 32 */
    uint16_t *values_first;        /* [KV, P / 32, D / 16, 16 pairs of positions, 16 of D, 2], P as above */
    uint16_t *out;                 /* bf16 [n, NH, D] */
};

enum { QUERIES = 2 * TILE, PAIRED_ROWS = 8 };

/* 32 positions of a key-value head, as tiles. */
static void keys_begun(const void *queries, int64_t part)
{
    const struct queries *const t = queries;
    const int64_t d = t->head_dim, spans = (t->positions + 2 * TILE - 1) / (2 * TILE), head = part / spans, at = part % spans * 2 * TILE;
    const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                                           17, 1, 16, 0);
    uint32_t *key = t->keys_first + part * TILE * d;
    for (int64_t span = at; span < at + 2 * TILE; span += TILE)
        for (int64_t k = 0; k < d; k += TILE_INPUTS, key += TILE * TILE) {
            __m512i r[TILE];
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++)
                r[i] = span + i < t->positions ? _mm512_loadu_si512(t->keys + (span + i) * t->key_step + head * d + k) : _mm512_setzero_si512();
            turned_over(r);
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++)
                _mm512_store_si512(key + i * TILE, r[i]);
        }
    uint16_t *value = t->values_first + part * 2 * TILE * d;
    for (int64_t k = 0; k < d; k += TILE)
        for (int64_t i = at; i < at + 2 * TILE; i += 2, value += 2 * TILE) {
            const uint16_t *from = t->values + i * t->value_step + head * d + k;
            const __m256i none = _mm256_setzero_si256();
            const __m256i one = i < t->positions ? _mm256_loadu_si256((const __m256i *)from) : none;
            const __m256i other = i + 1 < t->positions ? _mm256_loadu_si256((const __m256i *)(from + t->value_step)) : none;
            _mm512_store_si512(value, _mm512_permutexvar_epi16(turns, _mm512_inserti64x4(_mm512_castsi256_si512(one), other, 1)));
        }
}

/* e to the power of each of 16 scores, as bf16, after the `factor` and less the `highest`; what they sum up to grows. */
INLINE void weighed_lanes(const float *scores, __mmask16 some, __m512 factor, __m512 highest, __m512 *sum, uint16_t *weights)
{
    const __m512 power = _mm512_fmsub_ps(_mm512_load_ps(scores), factor, highest);
    const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(power, whole);
    __m512 y = _mm512_fmadd_ps(r, _mm512_set1_ps(9.618437357674640e-3f), _mm512_set1_ps(5.550332471162809e-2f)); /* to 5e-5: bf16 keeps less */
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(2.402264791363012e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(6.931472028550421e-1f));
    y = _mm512_maskz_scalef_ps(some, _mm512_fmadd_ps(y, r, _mm512_set1_ps(1)), whole);
    *sum = _mm512_add_ps(*sum, y);
    _mm256_store_si256((__m256i *)weights, (__m256i)_mm512_cvtneps_pbh(y));
}

/* A row's `seen` scores of `count` to what its values count for, not yet divided by what is answered. */
INLINE float weighed_row(const float *scores, int64_t seen, int64_t count, float scale, uint16_t *weights)
{
    const int64_t whole = seen / (2 * TILE) * 2 * TILE;
    __m512 most = _mm512_set1_ps(-3e38f), other = most, sum = _mm512_setzero_ps(), second = sum;
    for (int64_t k = 0; k < whole; k += 2 * TILE) {
        most = _mm512_max_ps(most, _mm512_load_ps(scores + k));
        other = _mm512_max_ps(other, _mm512_load_ps(scores + k + TILE));
    }
    const int64_t left = seen - whole; /* up to 31: in two vectors, the first whole where there are so many */
    const __mmask16 low = left < TILE ? (1 << left) - 1 : 0xffff, high = left < TILE ? 0 : (1 << (left - TILE)) - 1;
    if (left) {
        most = _mm512_mask_max_ps(most, low, most, _mm512_load_ps(scores + whole));
        other = _mm512_mask_max_ps(other, high, other, _mm512_load_ps(scores + whole + TILE));
    }
    const float raised = scale * 1.44269504f;
    const __m512 factor = _mm512_set1_ps(raised), highest = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(most, other)) * raised);
    for (int64_t k = 0; k < count; k += 2 * TILE) {
        const __mmask16 all = k < whole ? 0xffff : 0, first = k == whole ? low : all, last = k == whole ? high : all;
        weighed_lanes(scores + k, first, factor, highest, &sum, weights + k);
        weighed_lanes(scores + k + TILE, last, factor, highest, &second, weights + k + TILE);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(sum, second));
}

/* 32 rows of a head, and what they see. */
struct asking {
    int64_t head, row, rows, count; /* positions, rounded up to 32 */
    const uint32_t *key;
    const uint16_t *value;
};

INLINE struct asking asking_of(const struct queries *t, int64_t part)
{
    const int64_t blocks = (t->rows + QUERIES - 1) / QUERIES, head = part / blocks, row = (blocks - 1 - part % blocks) * QUERIES;
    const int64_t rows = t->rows - row < QUERIES ? t->rows - row : QUERIES, of = head / (t->heads / t->kv_heads);
    const int64_t kept = (t->positions + 2 * TILE - 1) / (2 * TILE) * 2 * TILE * t->head_dim;
    const int64_t count = (t->position + row + rows + 2 * TILE - 1) / (2 * TILE) * 2 * TILE;
    return (struct asking){head, row, rows, count, t->keys_first + of * kept / 2, t->values_first + of * kept};
}

INLINE void weighed_rows(const struct queries *t, const struct asking *a, const float *scores, uint16_t *weights, float *sums)
{
    for (int64_t i = 0; i < a->rows; i++)
        sums[i] = weighed_row(scores + i * a->count, t->position + a->row + i + 1, a->count, t->scale, weights + i * a->count);
}

/* 32 numbers of a row's answer. */
INLINE void answered(const struct queries *t, const struct asking *a, int64_t i, int64_t k, __m512 low, __m512 high, float sum)
{
    const __m512 share = _mm512_set1_ps(1 / sum);
    uint16_t *const to = t->out + ((a->row + i) * t->heads + a->head) * t->head_dim + k;
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(high, share), _mm512_mul_ps(low, share)));
}

/* `asking_of` a part, on the matrix unit. */
static void attended_by_tiles(const void *queries, int64_t part)
{
    const struct queries *const t = queries;
    const struct asking a = asking_of(t, part);
    const int64_t d = t->head_dim, count = a.count, both = a.rows > TILE;
    const uint32_t *key = a.key;
    uint16_t q[QUERIES * d] __attribute__((aligned(64))), weights[QUERIES * count] __attribute__((aligned(64)));
    float scores[QUERIES * count] __attribute__((aligned(64))), sums[QUERIES], products[PARTS][TILE * TILE] __attribute__((aligned(64)));
    for (int64_t i = 0; i < QUERIES; i++)
        memcpy(q + i * d, t->q + (a.row + (i < a.rows ? i : 0)) * t->row_step + a.head * d, d * sizeof *q);
    configured(TILE);
    for (int64_t at = 0; at < count; at += 2 * TILE, key += TILE * d) {
        begun();
        for (int64_t k = 0; k < d; k += TILE_INPUTS) {
            _tile_loadd(4, q + k, 2 * d);
            _tile_loadd(6, key + k / 2 * TILE, 4 * TILE);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, key + (d + k) / 2 * TILE, 4 * TILE);
            _tile_dpbf16ps(1, 4, 7);
            if (both) {
                _tile_loadd(5, q + TILE * d + k, 2 * d);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, scores + at, 4 * count);
        _tile_stored(1, scores + at + TILE, 4 * count);
        if (both) {
            _tile_stored(2, scores + TILE * count + at, 4 * count);
            _tile_stored(3, scores + TILE * count + at + TILE, 4 * count);
        }
    }
    weighed_rows(t, &a, scores, weights, sums);
    memset(weights + a.rows * count, 0, ((both ? QUERIES : TILE) - a.rows) * count * sizeof *weights);
    for (int64_t k = 0; k < d; k += 2 * TILE) {
        const uint16_t *some = a.value + k * 2 * TILE;
        begun();
        for (int64_t at = 0; at < count; at += 2 * TILE, some += 2 * TILE * d) {
            _tile_loadd(4, weights + at, 2 * count);
            _tile_loadd(6, some, 4 * TILE);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, some + 2 * TILE * TILE, 4 * TILE);
            _tile_dpbf16ps(1, 4, 7);
            if (both) {
                _tile_loadd(5, weights + TILE * count + at, 2 * count);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        ended(products);
        for (int64_t i = 0; i < a.rows; i++) {
            const float *from = products[i / TILE * 2] + i % TILE * TILE;
            answered(t, &a, i, k, _mm512_load_ps(from), _mm512_load_ps(from + TILE * TILE), sums[i]);
        }
    }
    _tile_release();
}

/* Sums over `pairs` of what some rows have, two numbers each, times what two vectors of lanes have of them. */
INLINE void pairs_added(const uint16_t *const rows[PAIRED_ROWS], const void *first, const void *second, int64_t pairs, __m512 sums[PAIRED_ROWS][2])
{
    for (int64_t p = 0; p < pairs; p++) {
        const __m512bh low = (__m512bh)_mm512_load_si512((const __m512i *)first + p), high = (__m512bh)_mm512_load_si512((const __m512i *)second + p);
#pragma GCC unroll 8
        for (int i = 0; i < PAIRED_ROWS; i++) {
            int32_t both;
            memcpy(&both, rows[i] + 2 * p, sizeof both);
            const __m512bh x = (__m512bh)_mm512_set1_epi32(both);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], low, x);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], high, x);
        }
    }
}

/* `asking_of` a part, by products of pairs: of lanes that are positions, then of lanes that are what is answered. */
static void attended_by_pairs(const void *queries, int64_t part)
{
    const struct queries *const t = queries;
    const struct asking a = asking_of(t, part);
    const int64_t d = t->head_dim, count = a.count;
    uint16_t weights[QUERIES * count] __attribute__((aligned(64)));
    float scores[QUERIES * count] __attribute__((aligned(64))), sums[QUERIES];
    const uint16_t *from[PAIRED_ROWS];
    for (int64_t at = 0; at < count; at += 2 * TILE)
        for (int64_t row = 0; row < a.rows; row += PAIRED_ROWS) {
            __m512 products[PAIRED_ROWS][2] = {{{0}}};
            for (int64_t i = 0; i < PAIRED_ROWS; i++)
                from[i] = t->q + (a.row + (row + i < a.rows ? row + i : row)) * t->row_step + a.head * d;
            pairs_added(from, a.key + at / 2 * d, a.key + (at + TILE) / 2 * d, d / 2, products);
            for (int64_t i = 0; i < PAIRED_ROWS; i++) {
                _mm512_store_ps(scores + (row + i) * count + at, products[i][0]);
                _mm512_store_ps(scores + (row + i) * count + at + TILE, products[i][1]);
            }
        }
    weighed_rows(t, &a, scores, weights, sums);
    for (int64_t row = 0; row < a.rows; row += PAIRED_ROWS)
        for (int64_t k = 0; k < d; k += 2 * TILE) {
            __m512 products[PAIRED_ROWS][2] = {{{0}}};
            for (int64_t at = 0; at < count; at += 2 * TILE) {
                const uint16_t *const value = a.value + at * d + k * 2 * TILE;
                for (int64_t i = 0; i < PAIRED_ROWS; i++)
                    from[i] = weights + (row + i < a.rows ? row + i : row) * count + at;
                pairs_added(from, value, value + 2 * TILE * TILE, TILE, products);
            }
            for (int64_t i = row; i < row + PAIRED_ROWS && i < a.rows; i++)
                answered(t, &a, i, k, products[i - row][0], products[i - row][1], sums[i]);
        }
}

#undef INLINE
