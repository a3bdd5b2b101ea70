/* Rows times a matrix in 4 bits, by products of whole numbers. Included once for each kind of CPU, whose name `OF` puts behind a
   function's; `WHOLES`, `NUMBERS` and what is done to them are that kind's vectors, of `WIDTH` lanes (one.h, dots_avx2.h, dots_avx512.h).
   Lanes are outputs: nothing is summed across them. High halves of bytes stay where they are, and count 16 times.

   Of each group of a row, the inputs are whole numbers of 16 bits times a scale, where bf16 has 8: `x = s i`. What they are multiplied with are the
   codes themselves, which add up exactly: `scale * (s * sum(q i) - 8 * sum(x)) + zero * sum(x)`, in fp32 from there, rounded once. So a row's
   answer is the same whatever rows are beside it.

   Two planes of 4 bits are codes of 8, whose lines count as planes.py has it: `scale * (s * sum(q i) - 136 * sum(x)) + 17 * zero * sum(x)`.

   n: rows   K: inputs   N: outputs   G: groups of a row   S: shares of the groups   b: blocks of `height` outputs */

#define INLINE static inline __attribute__((always_inline))
#define TO_NEAREST 12582912.0f /* 1.5 * 2^23: a float that large has no fraction */

INLINE float OF(largest)(const words *bits)
{
    uint32_t most = 0;
    for (int i = 0; i < LANES; i++)
        most = (*bits)[i] > most ? (*bits)[i] : most;
    return ((union { uint32_t bits; float number; }){.bits = most}).number; /* not a number, where one of them is not */
}

/* `WHOLE_ROWS` rows, or what is left of them. */
static void OF(in_whole_numbers)(const void *task, int64_t part)
{
    const struct dots *const t = task;
    const int64_t groups = t->inputs / t->group, end = (part + 1) * WHOLE_ROWS, last = end < t->rows ? end : t->rows;
    for (int64_t r = part * WHOLE_ROWS; r < last; r++)
        for (int64_t g = 0; g < groups; g++) {
            const uint16_t *x = t->x + r * t->inputs + g * t->group;
            const int64_t at = g * t->rows + r;
            words most = {0};
            floats sum = {0};
            float total = 0;
            for (int64_t k = 0; k < t->group; k += LANES) {
                shorts some;
                memcpy(&some, x + k, sizeof some);
                const words bits = __builtin_convertvector(some, words) << 16, size = bits & 0x7fffffff;
                const words larger = (words)(size > most);
                most = (size & larger) | (most & ~larger);
                sum += (floats)bits;
            }
            for (int i = 0; i < LANES; i++)
                total += sum[i];
            const float largest = OF(largest)(&most), scale = largest < 1e-30f ? 0 : largest / MOST_WHOLE;
            const float parts = largest < 1e-30f ? 0 : MOST_WHOLE / largest;
            t->whole.scales[at] = scale;
            t->whole.sums[at] = total;
            for (int64_t k = 0; k < t->group; k += LANES) {
                shorts some;
                memcpy(&some, x + k, sizeof some);
                const floats number = (floats)(__builtin_convertvector(some, words) << 16) * parts + TO_NEAREST;
                const shorts whole = __builtin_convertvector((words)number - 0x4b400000, shorts);
                memcpy(t->whole.numbers + at * t->group + k, &whole, sizeof whole);
            }
        }
}

/* A group's scales and zeros. */
INLINE const uint16_t *OF(line_of)(const struct dots *t, int64_t g)
{
    const int64_t groups = t->inputs / t->group;
    return t->lines + 2 * t->outputs * (t->shares > 1 ? g % t->shares * (groups / t->shares) + g / t->shares : g);
}

/* A group of four vectors of a block's outputs, from `column` on among the low halves and among the high ones, times `count` rows: a constant where this
   is called, like whether codes are unpacked here, kept for the rows that come after, and of both planes. */
INLINE void OF(rows_of_group)(const struct dots *t, int64_t block, int64_t g, int64_t column, int64_t row, int count, int unpacks,
                              int keeps, int both, WHOLES *kept, float totals[][MOST_ROWS])
{
    const int64_t half = t->height / 2, first = g * t->rows + row;
    const int64_t from = (block * t->inputs + g * t->group) * half + column, outputs = 2 * (block * t->height + column);
    const uint8_t *codes = t->codes + from, *second = both && unpacks ? t->second + from : codes;
    const uint16_t *line = OF(line_of)(t, g) + outputs;
    const int16_t *x = t->whole.numbers + first * t->group;
    const int64_t far = count == 1 && t->rows == 1 && unpacks && !both ? fetched_far : 0;
    WHOLES sums[TOGETHER][4];
#pragma GCC unroll 6
    for (int r = 0; r < count; r++)
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++)
            sums[r][p] = (WHOLES){0};
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++)
        if (unpacks) /* the next group's lie elsewhere */
            _mm_prefetch((const char *)(OF(line_of)(t, g + 1) + outputs + 2 * (p % 2 * WIDTH + p / 2 * half)), _MM_HINT_T0);
    for (int64_t k = 0; k < t->group; k += 2, codes += 2 * half, second += 2 * half, kept += 4) {
        WHOLES q[4];
        if (unpacks)
            _mm_prefetch((const char *)codes + fetched_ahead[t->rows > 1], _MM_HINT_T0);
        if (far)
            _mm_prefetch((const char *)codes + far, _MM_HINT_T1);
        if (unpacks && both) {
            _mm_prefetch((const char *)second + fetched_ahead[t->rows > 1], _MM_HINT_T0);
            UNPACKED_BOTH(codes, second, half, q);
        } else if (unpacks) {
            UNPACKED(codes, half, q);
        }
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++)
            if (!unpacks)
                q[p] = kept[p];
            else if (keeps)
                kept[p] = q[p];
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) {
            int32_t two;
            memcpy(&two, x + r * t->group + k, sizeof two);
            const WHOLES pair = BOTH(two);
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++)
                JOIN_PAIRS(sums[r][p], q[p], pair);
        }
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        const int64_t j = p % 2 * WIDTH + p / 2 * half;
        const NUMBERS scale = EVEN(line + 2 * j), zero = ODD(line + 2 * j);
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) {
            const float scale_of_x = t->whole.scales[first + r];
            const NUMBERS s = ALL(p < 2 || both ? scale_of_x : scale_of_x / HIGH), sum = ALL(t->whole.sums[first + r] * (both ? HIGH + 1 : 1));
            const NUMBERS centred = JOINED(NUMBERS_OF(sums[r][p]), s, sum * -8);
            NUMBERS *const total = (NUMBERS *)(totals[r] + column + j);
            *total = JOINED(zero, sum, JOINED(scale, centred, *total));
        }
    }
}

/* A group of a block times some rows, `TOGETHER` at most at once, which the codes are unpacked for beside the first of these products. */
INLINE void OF(group)(const struct dots *t, int64_t block, int64_t g, int64_t row, int64_t rows, float totals[][MOST_ROWS])
{
    WHOLES kept[MOST_GROUP / 2 * 4];
    const int64_t times = (rows + TOGETHER - 1) / TOGETHER, each = rows / times, more = rows % times;
    for (int64_t column = 0; column < t->height / 2; column += 2 * WIDTH)
        for (int64_t i = 0, done = 0; i < times; i++) {
            const int64_t count = each + (i < more);
#define SOME(count, unpacks, keeps, both) \
    OF(rows_of_group)(t, block, g, column, row + done, count, unpacks, keeps, both, kept, totals + done)
#define ROWS(count)                               \
    case count:                                   \
        if (i && t->second)                       \
            SOME(count, 0, 0, 1);                 \
        else if (i)                               \
            SOME(count, 0, 0, 0);                 \
        else if (t->second)                       \
            SOME(count, 1, 1, 1);                 \
        else if (times > 1)                       \
            SOME(count, 1, 1, 0);                 \
        else                                      \
            SOME(count, 1, 0, 0);                 \
        break;
            switch (count) {
                COUNTS
            }
#undef ROWS
#undef SOME
            done += count;
        }
}

/* Some rows times a block and the one half the matrix behind it, group by group: a CPU foresees two places that memory is read at,
   each from its first byte to its last, better than one. */
static void OF(dots_part)(const void *task, int64_t part)
{
    const struct dots *const t = task;
    const int64_t groups = t->inputs / t->group, blocks = t->outputs / t->height, apart = (blocks + 1) / 2;
    const int64_t block = part / t->parts, row = part % t->parts * t->rows / t->parts, rows = (part % t->parts + 1) * t->rows / t->parts - row;
    const int count = block + apart < blocks ? 2 : 1;
    float totals[2][PART_ROWS][MOST_ROWS] __attribute__((aligned(64)));
    for (int i = 0; i < count; i++)
        memset(totals[i], 0, rows * sizeof *totals[i]);
    for (int64_t g = 0; g < groups; g++)
        for (int i = 0; i < count; i++)
            OF(group)(t, block + i * apart, g, row, rows, totals[i]);
    for (int i = 0; i < count; i++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < t->height; j += LANES) {
                words sums;
                memcpy(&sums, totals[i][r] + j, sizeof sums);
                const shorts rounded = __builtin_convertvector((sums + 0x7fff + ((sums >> 16) & 1)) >> 16, shorts);
                memcpy(t->out + (row + r) * t->outputs + (block + i * apart) * t->height + j, &rounded, sizeof rounded);
            }
}

/* e to the power of each, between what fp32 holds: the nearest power of two times a series of what is left (Cephes). */
INLINE void OF(raised)(floats *x)
{
    const floats whole = (*x * 1.44269504f + TO_NEAREST) - TO_NEAREST;
    const floats r = (*x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    *x = (y * r * r + r + 1) * (floats)((__builtin_convertvector(whole, integers) + 127) << 23);
}

/* `both` [n, 2F] to SiLU of the first half of a row times the second: [n, F]. */
static void OF(gated)(const uint16_t *both, int64_t rows, int64_t ffn, uint16_t *out)
{
    for (int64_t r = 0; r < rows; r++, both += 2 * ffn, out += ffn)
        for (int64_t f = 0; f < ffn; f += LANES) {
            shorts first, second;
            memcpy(&first, both + f, sizeof first);
            memcpy(&second, both + ffn + f, sizeof second);
            const floats gate = (floats)(__builtin_convertvector(first, words) << 16);
            const floats up = (floats)(__builtin_convertvector(second, words) << 16);
            const floats most = (floats){0} + 87, least = -most;
            const integers above = -gate > most, below = -gate < least; /* what is no number is neither */
            floats power = (floats)(((integers)most & above) | ((integers)least & below) | ((integers)(-gate) & ~(above | below)));
            OF(raised)(&power);
            const words bits = (words)(gate / (power + 1) * up);
            const shorts rounded = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, shorts);
            memcpy(out + f, &rounded, sizeof rounded);
        }
}

#undef TO_NEAREST
#undef TOGETHER
#undef COUNTS
#undef WHOLES
#undef UNPACKED
#undef UNPACKED_BOTH
#undef BOTH
#undef JOIN_PAIRS
#undef NUMBERS_OF
#undef ALL
#undef INLINE
