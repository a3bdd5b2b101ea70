/* One row times a matrix of bf16, or of 8 bits with a scale an output, which is read once and at the memory's pace. Included once for each kind
   of CPU, whose name `OF` puts behind a function's; `NUMBERS` and what is done to them are that kind's vectors, of `WIDTH` lanes (several.h has
   them forgotten).

   Four outputs at a time, one of each quarter of the matrix: four places that memory is read at, each from its first byte to its last, which a CPU
   foresees best. What comes soon is fetched.

   K: inputs, a multiple of 32   N: outputs, a multiple of 4 */

#define INLINE static inline __attribute__((always_inline))
#define FETCH(at) _mm_prefetch((const char *)(at) + ahead, _MM_HINT_T0)

/* `x` as an output's weights meet it: in bf16 two are a lane, the first of them its low half. */
static void OF(widened_row)(const struct one *t, float *x)
{
    for (int64_t k = 0; k < t->inputs; k += 2 * WIDTH) {
        *(NUMBERS *)(x + k) = t->scales ? WIDENED_BF16(t->x + k) : EVEN(t->x + k);
        *(NUMBERS *)(x + k + WIDTH) = t->scales ? WIDENED_BF16(t->x + k + WIDTH) : ODD(t->x + k);
    }
}

/* Outputs that lie `apart`. */
INLINE void OF(four_of_bf16)(const struct one *t, const float *x, int64_t output, int64_t apart, float sums[AT_ONCE])
{
    const uint16_t *w = (const uint16_t *)t->w + output * t->inputs;
    const int64_t ahead = fetched_ahead[0];
    NUMBERS even[AT_ONCE], odd[AT_ONCE];
#pragma GCC unroll 4
    for (int j = 0; j < AT_ONCE; j++)
        even[j] = odd[j] = NOTHING;
    for (int64_t k = 0; k < t->inputs; k += 2 * WIDTH) {
        const NUMBERS first = *(const NUMBERS *)(x + k), second = *(const NUMBERS *)(x + k + WIDTH);
#pragma GCC unroll 4
        for (int j = 0; j < AT_ONCE; j++) {
            const uint16_t *const at = w + j * apart * t->inputs + k;
            FETCH(at);
            even[j] = JOINED(EVEN(at), first, even[j]);
            odd[j] = JOINED(ODD(at), second, odd[j]);
        }
    }
    for (int j = 0; j < AT_ONCE; j++)
        sums[j] = SUMMED(ADDED(even[j], odd[j]));
}

INLINE void OF(four_of_bytes)(const struct one *t, const float *x, int64_t output, int64_t apart, float sums[AT_ONCE])
{
    const int8_t *w = (const int8_t *)t->w + output * t->inputs;
    const int64_t ahead = fetched_ahead[0];
    NUMBERS first[AT_ONCE], second[AT_ONCE];
#pragma GCC unroll 4
    for (int j = 0; j < AT_ONCE; j++)
        first[j] = second[j] = NOTHING;
    for (int64_t k = 0; k < t->inputs; k += 2 * WIDTH) {
        const NUMBERS left = *(const NUMBERS *)(x + k), right = *(const NUMBERS *)(x + k + WIDTH);
#pragma GCC unroll 4
        for (int j = 0; j < AT_ONCE; j++) {
            const int8_t *const at = w + j * apart * t->inputs + k;
            FETCH(at);
            first[j] = JOINED(WIDENED_BYTES(at), left, first[j]);
            second[j] = JOINED(WIDENED_BYTES(at + WIDTH), right, second[j]);
        }
    }
    for (int j = 0; j < AT_ONCE; j++)
        sums[j] = SUMMED(ADDED(first[j], second[j])) * WIDENED(t->scales[output + j * apart]);
}

/* `t->part` of the outputs, or what is left of them. */
static void OF(one_part)(const void *task, int64_t part)
{
    const struct one *const t = task;
    const int64_t apart = t->outputs / AT_ONCE, end = (part + 1) * t->part / AT_ONCE, last = end < apart ? end : apart;
    float x[t->inputs] __attribute__((aligned(64)));
    OF(widened_row)(t, x);
    for (int64_t output = part * t->part / AT_ONCE; output < last; output++) {
        float sums[AT_ONCE];
        if (t->scales)
            OF(four_of_bytes)(t, x, output, apart, sums);
        else
            OF(four_of_bf16)(t, x, output, apart, sums);
        for (int j = 0; j < AT_ONCE; j++) {
            const uint32_t bits = ((union { float number; uint32_t bits; }){.number = sums[j]}).bits;
            t->out[output + j * apart] = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        }
    }
}

#undef INLINE
#undef FETCH
