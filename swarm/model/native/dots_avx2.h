/* One group of a block of 32 or 64 outputs, for CPUs with AVX2; see dots.h. */

#define INLINE static inline __attribute__((always_inline))

enum { SAFE_INPUTS = 32 /* of 15 * 128 each, two of them and every fourth: what 16 bits hold */ };

/* Two inputs in each half of a vector. */
INLINE __m256i inputs_in_halves(const int8_t *of)
{
    int32_t four;
    memcpy(&four, of, sizeof four);
    return _mm256_shuffle_epi8(_mm256_set1_epi32(four), _mm256_setr_epi32(0x01000100, 0x01000100, 0x01000100, 0x01000100, 0x03020302,
                                                                          0x03020302, 0x03020302, 0x03020302));
}

/* Eight sums of 16 bits in each half, of one half's and the other's. */
INLINE __m256i halves_added(__m256i sums)
{
    return _mm256_add_epi32(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums)), _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums, 1)));
}

INLINE __m128i bytes_at(const uint8_t *from)
{
    return _mm_loadu_si128((const __m128i *)from);
}

/* Codes of 16 bytes an input times whole numbers: of the low halves' outputs 0 to 7, 8 to 15, then the high halves'. */
INLINE void column_avx2(const uint8_t *codes, int64_t stride, int64_t group, int64_t ahead, const int8_t *h, const int8_t *l, __m256i dots[4])
{
    const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++)
        dots[p] = _mm256_setzero_si256();
    for (int64_t first = 0; first < group; first += SAFE_INPUTS) {
        __m256i high[4], low[4];
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++)
            high[p] = low[p] = _mm256_setzero_si256();
        for (int64_t k = first; k < first + SAFE_INPUTS; k += 4, codes += 4 * stride) {
            _mm_prefetch((const char *)codes + ahead, _MM_HINT_T0);
            const __m256i even = _mm256_set_m128i(bytes_at(codes + 2 * stride), bytes_at(codes));
            const __m256i odd = _mm256_set_m128i(bytes_at(codes + 3 * stride), bytes_at(codes + stride));
            const __m256i left = _mm256_unpacklo_epi8(even, odd), right = _mm256_unpackhi_epi8(even, odd);
            const __m256i q[4] = {_mm256_and_si256(left, mask), _mm256_and_si256(right, mask),
                                  _mm256_and_si256(_mm256_srli_epi16(left, 4), mask), _mm256_and_si256(_mm256_srli_epi16(right, 4), mask)};
            const __m256i xh = inputs_in_halves(h + k), xl = inputs_in_halves(l + k);
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                high[p] = _mm256_add_epi16(high[p], _mm256_maddubs_epi16(q[p], xh));
                low[p] = _mm256_add_epi16(low[p], _mm256_maddubs_epi16(q[p], xl));
            }
        }
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++)
            dots[p] = _mm256_add_epi32(dots[p], _mm256_add_epi32(_mm256_slli_epi32(halves_added(high[p]), 8), halves_added(low[p])));
    }
}

INLINE void group_avx2(const struct dots *t, const struct whole *w, int64_t block, int64_t g, float totals[MOST_DOT_ROWS][MOST_ROWS])
{
    const int64_t half = t->height / 2, inputs = block * t->inputs + g * t->group;
    for (int64_t r = 0; r < t->rows; r++) {
        const int64_t x = r * t->inputs + g * t->group, at = r * (t->inputs / t->group) + g;
        const __m256 sum = _mm256_set1_ps(w->sums[at]), s = _mm256_set1_ps(w->scales[at]), eight = _mm256_set1_ps(8);
        for (int64_t v = 0; v < half; v += LANES) {
            __m256i dots[4];
            column_avx2(t->codes + inputs * half + v, half, t->group, fetched_ahead[t->rows > 1], w->high + x, w->low + x, dots);
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                const int64_t j = v + (p & 1) * 8 + (p >> 1) * half;
                const __m256i both = _mm256_loadu_si256((const __m256i *)(t->lines + 2 * (g * t->outputs + block * t->height + j)));
                const __m256 scale = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
                const __m256 zero = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000)));
                const __m256 centred = _mm256_fmsub_ps(_mm256_cvtepi32_ps(dots[p]), s, _mm256_mul_ps(sum, eight));
                float *total = totals[r] + j;
                _mm256_store_ps(total, _mm256_fmadd_ps(zero, sum, _mm256_fmadd_ps(scale, centred, _mm256_load_ps(total))));
            }
        }
    }
}

#undef INLINE
