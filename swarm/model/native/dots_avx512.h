/* One group of a block of 64 outputs, for CPUs that know products of bytes (AVX-512 with VNNI and VBMI); see dots.h. */

#define INLINE static inline __attribute__((always_inline))

/* Where each byte of two inputs, 32 outputs' codes each, goes: pairs of one output's, of outputs 0 to 3 and 16 to 19 first. */
#define PAIRS(i) i, i + 32, i + 1, i + 33, i + 2, i + 34, i + 3, i + 35
static const uint8_t in_pairs[64] __attribute__((aligned(64)))
    = {PAIRS(0), PAIRS(16), PAIRS(4), PAIRS(20), PAIRS(8), PAIRS(24), PAIRS(12), PAIRS(28)};
#undef PAIRS

INLINE __m512i four_inputs(const int8_t *of)
{
    int32_t four;
    memcpy(&four, of, sizeof four);
    return _mm512_set1_epi32(four);
}

/* `count` rows from `row` on: a constant where this is called. */
INLINE void rows_avx512(const struct dots *t, const struct whole *w, int64_t block, int64_t g, int64_t row, int count,
                        float totals[MOST_DOT_ROWS][MOST_ROWS])
{
    const uint8_t *codes = t->codes + (block * t->inputs + g * t->group) * 32;
    const uint16_t *line = t->lines + 2 * (g * t->outputs + block * 64);
    const int64_t ahead = fetched_ahead[t->rows > 1];
    const __m512i order = _mm512_load_si512(in_pairs), mask = _mm512_set1_epi8(15);
    __m512i high[2][4], low[2][4];
#pragma GCC unroll 2
    for (int r = 0; r < count; r++)
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++)
            high[r][p] = low[r][p] = _mm512_setzero_si512();
    for (int64_t k = 0; k < t->group; k += 4, codes += 128) {
        _mm_prefetch((const char *)codes + ahead, _MM_HINT_T0);
        _mm_prefetch((const char *)codes + ahead + 64, _MM_HINT_T0);
        const __m512i first = _mm512_permutexvar_epi8(order, _mm512_loadu_si512(codes));
        const __m512i second = _mm512_permutexvar_epi8(order, _mm512_loadu_si512(codes + 64));
        const __m512i left = _mm512_unpacklo_epi16(first, second), right = _mm512_unpackhi_epi16(first, second);
        const __m512i q[4] = {_mm512_and_si512(left, mask), _mm512_and_si512(right, mask),
                              _mm512_and_si512(_mm512_srli_epi16(left, 4), mask), _mm512_and_si512(_mm512_srli_epi16(right, 4), mask)};
#pragma GCC unroll 2
        for (int r = 0; r < count; r++) {
            const int64_t at = (row + r) * t->inputs + g * t->group + k;
            const __m512i h = four_inputs(w->high + at), l = four_inputs(w->low + at);
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                high[r][p] = _mm512_dpbusd_epi32(high[r][p], q[p], h);
                low[r][p] = _mm512_dpbusd_epi32(low[r][p], q[p], l);
            }
        }
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        const __m512i both = _mm512_loadu_si512(line + 2 * LANES * p);
        const __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
        const __m512 zero = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000)));
#pragma GCC unroll 2
        for (int r = 0; r < count; r++) {
            const int64_t at = (row + r) * (t->inputs / t->group) + g;
            const __m512 sum = _mm512_set1_ps(w->sums[at]), s = _mm512_set1_ps(w->scales[at]);
            const __m512 dots = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high[r][p], 8), low[r][p]));
            const __m512 centred = _mm512_fmsub_ps(dots, s, _mm512_mul_ps(sum, _mm512_set1_ps(8)));
            float *total = totals[row + r] + LANES * p;
            _mm512_store_ps(total, _mm512_fmadd_ps(zero, sum, _mm512_fmadd_ps(scale, centred, _mm512_load_ps(total))));
        }
    }
}

INLINE void group_avx512(const struct dots *t, const struct whole *w, int64_t block, int64_t g,
                         float totals[MOST_DOT_ROWS][MOST_ROWS])
{
    int64_t row = 0;
    for (; row + 2 <= t->rows; row += 2)
        rows_avx512(t, w, block, g, row, 2, totals);
    if (row < t->rows)
        rows_avx512(t, w, block, g, row, 1, totals);
}

#undef INLINE
