/* Two inputs of 32 outputs of a block of 32 or 64, as words, for CPUs with AVX2; see dots.h. */

#define INLINE static inline __attribute__((always_inline))

INLINE __m128i bytes_at(const uint8_t *from)
{
    return _mm_loadu_si128((const __m128i *)from);
}

INLINE __m256i two_inputs(const uint8_t *codes, int64_t stride)
{
    return _mm256_set_m128i(bytes_at(codes + stride), bytes_at(codes));
}

/* 16 bytes of each of two inputs: a word is two outputs', 8 apart, of one input. */
INLINE __m256i in_pairs_avx2(__m256i two)
{
    const __m256i quarters = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i in_pairs = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm256_shuffle_epi8(_mm256_permutevar8x32_epi32(two, quarters), in_pairs);
}

INLINE void unpacked_avx2(const uint8_t *codes, int64_t stride, __m256i q[4])
{
    const __m256i low = _mm256_set1_epi16(0x0f), high = _mm256_set1_epi16(0xf0);
    const __m256i first = in_pairs_avx2(two_inputs(codes, stride)), second = _mm256_srli_epi16(first, 8);
    q[0] = _mm256_and_si256(first, low);
    q[1] = _mm256_and_si256(second, low);
    q[2] = _mm256_and_si256(first, high);
    q[3] = _mm256_and_si256(second, high);
}

/* Of two planes: 16 times the one and the other. */
INLINE void joined_avx2(const uint8_t *codes, const uint8_t *second, int64_t stride, __m256i q[4])
{
    const __m256i byte = _mm256_set1_epi16(0xff), low = _mm256_set1_epi8(0x0f);
    const __m256i one = two_inputs(codes, stride), other = two_inputs(second, stride);
    const __m256i first = _mm256_or_si256(_mm256_andnot_si256(low, _mm256_slli_epi16(one, 4)), _mm256_and_si256(other, low));
    const __m256i last = _mm256_or_si256(_mm256_andnot_si256(low, one), _mm256_and_si256(_mm256_srli_epi16(other, 4), low));
    const __m256i below = in_pairs_avx2(first), above = in_pairs_avx2(last);
    q[0] = _mm256_and_si256(below, byte);
    q[1] = _mm256_srli_epi16(below, 8);
    q[2] = _mm256_and_si256(above, byte);
    q[3] = _mm256_srli_epi16(above, 8);
}

#define TOGETHER 2
#define COUNTS ROWS(1) ROWS(2)
#define WHOLES __m256i
#define UNPACKED unpacked_avx2
#define UNPACKED_BOTH joined_avx2
#define BOTH _mm256_set1_epi32
/* As intrinsics, GCC 12 has sums change places at every step, and go through memory. */
#define JOIN_PAIRS(sums, q, x)                                                                                                 \
    do {                                                                                                                       \
        __m256i products;                                                                                                      \
        __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+x"(sums), "=&x"(products) : "x"(q), "x"(x));                    \
    } while (0)
#define NUMBERS_OF _mm256_cvtepi32_ps
#define ALL _mm256_set1_ps

#undef INLINE
