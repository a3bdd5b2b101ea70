/* Weights and rows as products of pairs of bf16 take them (AVX512-BF16), for several.h: numbers of bf16 as they lie, codes of 8 bits as the
   numbers of bf16 that they are, which 8 bits of precision hold. */

#define INLINE static inline __attribute__((always_inline))

/* The bytes of bf16 by the lower 7 bits of a code, or of how large it is: the low ones of 0 to 128, the high ones of 0 to 127 and of -128 to -1. */
static const struct {
    uint8_t low[128], above[128], below[128];
} OF_CODES = {
    .low = {
        0, 128, 0, 64, 128, 160, 192, 224, 0, 16, 32, 48, 64, 80, 96, 112,
        128, 136, 144, 152, 160, 168, 176, 184, 192, 200, 208, 216, 224, 232, 240, 248,
        0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60,
        64, 68, 72, 76, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116, 120, 124,
        128, 130, 132, 134, 136, 138, 140, 142, 144, 146, 148, 150, 152, 154, 156, 158,
        160, 162, 164, 166, 168, 170, 172, 174, 176, 178, 180, 182, 184, 186, 188, 190,
        192, 194, 196, 198, 200, 202, 204, 206, 208, 210, 212, 214, 216, 218, 220, 222,
        224, 226, 228, 230, 232, 234, 236, 238, 240, 242, 244, 246, 248, 250, 252, 254,
    },
    .above = {
        0, 63, 64, 64, 64, 64, 64, 64, 65, 65, 65, 65, 65, 65, 65, 65,
        65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65,
        66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66,
        66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66,
        66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66,
        66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66,
        66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66,
        66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66,
    },
    .below = {
        195, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194,
        194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194,
        194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194,
        194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194,
        194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194,
        194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194, 194,
        194, 193, 193, 193, 193, 193, 193, 193, 193, 193, 193, 193, 193, 193, 193, 193,
        193, 193, 193, 193, 193, 193, 193, 193, 193, 192, 192, 192, 192, 192, 192, 191,
    },
};

/* 64 codes: of each 16 the first 8, then the last. */
INLINE void numbers_of(__m512i codes, __m512i to[2])
{
    const __m512i size = _mm512_abs_epi8(codes);
    const __m512i low = _mm512_permutex2var_epi8(_mm512_loadu_si512(OF_CODES.low), size, _mm512_loadu_si512(OF_CODES.low + 64));
    const __m512i above = _mm512_permutex2var_epi8(_mm512_loadu_si512(OF_CODES.above), codes, _mm512_loadu_si512(OF_CODES.above + 64));
    const __m512i below = _mm512_permutex2var_epi8(_mm512_loadu_si512(OF_CODES.below), codes, _mm512_loadu_si512(OF_CODES.below + 64));
    const __m512i high = _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), above, below);
    to[0] = _mm512_unpacklo_epi8(low, high);
    to[1] = _mm512_unpackhi_epi8(low, high);
}

/* One half of 64 inputs; of codes both, with the first. */
INLINE void paired_weight(const int form, const char *at, const int half, __m512i to[2])
{
    if (form == OF_BF16)
        to[half] = _mm512_loadu_si512(at + 64 * half);
    else if (half == 0)
        numbers_of(_mm512_loadu_si512(at), to);
}

/* One half of 64 inputs, in the order of `numbers_of` where they meet codes. */
INLINE __m512i paired_row(const uint16_t *x, const int half, int codes)
{
    const __m512i first = _mm512_loadu_si512(x), second = _mm512_loadu_si512(x + 32);
    if (codes)
        return half ? _mm512_shuffle_i32x4(first, second, 0xdd) : _mm512_shuffle_i32x4(first, second, 0x88);
    return half ? second : first;
}

#undef INLINE
