/* What is told of a row's logits: the k best of them, and what the exponentials of all add up to. Included once for each kind of CPU, behind
   heads.h. A row is answered the same bits whatever rows are beside it, and however many threads there are.

   V: vocabulary */

#define INLINE static inline __attribute__((always_inline))
#define ABREAST (2 * WIDTH)
#define RANKED_TOGETHER 1024

typedef int16_t OF(ranks) __attribute__((vector_size(2 * ABREAST)));

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

/* e to the power of each logit less the largest, times a factor: what they add up to. */
static double OF(sum_of_powers)(const struct ranking *t, float largest, float factor)
{
    double total = 0;
    for (int64_t i = 0; i < t->vocab; i += RANKED_TOGETHER) { /* so few that nothing is lost in fp32 */
        floats sum = {0}, some;
        const int64_t left = least(t->vocab - i, RANKED_TOGETHER);
        for (int64_t j = 0; j < left; j += LANES) {
            uint16_t last[LANES];
            if (left - j < LANES) {
                for (int64_t k = 0; k < LANES; k++)
                    last[k] = j + k < left ? t->logits[i + j + k] : 0xff80; /* minus infinity */
                OF(read_lanes)(last, &some);
            } else {
                OF(read_lanes)(t->logits + i + j, &some);
            }
            some = (some - largest) * factor;
            OF(raised_below)(&some);
            sum += some;
        }
        total += OF(added_up)(&sum);
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
#undef RANKED_TOGETHER
#undef INLINE
