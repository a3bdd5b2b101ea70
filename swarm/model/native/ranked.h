/* What is told of a row's logits: the k best of them, and what the exponentials of all add up to. Included once for each kind of CPU, behind
   heads.h. A row is answered the same bits whatever rows are beside it, and however many threads there are.

   V: vocabulary */

#define INLINE static inline __attribute__((always_inline))
#define ABREAST (2 * WIDTH)
#define RANKED_TOGETHER 1024

#if WIDTH == 16
#define LARGER _mm512_max_ps
#else
#define LARGER _mm256_max_ps
#endif

typedef int16_t OF(ranks) __attribute__((vector_size(2 * ABREAST)));
typedef uint32_t OF(exponents) __attribute__((vector_size(4 * WIDTH)));

/* `ABREAST` logits as `rank_of` has them. */
INLINE OF(ranks) OF(ranks_of)(const uint16_t *logits)
{
    OF(ranks) bits;
    memcpy(&bits, logits, sizeof bits);
    const OF(ranks) sign = bits >> 15;
    return ((bits & INT16_MAX) ^ sign) - sign;
}

/* Which of `ABREAST` logits, or of the `left` ones, rank at `lowest` or above: a bit each. */
INLINE uint32_t OF(which_from)(const uint16_t *logits, int64_t left, int16_t lowest)
{
    uint16_t some[ABREAST] = {0};
    if (left < ABREAST)
        logits = memcpy(some, logits, left * sizeof *logits);
    const OF(ranks) ranks = OF(ranks_of)(logits), from = (OF(ranks)){0} + lowest;
#if WIDTH == 16
    const uint32_t which = _mm512_cmpge_epi16_mask((__m512i)ranks, (__m512i)from);
#else
    const __m256i are = (__m256i)(ranks >= from);
    const uint32_t which = _mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(are), _mm256_extracti128_si256(are, 1)));
#endif
    return left < ABREAST ? which & ((1u << left) - 1) : which;
}

static int64_t OF(count_from)(const struct ranking *t, int16_t lowest)
{
    int64_t count = 0;
    for (int64_t i = 0; i < t->vocab; i += ABREAST)
        count += __builtin_popcount(OF(which_from)(t->logits + i, t->vocab - i, lowest));
    return count;
}

static int16_t OF(highest)(const struct ranking *t)
{
    OF(ranks) most = (OF(ranks)){0} + INT16_MIN;
    int16_t rank = INT16_MIN;
    int64_t i = 0;
    for (; i + ABREAST <= t->vocab; i += ABREAST) {
        const OF(ranks) some = OF(ranks_of)(t->logits + i), higher = some > most;
        most = (some & higher) | (most & ~higher);
    }
    for (int j = 0; j < ABREAST; j++)
        rank = most[j] > rank ? most[j] : rank;
    for (; i < t->vocab; i++)
        rank = rank_of(t->logits[i]) > rank ? rank_of(t->logits[i]) : rank;
    return rank;
}

/* The k best logits, best first, and of equal ones the first; none ranks above `highest`. */
static void OF(find_best)(const struct ranking *t, int16_t highest)
{
    int32_t last = INT16_MIN; /* as high as can be, so that k rank there or above */
    for (int32_t step = 1 << 15; step; step /= 2)
        if (last + step <= highest && OF(count_from)(t, last + step) >= t->k)
            last += step;
    int64_t count = 0, equal = last < highest ? OF(count_from)(t, last + 1) : 0;
    for (int64_t i = 0; i < t->vocab; i += ABREAST)
        for (uint32_t which = OF(which_from)(t->logits + i, t->vocab - i, last); which; which &= which - 1) {
            const int64_t id = i + __builtin_ctz(which);
            const int16_t rank = rank_of(t->logits[id]);
            if (rank == last && equal < t->k)
                t->ids[equal++] = id;
            if (rank == last)
                continue;
            int64_t at = count++;
            for (; at && rank_of(t->logits[t->ids[at - 1]]) < rank; at--)
                t->ids[at] = t->ids[at - 1];
            t->ids[at] = id;
        }
    for (int64_t i = 0; i < t->k; i++)
        t->best[i] = WIDENED(t->logits[t->ids[i]]);
}

/* e to the power of what is at most 0, or of -60, which counts nothing beside 1. What is no number stays none. As dots.h has it, but for how it is
   rounded in between. */
INLINE NUMBERS OF(power_of)(NUMBERS x)
{
    const NUMBERS nearest = NOTHING + 12582912.0f;
    x = LARGER(NOTHING - 60, x);
    const NUMBERS shifted = JOINED(x, NOTHING + 1.44269504f, nearest), whole = shifted - nearest;
    const NUMBERS r = JOINED(whole, NOTHING + 2.12194440e-4f, JOINED(whole, NOTHING - 0.693359375f, x));
    NUMBERS y = JOINED(NOTHING + 1.9875691500e-4f, r, NOTHING + 1.3981999507e-3f);
    y = JOINED(y, r, NOTHING + 8.3334519073e-3f);
    y = JOINED(y, r, NOTHING + 4.1665795894e-2f);
    y = JOINED(y, r, NOTHING + 1.6666665459e-1f);
    y = JOINED(y, r, NOTHING + 5.0000001201e-1f);
    return (JOINED(y, r * r, r) + 1) * (NUMBERS)(((OF(exponents))shifted << 23) + (127 << 23));
}

/* e to the power of each logit less the largest, times a factor: what they add up to. */
static double OF(sum_of_powers)(const struct ranking *t, float largest, float factor)
{
    double total = 0;
    for (int64_t i = 0; i < t->vocab; i += RANKED_TOGETHER) { /* so few that nothing is lost in fp32 */
        NUMBERS sums[LANES / WIDTH];
        float lanes[LANES];
        const int64_t left = least(t->vocab - i, RANKED_TOGETHER);
        for (int p = 0; p < LANES / WIDTH; p++)
            sums[p] = NOTHING;
        for (int64_t j = 0; j < left; j += LANES) {
            const uint16_t *logits = t->logits + i + j;
            uint16_t some[LANES];
            if (left - j < LANES) {
                for (int64_t k = 0; k < LANES; k++)
                    some[k] = k < left - j ? logits[k] : 0xff80; /* minus infinity */
                logits = some;
            }
#pragma GCC unroll 2
            for (int p = 0; p < LANES / WIDTH; p++)
                sums[p] += OF(power_of)((WIDENED_BF16(logits + p * WIDTH) - largest) * factor);
        }
        memcpy(lanes, sums, sizeof lanes);
        float sum = 0;
        for (int k = 0; k < LANES; k++)
            sum += lanes[k];
        total += sum;
    }
    return total;
}

static void OF(ranked)(const void *rankings, int64_t row)
{
    const struct ranking *const t = (const struct ranking *)rankings + row;
    const int16_t highest = OF(highest)(t);
    const float largest = WIDENED(highest < 0 ? 0x8000 - highest : highest);
    t->sums[0] = largest;
    t->sums[1] = OF(sum_of_powers)(t, largest, 1);
    t->sums[2] = t->factor == 1 ? t->sums[1] : OF(sum_of_powers)(t, largest, t->factor);
    if (t->k)
        OF(find_best)(t, highest);
}

#undef ABREAST
#undef LARGER
#undef RANKED_TOGETHER
#undef INLINE
