/* What a Block does to one row of bf16 between its products: norms, attention over pages, the choice of experts. Included once for each kind of
   CPU, behind dots.h and one.h, whose vectors it uses. Everything is fp32 inside, and rounded once.

   H: hidden, a multiple of 32   D: head_dim, a multiple of 32   KV: key-value heads   G: heads a key-value head   E: experts, a multiple of 4 */

#define INLINE static inline __attribute__((always_inline))

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

/* `NORM_ROWS` of the rows, or what is left of them. */
static void OF(some_normed)(const void *norms, int64_t part)
{
    const struct norms *const n = norms;
    for (int64_t row = part * NORM_ROWS; row < (part + 1) * NORM_ROWS && row < n->rows; row++)
        OF(normed)(n->x + row * n->hidden, n->weight, n->hidden, n->eps, n->out + row * n->hidden);
}

/* A head [D] turned by its position's angles, halves against each other. */
INLINE void OF(rotated)(const uint16_t *x, const struct attending *a, uint16_t *out)
{
    const int64_t d = a->of->head_dim;
    for (int64_t k = 0; k < d; k += LANES) {
        floats here, other, cos, sin;
        OF(read_lanes)(x + k, &here);
        OF(read_lanes)(x + (k < d / 2 ? k + d / 2 : k - d / 2), &other);
        memcpy(&cos, a->at.cos + k, sizeof cos);
        memcpy(&sin, a->at.sin + k, sizeof sin);
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

/* One key-value head: its key and value are put into their page, and its heads attend to all positions up to this one. */
static void OF(attended)(const void *attending, int64_t g)
{
    const struct attending *const a = attending;
    const struct attention *const t = a->of;
    const int64_t d = t->head_dim, group = t->heads / t->kv_heads, line = t->kv_heads * d;
    uint16_t rotated[d];
    float q[group][d] __attribute__((aligned(64))), totals[group][d] __attribute__((aligned(64)));
    float keys[SPAN][d] __attribute__((aligned(64))), values[SPAN][d] __attribute__((aligned(64)));
    float most[group];
    floats sums[group];
    const int64_t here = (a->at.pages[a->at.position / a->at.page] * a->at.page + a->at.position % a->at.page) * line + g * d;
    OF(rotated)(a->qkv + (t->heads + g) * d, a, a->at.keys + here);
    memcpy(a->at.values + here, a->qkv + (t->heads + t->kv_heads + g) * d, d * sizeof *a->at.values);
    for (int64_t r = 0; r < group; r++) {
        OF(rotated)(a->qkv + (g * group + r) * d, a, rotated);
        most[r] = -1e30f, sums[r] = (floats){0};
        for (int64_t k = 0; k < d; k += WIDTH) {
            *(NUMBERS *)(q[r] + k) = WIDENED_BF16(rotated + k) * (NOTHING + t->scale);
            *(NUMBERS *)(totals[r] + k) = NOTHING;
        }
    }
    for (int64_t at = t->window && a->at.position >= t->window ? a->at.position - t->window + 1 : 0; at <= a->at.position; at += SPAN) {
        const int64_t left = a->at.position + 1 - at, count = left < SPAN ? left : SPAN;
        int64_t page = at / a->at.page, inside = at % a->at.page;
        for (int64_t j = 0; j < SPAN; j++) {
            const int64_t slot = (a->at.pages[page] * a->at.page + inside) * line + g * d;
            for (int64_t k = 0; k < d; k += WIDTH) {
                _mm_prefetch((const char *)(a->at.keys + slot + SPAN * line + k), _MM_HINT_T0);
                _mm_prefetch((const char *)(a->at.values + slot + SPAN * line + k), _MM_HINT_T0);
                *(NUMBERS *)(keys[j] + k) = WIDENED_BF16(a->at.keys + slot + k);
                *(NUMBERS *)(values[j] + k) = WIDENED_BF16(a->at.values + slot + k);
            }
            if (j + 1 < count && ++inside == a->at.page)
                page++, inside = 0;
        }
        for (int64_t r = 0; r < group; r++) {
            float scores[SPAN] __attribute__((aligned(64)));
            NUMBERS products[SPAN];
            for (int64_t j = 0; j < SPAN; j++) {
                products[j] = NOTHING;
                for (int64_t k = 0; k < d; k += WIDTH)
                    products[j] = JOINED(*(NUMBERS *)(q[r] + k), *(NUMBERS *)(keys[j] + k), products[j]);
            }
            OF(each_summed)(products, scores);
            const float before = OF(weighed)(scores, count, most + r, sums + r);
            for (int64_t k = 0; k < d; k += 2 * WIDTH) {
                NUMBERS left = *(NUMBERS *)(totals[r] + k) * (NOTHING + before);
                NUMBERS right = *(NUMBERS *)(totals[r] + k + WIDTH) * (NOTHING + before);
                for (int64_t j = 0; j < SPAN; j++) {
                    const NUMBERS weight = NOTHING + scores[j];
                    left = JOINED(weight, *(NUMBERS *)(values[j] + k), left);
                    right = JOINED(weight, *(NUMBERS *)(values[j] + k + WIDTH), right);
                }
                *(NUMBERS *)(totals[r] + k) = left;
                *(NUMBERS *)(totals[r] + k + WIDTH) = right;
            }
        }
    }
    for (int64_t r = 0; r < group; r++)
        for (int64_t k = 0; k < d; k += LANES) {
            floats mean;
            memcpy(&mean, totals[r] + k, sizeof mean);
            mean /= OF(added_up)(sums + r);
            OF(write_lanes)(&mean, a->out + (g * group + r) * d + k);
        }
}

/* Logits of some experts, not rounded. */
static void OF(scored)(const void *choosing, int64_t part)
{
    const struct choosing *const c = choosing;
    float x[c->of->inputs] __attribute__((aligned(64)));
    OF(widened_row)(c->of, x);
    for (int64_t e = part * c->part; e < (part + 1) * c->part && e < c->of->outputs; e += AT_ONCE)
        OF(four_of_bf16)(c->of, x, e, 1, c->logits + e);
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

/* `h` [H] and the weighted outputs [K, H] of its experts in their order, added up in fp32: [H]. */
static void OF(mixed)(const uint16_t *h, const uint16_t *outputs, const float *weights, int64_t count, int64_t hidden, uint16_t *out)
{
    for (int64_t k = 0; k < hidden; k += LANES) {
        floats total = {0}, some;
        for (int64_t i = 0; i < count; i++) {
            OF(read_lanes)(outputs + i * hidden + k, &some);
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

#undef INLINE
