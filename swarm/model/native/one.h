/* One row times a matrix of bf16, or of 8 bits with a scale an output, which is read once and at the memory's pace. Included once for each kind
   of CPU, whose name `OF` puts behind a function's; `NUMBERS` and what is done to them are that kind's vectors, of `WIDTH` lanes (heads.h has them
   forgotten).

   Four outputs at a time, while what is next of them is fetched.

   K: inputs, a multiple of 32   N: outputs, a multiple of 4 */

#define INLINE static inline __attribute__((always_inline))

/* Two inputs of bf16 are a lane: the first is its low half. */
INLINE void OF(four_of_bf16)(const struct one *t, int64_t output, float sums[AT_ONCE])
{
    const uint16_t *w = (const uint16_t *)t->w + output * t->inputs;
    NUMBERS even[AT_ONCE], odd[AT_ONCE];
#pragma GCC unroll 4
    for (int j = 0; j < AT_ONCE; j++)
        even[j] = odd[j] = NOTHING;
    for (int64_t k = 0; k < t->inputs; k += 2 * WIDTH) {
        const NUMBERS first = EVEN(t->x + k), second = ODD(t->x + k);
#pragma GCC unroll 4
        for (int j = 0; j < AT_ONCE; j++) {
            _mm_prefetch((const char *)(w + (AT_ONCE + j) * t->inputs + k), _MM_HINT_T0);
            even[j] = JOINED(EVEN(w + j * t->inputs + k), first, even[j]);
            odd[j] = JOINED(ODD(w + j * t->inputs + k), second, odd[j]);
        }
    }
    for (int j = 0; j < AT_ONCE; j++)
        sums[j] = SUMMED(ADDED(even[j], odd[j]));
}

INLINE void OF(four_of_bytes)(const struct one *t, int64_t output, float sums[AT_ONCE])
{
    const int8_t *w = (const int8_t *)t->w + output * t->inputs;
    NUMBERS total[AT_ONCE];
#pragma GCC unroll 4
    for (int j = 0; j < AT_ONCE; j++)
        total[j] = NOTHING;
    for (int64_t k = 0; k < t->inputs; k += WIDTH) {
        const NUMBERS x = WIDENED_BF16(t->x + k);
#pragma GCC unroll 4
        for (int j = 0; j < AT_ONCE; j++) {
            if (k % 64 == 0)
                _mm_prefetch((const char *)(w + (AT_ONCE + j) * t->inputs + k), _MM_HINT_T0);
            total[j] = JOINED(WIDENED_BYTES(w + j * t->inputs + k), x, total[j]);
        }
    }
    for (int j = 0; j < AT_ONCE; j++)
        sums[j] = SUMMED(total[j]) * WIDENED(t->scales[output + j]);
}

/* `t->part` of the outputs, or what is left of them. */
static void OF(one_part)(const void *task, int64_t part)
{
    const struct one *const t = task;
    const int64_t end = (part + 1) * t->part, last = end < t->outputs ? end : t->outputs;
    for (int64_t output = part * t->part; output < last; output += AT_ONCE) {
        float sums[AT_ONCE];
        if (t->scales)
            OF(four_of_bytes)(t, output, sums);
        else
            OF(four_of_bf16)(t, output, sums);
        for (int j = 0; j < AT_ONCE; j++) {
            const uint32_t bits = ((union { float number; uint32_t bits; }){.number = sums[j]}).bits;
            t->out[output + j] = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        }
    }
}

#undef INLINE
