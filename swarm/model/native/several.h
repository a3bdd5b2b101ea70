/* Several rows times a matrix of bf16, or of 8 bits with a scale an output, on a CPU's vectors. Included once for each kind of CPU, behind heads.h:
   `FACTOR` is what that kind multiplies (fp32, or bf16 where it has products of pairs), `FACTORS` a vector of it, `NUMBERS` one of sums; `WEIGHT`
   and `LAID` make them of what a matrix and rows have (`LIES`: bf16 is multiplied as it lies), and `OUTPUTS_OF` says how large a tile its registers hold.

   Lanes are inputs: a vector of a weight meets one of each row of a group, and a tile of some outputs of these rows is summed up in registers. Up to
   `WHOLE_GROUP` rows are one group, and meet the matrix as it lies, which is read once and at the memory's pace, from some places at a time (one.h).
   More are groups of up to `SMALL_GROUP`, which meet a strip of outputs after the other, and some inputs of it at a time: those stay in the nearest
   cache while all groups pass, and the next strip's are fetched. A row's products are added up in the same order whichever rows are beside it.

   n: rows   K: inputs, a multiple of 64   N: outputs */

#define INLINE static inline __attribute__((always_inline))
#define STEP ((int64_t)(2 * sizeof(FACTORS) / sizeof(FACTOR)))
#define FETCH(at, where) _mm_prefetch((const char *)(at), _MM_HINT_##where)

/* A group as a weight's vectors meet it: [K / STEP, rows, STEP]. */
static void OF(laid_group)(const void *several, int64_t group)
{
    const struct several *const t = several;
    const int64_t first = first_row(t, group), rows = first_row(t, group + 1) - first;
    FACTORS *to = (FACTORS *)((FACTOR *)t->laid + first * t->inputs);
    for (int64_t k = 0; k < t->inputs; k += STEP)
        for (int64_t r = 0; r < rows; r++, to += 2)
            for (int half = 0; half < 2; half++)
                to[half] = LAID(t->x + (first + r) * t->inputs + k, half, t->scales != 0);
}

/* See `tile`. */
INLINE void OF(tile)(const int form, const int outputs, const int rows, const int width, const struct tile *t)
{
    const int64_t size = form == OF_STRIP ? sizeof(FACTOR) : form == OF_BF16 ? 2 : 1;
    NUMBERS sums[MOST_TILE], *const out = t->sums;
    const FACTOR *x = t->x;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 6
        for (int o = 0; o < outputs; o++)
            sums[r * outputs + o] = t->begun ? out[r * width + o] : NOTHING;
    for (int64_t k = 0; k < t->inputs; k += STEP, x += rows * STEP) {
        FACTORS weights[MOST_OUTPUTS][2];
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            if (form == OF_STRIP && 64 * half < STEP * 2) {
                FETCH(t->next[0] + k * t->next_size + 64 * half, T1);
                FETCH(t->next[1] + k * t->next_size + 64 * half, T1);
            }
#pragma GCC unroll 6
            for (int o = 0; o < outputs; o++) {
                if (form == OF_STRIP)
                    memcpy(&weights[o][half], t->w[o] + k * size + half * sizeof(FACTORS), sizeof(FACTORS));
                else
                    WEIGHT(form, t->w[o] + k * size, half, weights[o]);
                __asm__ volatile("" : "+v"(weights[o][half])); /* that it is not read again in place of being kept */
                if (form != OF_STRIP && 64 * half < STEP * size)
                    FETCH(t->w[o] + k * size + 64 * half + TILE_AHEAD, T1);
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                FACTORS here = *(const FACTORS *)(x + r * STEP + half * STEP / 2);
                __asm__ volatile("" : "+v"(here));
#pragma GCC unroll 6
                for (int o = 0; o < outputs; o++)
                    sums[r * outputs + o] = MULTIPLIED(weights[o][half], here, sums[r * outputs + o]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 6
        for (int o = 0; o < outputs; o++)
            out[r * width + o] = sums[r * outputs + o];
}

/* One function for each shape: what is in registers then stays there. */
#define TILE(form, n)                                                                                \
    static __attribute__((noinline)) void OF(tile_##form##_##n)(const struct tile *t)                \
    {                                                                                                \
        OF(tile)(form, OUTPUTS_OF(form, n), n, form == OF_STRIP ? STRIP : OUTPUTS_OF(form, n), t);   \
    }
#define UP_TO_4(of, form) of(form, 1) of(form, 2) of(form, 3) of(form, 4)
#define UP_TO_6(of, form) UP_TO_4(of, form) of(form, 5) of(form, 6)
#define UP_TO_8(of, form) UP_TO_6(of, form) of(form, 7) of(form, 8)
WHOLE_GROUP(TILE, OF_BF16)
WHOLE_GROUP(TILE, OF_BYTES)
SMALL_GROUP(TILE, OF_STRIP)
#define NAMED(form, n) OF(tile_##form##_##n),
static void (*const OF(tiles)[][MOST_TILE_ROWS])(const struct tile *) = {
    {WHOLE_GROUP(NAMED, OF_BF16)},
    {WHOLE_GROUP(NAMED, OF_BYTES)},
    {SMALL_GROUP(NAMED, OF_STRIP)},
};

/* What [rows, outputs] sum up to, times `scales` where there are some, rounded; outputs lie `apart`. There is room for whole spans of both. */
INLINE void OF(put_out)(const struct several *t, const NUMBERS *sums, const float *scales, int64_t row, int64_t rows, int64_t output,
                        const int64_t outputs, int64_t apart)
{
    uint16_t rounded[MOST_SUMS];
    for (int64_t i = 0; i < rows * outputs; i += SPAN) {
        floats some, factors;
        OF(each_summed)(sums + i, (float *)&some);
        if (t->scales) {
            memcpy(&factors, scales + i, sizeof factors);
            some *= factors;
        }
        OF(write_lanes)(&some, rounded + i);
    }
    if (apart == 1 && output + outputs <= t->outputs)
        for (int64_t r = 0; r < rows; r++)
            memcpy(t->out + (row + r) * t->outputs + output, rounded + r * outputs, outputs * sizeof *rounded);
    else
        for (int64_t o = 0; o < outputs && output + o * apart < t->outputs; o++)
            for (int64_t r = 0; r < rows; r++)
                t->out[(row + r) * t->outputs + output + o * apart] = rounded[r * outputs + o];
}

/* One group: `t->part` of the outputs, or what is left of them. */
INLINE void OF(whole_part)(const struct several *t, int64_t part)
{
    const int form = t->scales ? OF_BYTES : OF_BF16;
    const int64_t outputs = OUTPUTS_OF(form, t->rows), apart = (t->outputs + outputs - 1) / outputs, step = (t->part + outputs - 1) / outputs;
    const int64_t last = least((part + 1) * step, apart), row = t->inputs * (t->scales ? 1 : 2);
    NUMBERS sums[MOST_SUMS] = {NOTHING};
    float scales[MOST_SUMS];
    for (int64_t output = part * step; output < last; output++) {
        const char *w[MOST_OUTPUTS];
        const struct tile tile = {w, t->laid, t->inputs, sums};
        for (int64_t o = 0; o < outputs; o++) /* the last place may be shorter than others */
            w[o] = (const char *)t->w + least(output + o * apart, t->outputs - 1) * row;
        OF(tiles)[form][t->rows - 1](&tile);
        scales_of(t, t->rows, output, outputs, apart, scales);
        OF(put_out)(t, sums, scales, 0, t->rows, output, outputs, apart);
    }
}

/* A strip's part of a matrix as groups meet it: [STRIP, STRIP_INPUTS]. */
INLINE void OF(laid_strip)(const int form, const char *const *w, int64_t inputs, FACTOR *to)
{
    for (int64_t o = 0; o < STRIP; o++)
        for (int64_t k = 0; k < inputs; k += STEP) {
            FACTORS *const two = (FACTORS *)(to + o * STRIP_INPUTS + k);
            WEIGHT(form, w[o] + k * (form == OF_BYTES ? 1 : 2), 0, two);
            WEIGHT(form, w[o] + k * (form == OF_BYTES ? 1 : 2), 1, two);
        }
}

/* Many groups: `t->part` of the outputs, or what is left of them. */
INLINE void OF(strips_part)(const struct several *t, int64_t part)
{
    const int64_t size = t->scales ? 1 : 2, step = (t->part + STRIP - 1) / STRIP * STRIP, groups = groups_of(t);
    const int64_t last = least((part + 1) * step, t->outputs);
    FACTOR strip[STRIP * STRIP_INPUTS] __attribute__((aligned(64)));
    NUMBERS sums[t->rows * STRIP + SPAN];
    for (int64_t output = part * step; output < last; output += STRIP) {
        float scales[MOST_SUMS];
        scales_of(t, least(t->small, t->rows), output, STRIP, 1, scales);
        for (int64_t from = 0; from < t->inputs; from += STRIP_INPUTS) {
            const int64_t inputs = least(t->inputs - from, STRIP_INPUTS), more = output + STRIP < last ? STRIP : 0;
            const char *w[STRIP], *next[STRIP];
            for (int64_t o = 0; o < STRIP; o++) {
                w[o] = (const char *)t->w + (least(output + o, t->outputs - 1) * t->inputs + from) * size;
                next[o] = (const char *)t->w + (least(output + more + o, t->outputs - 1) * t->inputs + from) * size;
            }
            if (t->scales)
                OF(laid_strip)(OF_BYTES, w, inputs, strip);
            else if (!LIES)
                OF(laid_strip)(OF_BF16, w, inputs, strip);
            for (int64_t o = 0; o < STRIP && (t->scales || !LIES); o++)
                w[o] = (const char *)(strip + o * STRIP_INPUTS);
            for (int64_t g = 0, turn = 0; g < groups; g++) {
                const int64_t first = first_row(t, g), rows = first_row(t, g + 1) - first, outputs = OUTPUTS_OF(OF_STRIP, rows);
                const FACTOR *const x = (const FACTOR *)t->laid + first * t->inputs + from * rows;
                for (int64_t o = 0; o < STRIP; o += outputs, turn = (turn + 2) % STRIP) {
                    const struct tile tile = {w + o, x, inputs, sums + first * STRIP + o, from > 0, next + turn, size};
                    OF(tiles)[OF_STRIP][rows - 1](&tile);
                }
                if (from + inputs == t->inputs)
                    OF(put_out)(t, sums + first * STRIP, scales, first, rows, output, STRIP, 1);
            }
        }
    }
}

static void OF(several_part)(const void *several, int64_t part)
{
    const struct several *const t = several;
    if (groups_of(t) == 1)
        OF(whole_part)(t, part);
    else
        OF(strips_part)(t, part);
}

#undef INLINE
#undef STEP
#undef FETCH
#undef TILE
#undef NAMED
#undef UP_TO_4
#undef UP_TO_6
#undef UP_TO_8
#undef WHOLE_GROUP
#undef SMALL_GROUP
#undef STRIP
#undef OUTPUTS_OF
#undef FACTOR
#undef FACTORS
#undef WEIGHT
#undef LIES
#undef LAID
#undef MULTIPLIED
#undef NUMBERS
#undef WIDTH
#undef NOTHING
#undef EVEN
#undef ODD
#undef WIDENED_BF16
#undef WIDENED_BYTES
#undef JOINED
#undef ADDED
#undef SUMMED
