/* A few rows times a matrix in 4 bits, by products of whole numbers. Included once for each kind of CPU, whose name `OF` puts behind a
   function's; `ONE_GROUP` is how that kind takes one group of one block (dots_avx2.h, dots_avx512.h).

   Of each group of a row, the inputs are whole numbers of 16 bits times a scale: `x = s (256 h + l)`, h and l of 8 bits each and signed, so that
   the largest has 15 bits where bf16 has 8. What they are multiplied with are the codes themselves, which add up exactly:
   `scale * (s * sum(q (256 h + l)) - 8 * sum(x)) + zero * sum(x)`, in fp32 from there, rounded once.

   n: rows   K: inputs   N: outputs   G: groups of a row   b: blocks of `height` outputs */

#define INLINE static inline __attribute__((always_inline))
#define TO_NEAREST 12582912.0f /* 1.5 * 2^23: a float that large has no fraction */

INLINE float OF(largest)(const words *bits)
{
    uint32_t most = 0;
    for (int i = 0; i < LANES; i++)
        most = (*bits)[i] > most ? (*bits)[i] : most;
    return ((union { uint32_t bits; float number; }){.bits = most}).number; /* not a number, where one of them is not */
}

static void OF(in_whole_numbers)(const struct dots *t, const struct whole *w)
{
    const int64_t groups = t->inputs / t->group;
    for (int64_t at = 0; at < t->rows * groups; at++) {
        const uint16_t *x = t->x + at * t->group;
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
        w->scales[at] = scale;
        w->sums[at] = total;
        for (int64_t k = 0; k < t->group; k += LANES) {
            shorts some;
            memcpy(&some, x + k, sizeof some);
            const floats number = (floats)(__builtin_convertvector(some, words) << 16) * parts + TO_NEAREST;
            const integers whole = (integers)number - 0x4b400000, high = (whole + 128) >> 8;
            typedef int8_t halves __attribute__((vector_size(LANES)));
            const halves h = __builtin_convertvector(high, halves), l = __builtin_convertvector(whole - (high << 8), halves);
            memcpy(w->high + at * t->group + k, &h, sizeof h);
            memcpy(w->low + at * t->group + k, &l, sizeof l);
        }
    }
}

/* The outputs of a block and of the one half the matrix behind it for all rows, group by group: a CPU foresees two places that memory is read at,
   each from its first byte to its last, better than one. */
static void OF(dots_of_two)(const struct dots *t, const struct whole *w, int64_t block)
{
    const int64_t groups = t->inputs / t->group, blocks = t->outputs / t->height, apart = (blocks + 1) / 2;
    const int count = block + apart < blocks ? 2 : 1;
    float totals[2][MOST_DOT_ROWS][MOST_ROWS] __attribute__((aligned(64))) = {{{0}}};
    for (int64_t g = 0; g < groups; g++)
        for (int i = 0; i < count; i++)
            ONE_GROUP(t, w, block + i * apart, g, totals[i]);
    for (int i = 0; i < count; i++)
        for (int64_t r = 0; r < t->rows; r++)
            for (int64_t j = 0; j < t->height; j += LANES) {
                words sums;
                memcpy(&sums, totals[i][r] + j, sizeof sums);
                const shorts rounded = __builtin_convertvector((sums + 0x7fff + ((sums >> 16) & 1)) >> 16, shorts);
                memcpy(t->out + r * t->outputs + (block + i * apart) * t->height + j, &rounded, sizeof rounded);
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
#undef INLINE
