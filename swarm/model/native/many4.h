/* Many rows times a matrix in 4 bits on CPUs with a matrix unit for bf16 (AMX; after many.h): codes become the numbers that they stand for, rounded to
   bf16, in a core's own cache, while the unit multiplies with those of before. With few rows that is more work than scaling afterwards is (amx.h).

   A unit of work is some inputs of a block of 64 outputs.

   n: rows   t: tiles of 16 rows   K: inputs   N: outputs, a multiple of 64   G: groups of a row */

#define INLINE static inline __attribute__((always_inline))

enum { MOST_UNIT = 1024 /* inputs */ };

struct many4 {
    int64_t rows, inputs, outputs, group, part; /* of blocks, or pairs of them, that a thread takes at a time */
    int64_t gated;         /* whether this has w1 above w3, and puts out what meets w2 */
    const uint16_t *x;     /* bf16 [n rounded up to 16, K] */
    const uint8_t *codes;  /* [N / 64, K, 32]: low halves are a block's first 32 outputs */
    const uint16_t *lines; /* bf16 [G, N, 2]: scale and zero */
    uint16_t *out;         /* bf16 [n, N], or [n, N / 2] */
};

/* A unit of work, as far as it is unpacked. */
struct unpacking {
    const uint8_t *codes;
    const uint16_t *lines; /* of its next group */
    uint16_t *out;         /* [4 parts of 16 outputs, inputs / 32, 16 pairs of inputs, 16 outputs, 2] */
    int64_t at, inputs, group, outputs;
    float scale[2 * PARTS][TILE] __attribute__((aligned(64))), origin[2 * PARTS][TILE] __attribute__((aligned(64))); /* each twice */
};

static void unpack_lines(struct unpacking *u)
{
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    for (int i = 0; i < 2 * PARTS; i++) {
        const __m512i line = _mm512_permutexvar_epi32(twice, _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(u->lines + TILE * i))));
        const __m512 scale = (__m512)_mm512_slli_epi32(line, 16);
        const __m512 zero = (__m512)_mm512_and_si512(line, _mm512_set1_epi32((int)0xffff0000));
        if (i % 2 == 0)
            _mm_prefetch((const char *)(u->lines + 2 * BLOCK + TILE * i), _MM_HINT_T0); /* the next block's: far from this one's next group */
        _mm512_store_ps(u->scale[i], scale);
        _mm512_store_ps(u->origin[i], _mm512_fnmadd_ps(scale, _mm512_set1_ps(24), zero));
    }
    u->lines += 2 * u->outputs;
}

/* Eight outputs of two inputs of a half, as fp32: each code stands behind 16's first byte as 16 and itself, with the input of its own and the other
   side by side. */
INLINE __m512 unpack_eight(const struct unpacking *u, __m512i half, int64_t eight, __m512i places)
{
    const __m512i each = _mm512_add_epi8(places, _mm512_set1_epi8(8 * (eight % PARTS)));
    const __m512i numbers = _mm512_mask_permutexvar_epi8(_mm512_set1_epi32(0x41000000), 0x4444444444444444, each, half);
    return _mm512_fmadd_ps((__m512)numbers, _mm512_load_ps(u->scale[eight]), _mm512_load_ps(u->origin[eight]));
}

/* Up to `count` pairs of inputs more. */
INLINE void unpack_some(struct unpacking *u, int64_t count)
{
    const __m512i places = _mm512_set_epi32(0x270000, 0x070000, 0x260000, 0x060000, 0x250000, 0x050000, 0x240000, 0x040000, 0x230000, 0x030000,
                                            0x220000, 0x020000, 0x210000, 0x010000, 0x200000, 0x000000);
    const __m512i mask = _mm512_set1_epi8(0x78), above = _mm512_set1_epi8((char)0x80);
    for (; count > 0 && u->at < u->inputs; count--, u->at += 2, u->codes += BLOCK) {
        if (!(u->at & (u->group - 1))) /* groups are powers of two */
            unpack_lines(u);
        _mm_prefetch((const char *)u->codes + 2 * AHEAD, _MM_HINT_T0);
        uint16_t *to = u->out + u->at * TILE;
        const int64_t part = u->inputs * TILE;
        const __m512i codes = _mm512_loadu_si512(u->codes);
        const __m512i low = _mm512_ternarylogic_epi32(_mm512_slli_epi16(codes, 3), mask, above, 0xea); /* what the mask has, and what is above */
        const __m512i high = _mm512_ternarylogic_epi32(_mm512_srli_epi16(codes, 1), mask, above, 0xea);
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++) {
            const __m512 one = unpack_eight(u, p < 2 ? low : high, 2 * p, places), other = unpack_eight(u, p < 2 ? low : high, 2 * p + 1, places);
            _mm512_store_si512(to + p * part, (__m512i)_mm512_cvtne2ps_pbh(other, one));
        }
    }
}

/* One or two tiles of rows of a unit, from input `from` on, times two of its parts, while some of the next unit is unpacked behind each product. */
INLINE void multiplied_unit(const struct many4 *t, int64_t from, int64_t inputs, int64_t tile, int both, const uint16_t *tiles,
                            float *sums, struct unpacking *next, const int64_t counts[4])
{
    const uint16_t *x = t->x + tile * TILE * t->inputs + from, *other = tiles + inputs * TILE;
    float *below = sums + PARTS * TILE * TILE;
    begun();
    if (from) { /* what was summed before */
        _tile_loadd(0, sums, 4 * TILE);
        _tile_loadd(1, sums + TILE * TILE, 4 * TILE);
        if (both) {
            _tile_loadd(2, below, 4 * TILE);
            _tile_loadd(3, below + TILE * TILE, 4 * TILE);
        }
    }
    for (int64_t k = 0; k < inputs; k += TILE_INPUTS) {
        _tile_loadd(4, x + k, 2 * t->inputs);
        _tile_loadd(6, tiles + k * TILE, 4 * TILE);
        _tile_dpbf16ps(0, 4, 6);
        unpack_some(next, counts[0]);
        _tile_loadd(7, other + k * TILE, 4 * TILE);
        _tile_dpbf16ps(1, 4, 7);
        unpack_some(next, counts[1]);
        if (both) {
            _tile_loadd(5, x + TILE * t->inputs + k, 2 * t->inputs);
            _tile_dpbf16ps(2, 5, 6);
        }
        unpack_some(next, counts[2]);
        if (both)
            _tile_dpbf16ps(3, 5, 7);
        unpack_some(next, counts[3]);
    }
    _tile_stored(0, sums, 4 * TILE);
    _tile_stored(1, sums + TILE * TILE, 4 * TILE);
    if (both) {
        _tile_stored(2, below, 4 * TILE);
        _tile_stored(3, below + TILE * TILE, 4 * TILE);
    }
}

/* A block's outputs, of sums [t, 4 parts, 16 rows, 16 outputs]; `ups` where they are gates. */
INLINE void put_block(const struct many4 *t, int64_t block, const float *sums, const float *ups)
{
    const int64_t width = ups ? t->outputs / 2 : t->outputs;
    for (int64_t r = 0; r < t->rows; r++) {
        const int64_t at = (r / TILE * PARTS * TILE + r % TILE) * TILE;
        __m512 each[PARTS];
        for (int p = 0; p < PARTS; p++) {
            each[p] = _mm512_load_ps(sums + at + p * TILE * TILE);
            if (ups)
                each[p] = silu_times(each[p], _mm512_load_ps(ups + at + p * TILE * TILE));
        }
        uint16_t *out = t->out + r * width + block * BLOCK;
        _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(each[1], each[0]));
        _mm512_storeu_si512(out + BLOCK / 2, (__m512i)_mm512_cvtne2ps_pbh(each[3], each[2]));
    }
}

/* Which unit of `t` it is: inputs `k` and on, `inputs` of them, of a block. */
struct unit {
    int64_t block, k, inputs;
};

INLINE struct unit unit_of(const struct many4 *t, int64_t number)
{
    const int64_t each = (t->inputs + MOST_UNIT - 1) / MOST_UNIT, kinds = t->gated ? 2 : 1;
    const int64_t step = (t->inputs / t->group + each - 1) / each * t->group, k = number % each * step;
    const int64_t block = number / each / kinds + number / each % kinds * (t->outputs / BLOCK / 2);
    return (struct unit){block, k, k + step < t->inputs ? step : t->inputs - k};
}

static void unpack_from(const struct many4 *t, struct unit unit, uint16_t *out, struct unpacking *u)
{
    u->codes = t->codes + (unit.block * t->inputs + unit.k) * (BLOCK / 2);
    u->lines = t->lines + 2 * (unit.k / t->group * t->outputs + unit.block * BLOCK);
    u->out = out, u->at = 0, u->inputs = unit.inputs, u->group = t->group, u->outputs = t->outputs;
}

/* `t->part` blocks, or pairs of them, or what is left. */
static void many4_part(const void *task, int64_t part)
{
    const struct many4 *const t = task;
    const int64_t kinds = t->gated ? 2 : 1, blocks = t->outputs / BLOCK / kinds, end = (part + 1) * t->part, last = end < blocks ? end : blocks;
    const int64_t each = kinds * ((t->inputs + MOST_UNIT - 1) / MOST_UNIT), tiles = (t->rows + TILE - 1) / TILE;
    const int64_t passes = (tiles + 1) / 2 * 2, count = (TILE + passes - 1) / passes, room = tiles * PARTS * TILE * TILE;
    uint16_t unpacked_tiles[2][BLOCK * MOST_UNIT] __attribute__((aligned(64)));
    float sums[2 * room] __attribute__((aligned(64)));
    const int64_t counts[4] = {count / 4, count / 2 - count / 4, 3 * count / 4 - count / 2, count - 3 * count / 4};
    struct unpacking next;
    unpack_from(t, unit_of(t, part * t->part * each), unpacked_tiles[0], &next);
    unpack_some(&next, MOST_UNIT);
    configured(TILE);
    for (int64_t i = 0, number = part * t->part * each; number < last * each; number++, i++) {
        const struct unit unit = unit_of(t, number);
        const int64_t second = number % each * kinds / each;
        if (number + 1 < last * each)
            unpack_from(t, unit_of(t, number + 1), unpacked_tiles[(i + 1) % 2], &next);
        for (int64_t tile = 0; tile < tiles; tile += 2)
            for (int64_t p = 0; p < PARTS; p += 2) {
                const uint16_t *from = unpacked_tiles[i % 2] + p * unit.inputs * TILE;
                float *to = sums + second * room + (tile * PARTS + p) * TILE * TILE;
                if (tile + 1 < tiles)
                    multiplied_unit(t, unit.k, unit.inputs, tile, 1, from, to, &next, counts);
                else
                    multiplied_unit(t, unit.k, unit.inputs, tile, 0, from, to, &next, counts);
            }
        unpack_some(&next, MOST_UNIT);
        if ((number + 1) % each == 0)
            put_block(t, number / each, sums, t->gated ? sums + room : NULL);
    }
    _tile_release();
}

#undef INLINE
