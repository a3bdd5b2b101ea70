/* Two inputs of a block of 64 outputs, as words, for CPUs that know products of pairs (AVX-512 with VNNI and VBMI); see dots.h. */

#define INLINE static inline __attribute__((always_inline))

/* Where the codes of two inputs, 32 bytes each, go: two outputs', 16 apart, of the one input, then of the other. */
#define PAIR(i) i, i + 16, i + 32, i + 48
static const uint8_t in_pairs[64] __attribute__((aligned(64)))
    = {PAIR(0), PAIR(1), PAIR(2), PAIR(3), PAIR(4), PAIR(5), PAIR(6), PAIR(7),
       PAIR(8), PAIR(9), PAIR(10), PAIR(11), PAIR(12), PAIR(13), PAIR(14), PAIR(15)};
#undef PAIR

INLINE void unpacked_avx512(const uint8_t *codes, int64_t stride, __m512i q[4])
{
    (void)stride; /* the other input follows */
    const __m512i low = _mm512_set1_epi16(0x0f), high = _mm512_set1_epi16(0xf0);
    const __m512i first = _mm512_permutexvar_epi8(_mm512_load_si512(in_pairs), _mm512_loadu_si512(codes)), second = _mm512_srli_epi16(first, 8);
    q[0] = _mm512_and_si512(first, low);
    q[1] = _mm512_and_si512(second, low);
    q[2] = _mm512_and_si512(first, high);
    q[3] = _mm512_and_si512(second, high);
}

/* Of two planes: 16 times the one and the other. */
INLINE void joined_avx512(const uint8_t *codes, const uint8_t *second, int64_t stride, __m512i q[4])
{
    (void)stride;
    const __m512i order = _mm512_load_si512(in_pairs), byte = _mm512_set1_epi16(0xff), high = _mm512_set1_epi8((char)0xf0);
    const __m512i one = _mm512_loadu_si512(codes), other = _mm512_loadu_si512(second);
    const __m512i first = _mm512_ternarylogic_epi32(high, _mm512_slli_epi16(one, 4), other, 0xca); /* by bits: where high has one, else */
    const __m512i last = _mm512_ternarylogic_epi32(high, one, _mm512_srli_epi16(other, 4), 0xca);
    const __m512i low = _mm512_permutexvar_epi8(order, first), above = _mm512_permutexvar_epi8(order, last);
    q[0] = _mm512_and_si512(low, byte);
    q[1] = _mm512_srli_epi16(low, 8);
    q[2] = _mm512_and_si512(above, byte);
    q[3] = _mm512_srli_epi16(above, 8);
}

#define TOGETHER 6
#define COUNTS ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#define WHOLES __m512i
#define UNPACKED unpacked_avx512
#define UNPACKED_BOTH joined_avx512
#define BOTH _mm512_set1_epi32
/* As an intrinsic, GCC 12 has sums change places at every step. */
#define JOIN_PAIRS(sums, q, x) __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(q), "v"(x))
#define NUMBERS_OF _mm512_cvtepi32_ps
#define ALL _mm512_set1_ps

#undef INLINE
