/* What a Block does to one row or a few of bf16 between its products: norms, attention over pages, the choice of experts. Included once for each
   kind of CPU, behind dots.h and one.h, whose vectors it uses. Everything is fp32 inside, and rounded once. A row is answered the same bits
   whatever rows are beside it.

   n: rows   H: hidden, a multiple of 32   D: head_dim, a multiple of 32   KV: key-value heads   G: heads a key-value head
   E: experts, a multiple of 4 */

#define INLINE static inline __attribute__((always_inline))
#define HEADS_TOGETHER 4
#define FAR 2 /* pages ahead that a core's second cache is given; its first one would push them out, for they lie too even */

INLINE void OF(read_lanes)(const uint16_t *from, floats *to)
{
    shorts some;
    memcpy(&some, from, sizeof some);
    *to = (floats)(__builtin_convertvector(some, words) << 16);
}

INLINE void OF(write_lanes)(const floats *from, uint16_t *to)
{
    const words bits = (words)*from;
    const shorts rounded = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, shorts);
    memcpy(to, &rounded, sizeof rounded);
}

INLINE float OF(added_up)(const floats *of)
{
    float total = 0;
    for (int i = 0; i < LANES; i++)
        total += (*of)[i];
    return total;
}

/* e to the power of what is at most 0, or of -60, which counts nothing beside 1 and makes no product too small for a CPU to be quick with. What is
   no number stays none. */
INLINE void OF(raised_below)(floats *x)
{
    const floats least = (floats){0} - 60;
    const integers below = *x < least;
    *x = (floats)(((integers)least & below) | ((integers)*x & ~below));
    OF(raised)(x);
}

INLINE float OF(raised_alone)(float x)
{
    floats all = (floats){0} + x;
    OF(raised_below)(&all);
    return all[0];
}

/* `x` [H] over its root mean square, times `weight` [H]. */
static void OF(normed)(const uint16_t *x, const uint16_t *weight, int64_t hidden, float eps, uint16_t *out)
{
    floats squares = {0}, number, factor;
    for (int64_t k = 0; k < hidden; k += LANES) {
        OF(read_lanes)(x + k, &number);
        squares += number * number;
    }
    const float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(OF(added_up)(&squares) / hidden + eps)));
    for (int64_t k = 0; k < hidden; k += LANES) {
        OF(read_lanes)(x + k, &number);
        OF(read_lanes)(weight + k, &factor);
        number = number * (1 / root) * factor;
        OF(write_lanes)(&number, out + k);
    }
}

/* `h` [H] and the weighted outputs [K] of its experts, of [H] each, in their order, added up in fp32: [H]. */
static void OF(mixed)(const uint16_t *h, const uint16_t *const *outputs, const float *weights, int64_t count, int64_t hidden, uint16_t *out)
{
    for (int64_t k = 0; k < hidden; k += LANES) {
        floats total = {0}, some;
        for (int64_t i = 0; i < count; i++) {
            OF(read_lanes)(outputs[i] + k, &some);
            total = i ? total + some * weights[i] : some * weights[i];
        }
        uint16_t rounded[LANES];
        OF(write_lanes)(&total, rounded);
        OF(read_lanes)(rounded, &total);
        OF(read_lanes)(h + k, &some);
        total += some;
        OF(write_lanes)(&total, out + k);
    }
}

/* `NORM_ROWS` of the rows, or what is left of them. */
static void OF(some_normed)(const void *norms, int64_t part)
{
    const struct norms *const n = norms;
    const float whole = 1;
    for (int64_t row = part * NORM_ROWS; row < (part + 1) * NORM_ROWS && row < n->rows; row++) {
        const int64_t at = row * n->hidden;
        const uint16_t *const added = n->added + at;
        if (n->added)
            OF(mixed)(n->x + at, &added, &whole, 1, n->hidden, n->total + at);
        OF(normed)((n->added ? n->total : n->x) + at, n->weight, n->hidden, n->eps, n->out + at);
    }
}

/* A head [D] turned by its position's angles, halves against each other. */
INLINE void OF(rotated)(const uint16_t *x, const float *cosines, const float *sines, int64_t d, uint16_t *out)
{
    for (int64_t k = 0; k < d; k += LANES) {
        floats here, other, cos, sin;
        OF(read_lanes)(x + k, &here);
        OF(read_lanes)(x + (k < d / 2 ? k + d / 2 : k - d / 2), &other);
        memcpy(&cos, cosines + k, sizeof cos);
        memcpy(&sin, sines + k, sizeof sin);
        here = here * cos + other * sin;
        OF(write_lanes)(&here, out + k);
    }
}

/* What the lanes of each of `SPAN` vectors add up to. */
INLINE void OF(each_summed)(const NUMBERS of[SPAN], float sums[SPAN])
{
#if WIDTH == 16
    __m512 pairs[8], fours[4], eights[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(of[2 * i], of[2 * i + 1]), _mm512_unpackhi_ps(of[2 * i], of[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512d even = _mm512_castps_pd(pairs[2 * i]), odd = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(even, odd)), _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                                  _mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
    _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_shuffle_f32x4(eights[0], eights[1], 0x88), _mm512_shuffle_f32x4(eights[0], eights[1], 0xdd)));
#else
    for (int i = 0; i < SPAN; i += 8) {
        __m256 fours[4], twos[2];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            fours[j] = _mm256_add_ps(_mm256_permute2f128_ps(of[i + j], of[i + j + 4], 0x20), _mm256_permute2f128_ps(of[i + j], of[i + j + 4], 0x31));
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            const __m256d even = _mm256_castps_pd(fours[2 * j]), odd = _mm256_castps_pd(fours[2 * j + 1]);
            twos[j] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(even, odd)), _mm256_castpd_ps(_mm256_unpackhi_pd(even, odd)));
        }
        _mm256_storeu_ps(sums + i, _mm256_add_ps(_mm256_shuffle_ps(twos[0], twos[1], 0x88), _mm256_shuffle_ps(twos[0], twos[1], 0xdd)));
    }
#endif
}

/* Softmax of a head's scores so far: what the sums of before count from now on, and what `count` positions more do. */
INLINE float OF(weighed)(float scores[SPAN], int64_t count, float *most, floats *sums)
{
    const integers lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, there = lanes < (int32_t)count;
    floats power, highest;
    memcpy(&power, scores, sizeof power);
    highest = (floats)(((integers)power & there) | ((integers)((floats){0} + *most) & ~there));
#pragma GCC unroll 4
    for (int step = 8; step; step /= 2) {
        const floats other = __builtin_shuffle(highest, lanes ^ step);
        const integers larger = other > highest;
        highest = (floats)(((integers)other & larger) | ((integers)highest & ~larger));
    }
    const float now = highest[0] > *most ? highest[0] : *most, before = now == *most ? 1 : OF(raised_alone)(*most - now);
    power -= now;
    OF(raised_below)(&power);
    power = (floats)((integers)power & there);
    memcpy(scores, &power, sizeof power);
    *most = now, *sums = *sums * before + power;
    return before;
}

/* `count` heads, a constant where this is called, over `seen` of `SPAN` positions more. */
INLINE void OF(some_heads)(const float *q, const float *keys, const float *values, int64_t d, int64_t seen, float *most, floats *sums, float *totals,
                           const int count)
{
    NUMBERS products[HEADS_TOGETHER][SPAN];
    float scores[HEADS_TOGETHER][SPAN] __attribute__((aligned(64))), before[HEADS_TOGETHER];
    for (int64_t j = 0; j < SPAN; j += WIDTH / 4) {
        NUMBERS some[HEADS_TOGETHER][WIDTH / 4];
#pragma GCC unroll 4
        for (int h = 0; h < count; h++)
#pragma GCC unroll 4
            for (int i = 0; i < WIDTH / 4; i++)
                some[h][i] = NOTHING;
        for (int64_t k = 0; k < d; k += WIDTH)
#pragma GCC unroll 4
            for (int h = 0; h < count; h++)
#pragma GCC unroll 4
                for (int i = 0; i < WIDTH / 4; i++)
                    some[h][i] = JOINED(*(NUMBERS *)(q + h * d + k), *(NUMBERS *)(keys + (j + i) * d + k), some[h][i]);
#pragma GCC unroll 4
        for (int h = 0; h < count; h++)
#pragma GCC unroll 4
            for (int i = 0; i < WIDTH / 4; i++)
                products[h][j + i] = some[h][i];
    }
    for (int h = 0; h < count; h++) {
        OF(each_summed)(products[h], scores[h]);
        before[h] = OF(weighed)(scores[h], seen, most + h, sums + h);
    }
    for (int64_t k = 0; k < d; k += 2 * WIDTH) {
        NUMBERS left[HEADS_TOGETHER], right[HEADS_TOGETHER];
#pragma GCC unroll 4
        for (int h = 0; h < count; h++) {
            left[h] = *(NUMBERS *)(totals + h * d + k) * (NOTHING + before[h]);
            right[h] = *(NUMBERS *)(totals + h * d + k + WIDTH) * (NOTHING + before[h]);
        }
        for (int64_t j = 0; j < seen; j++) {
            const NUMBERS first = *(NUMBERS *)(values + j * d + k), second = *(NUMBERS *)(values + j * d + k + WIDTH);
#pragma GCC unroll 4
            for (int h = 0; h < count; h++) {
                const NUMBERS weight = NOTHING + scores[h][j];
                left[h] = JOINED(weight, first, left[h]);
                right[h] = JOINED(weight, second, right[h]);
            }
        }
#pragma GCC unroll 4
        for (int h = 0; h < count; h++) {
            *(NUMBERS *)(totals + h * d + k) = left[h];
            *(NUMBERS *)(totals + h * d + k + WIDTH) = right[h];
        }
    }
}

/* One key-value head of `count` rows of a Session from `first` on: their keys and values are put into their pages, and their heads attend to all
   positions up to their own. */
static void OF(attended_rows)(const struct attending *a, const struct session *s, int64_t g, int64_t first, int64_t count)
{
    const struct heads *const t = a->of;
    const struct places *const p = a->at;
    const int64_t d = t->head_dim, group = t->heads / t->kv_heads, line = t->kv_heads * d;
    const int64_t position = s->position + first, last = position + count - 1;
    uint16_t rotated[d];
    float q[count * group][d] __attribute__((aligned(64))), totals[count * group][d] __attribute__((aligned(64)));
    float keys[SPAN][d] __attribute__((aligned(64))), values[SPAN][d] __attribute__((aligned(64)));
    float most[count * group];
    floats sums[count * group];
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = s->first + first + i, at = position + i;
        const uint16_t *const qk = a->qk + row * a->qk_apart;
        const float *const cos = p->cos + row * d, *const sin = p->sin + row * d;
        const int64_t here = (s->pages[at / p->page] * p->page + at % p->page) * line + g * d;
        OF(rotated)(qk + (t->heads + g) * d, cos, sin, d, p->keys + here);
        memcpy(p->values + here, a->v + row * a->v_apart + g * d, d * sizeof *p->values);
        for (int64_t r = i * group; r < (i + 1) * group; r++) {
            OF(rotated)(qk + (g * group + r - i * group) * d, cos, sin, d, rotated);
            most[r] = -1e30f, sums[r] = (floats){0};
            for (int64_t k = 0; k < d; k += WIDTH) {
                *(NUMBERS *)(q[r] + k) = WIDENED_BF16(rotated + k) * (NOTHING + t->scale);
                *(NUMBERS *)(totals[r] + k) = NOTHING;
            }
        }
    }
    for (int64_t at = t->window && position >= t->window ? position - t->window + 1 : 0; at <= last; at += SPAN) {
        const int64_t left = last + 1 - at;
        int64_t page = at / p->page, inside = at % p->page;
        for (int64_t j = 0; j < SPAN; j++) {
            const int64_t slot = (s->pages[page] * p->page + inside) * line + g * d;
            const int64_t far = (page + FAR) * p->page + inside <= last ? (s->pages[page + FAR] - s->pages[page]) * p->page * line : 0;
            for (int64_t k = 0; k < d; k += WIDTH) {
                _mm_prefetch((const char *)(p->keys + slot + far + k), _MM_HINT_T1);
                _mm_prefetch((const char *)(p->values + slot + far + k), _MM_HINT_T1);
                _mm_prefetch((const char *)(p->keys + slot + SPAN * line + k), _MM_HINT_T0);
                _mm_prefetch((const char *)(p->values + slot + SPAN * line + k), _MM_HINT_T0);
                *(NUMBERS *)(keys[j] + k) = WIDENED_BF16(p->keys + slot + k);
                *(NUMBERS *)(values[j] + k) = WIDENED_BF16(p->values + slot + k);
            }
            if (j + 1 < left && ++inside == p->page)
                page++, inside = 0;
        }
        for (int64_t i = 0; i < count; i++) {
            const int64_t before = position + i + 1 - at, seen = before < SPAN ? before : SPAN;
            int64_t r = seen > 0 ? i * group : (i + 1) * group;
            for (; r + HEADS_TOGETHER <= (i + 1) * group; r += HEADS_TOGETHER)
                OF(some_heads)(q[r], keys[0], values[0], d, seen, most + r, sums + r, totals[r], HEADS_TOGETHER);
            for (; r < (i + 1) * group; r++)
                OF(some_heads)(q[r], keys[0], values[0], d, seen, most + r, sums + r, totals[r], 1);
        }
    }
    for (int64_t r = 0; r < count * group; r++)
        for (int64_t k = 0; k < d; k += LANES) {
            floats mean;
            memcpy(&mean, totals[r] + k, sizeof mean);
            mean /= OF(added_up)(sums + r);
            OF(write_lanes)(&mean, a->out + ((s->first + first + r / group) * t->heads + g * group + r % group) * d + k);
        }
}

/* One key-value head of one Session's rows: together, but where a window begins elsewhere for each. */
static void OF(attended)(const void *attending, int64_t part)
{
    const struct attending *const a = attending;
    const int64_t kv_heads = a->of->kv_heads, window = a->of->window;
    const struct session *const s = a->at->each + part / kv_heads;
    const int64_t together = window && s->position + s->rows > window ? 1 : s->rows;
    for (int64_t row = 0; row < s->rows; row += together)
        OF(attended_rows)(a, s, part % kv_heads, row, together);
}

/* Logits of some experts for all rows, not rounded. */
static void OF(scored)(const void *choosing, int64_t part)
{
    const struct choosing *const c = choosing;
    float x[c->of->inputs] __attribute__((aligned(64)));
    struct one row = *c->of;
    for (int64_t r = 0; r < c->rows; r++, row.x += row.inputs) {
        OF(widened_row)(&row, x);
        for (int64_t e = part * c->part; e < (part + 1) * c->part && e < row.outputs; e += AT_ONCE)
            OF(four_of_bf16)(&row, x, e, 1, c->logits + r * row.outputs + e);
    }
}

/* The softmax of `count` logits, but for what they are all divided by: that is answered. */
static float OF(softmax)(float *logits, int64_t count)
{
    float most = logits[0], total = 0;
    for (int64_t e = 1; e < count; e++)
        most = logits[e] > most ? logits[e] : most;
    for (int64_t e = 0; e < count; e++)
        total += logits[e] = OF(raised_alone)(logits[e] - most);
    return total;
}

#undef INLINE
#undef HEADS_TOGETHER
#undef FAR
