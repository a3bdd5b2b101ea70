/* Rows times a matrix in 4 or 8 bits on CPUs with a matrix unit for bf16 (AMX): codes are never unpacked beyond a core's caches.

   In 4 bits, two inputs of 16 outputs are a row of a tile. Each code stands there as 16 + q, which is exact in bf16, so that a group of a row is
   `scale * sum((16 + q) x) + (zero - 24 * scale) * sum(x)`, summed in fp32 and rounded once.

   n: rows   K: inputs   N: outputs   G: groups of a row */

enum { BLOCK = 64, PARTS = 4, TILE = 16, TILE_INPUTS = 32, AHEAD = 1024 /* bytes */ };

struct task {
    int64_t rows, inputs, outputs, group, first, last; /* of the outputs' blocks, `last` exclusive */
    const uint16_t *x;     /* bf16 [n, K], n at most 16 or a multiple of it */
    const uint8_t *codes;  /* [N / 64, K, 32]: low halves are a block's first 32 outputs */
    const uint16_t *lines; /* bf16 [G, N, 2]: scale and zero */
    float *sums;           /* [n, G], written here */
    float *totals;         /* [n, 64], written here */
    uint16_t *out;         /* bf16 [n, N] */
};

struct shapes {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

#define INLINE static inline __attribute__((always_inline))

/* What each row's inputs of each group sum up to. */
INLINE void summed(const struct task *t)
{
    const int64_t groups = t->inputs / t->group;
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t g = 0; g < groups; g++) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t k = 0; k < t->group; k += TILE) {
                const __m256i some = _mm256_loadu_si256((const __m256i *)(t->x + r * t->inputs + g * t->group + k));
                sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(some), 16)));
            }
            t->sums[r * groups + g] = _mm512_reduce_add_ps(sum);
        }
}

/* 32 outputs of two inputs, a byte `q << 3` each, as pairs of bf16: outputs 0 to 7 and 16 to 23, then the others. */
INLINE void paired(__m256i one, __m256i other, uint16_t *first, uint16_t *second)
{
    const __m512i common = _mm512_set1_epi16(0x4180); /* 16 in bf16 */
    _mm512_store_si512(first, _mm512_or_si512(_mm512_cvtepu8_epi16(_mm256_unpacklo_epi8(one, other)), common));
    _mm512_store_si512(second, _mm512_or_si512(_mm512_cvtepu8_epi16(_mm256_unpackhi_epi8(one, other)), common));
}

/* A group of a block as tiles of the matrix unit: [4 parts, inputs / 2, 16 outputs, 2]. */
INLINE void unpacked(const uint8_t *codes, int64_t inputs, uint16_t *out)
{
    const __m256i mask = _mm256_set1_epi8(0x78);
    const int64_t part = inputs * TILE;
    for (int64_t k = 0; k < inputs; k += 2, codes += BLOCK, out += 2 * TILE) {
        _mm_prefetch((const char *)codes + AHEAD, _MM_HINT_T0);
        const __m256i one = _mm256_loadu_si256((const __m256i *)codes);
        const __m256i other = _mm256_loadu_si256((const __m256i *)(codes + BLOCK / 2));
        paired(_mm256_and_si256(_mm256_slli_epi16(one, 3), mask), _mm256_and_si256(_mm256_slli_epi16(other, 3), mask), out, out + part);
        paired(_mm256_and_si256(_mm256_srli_epi16(one, 1), mask), _mm256_and_si256(_mm256_srli_epi16(other, 1), mask), out + 2 * part,
               out + 3 * part);
    }
}

/* Scale and origin of a group's 64 outputs, in the order of the parts. */
INLINE void lined(const uint16_t *line, __m512 scale[PARTS], __m512 origin[PARTS])
{
    for (int half = 0; half < 2; half++) {
        const __m512i low = _mm512_loadu_si512(line + half * BLOCK), high = _mm512_loadu_si512(line + half * BLOCK + 2 * TILE);
        const __m512i both[2] = {_mm512_shuffle_i64x2(low, high, 0x44), _mm512_shuffle_i64x2(low, high, 0xee)};
        for (int p = 0; p < 2; p++) {
            const __m512 zero = _mm512_castsi512_ps(_mm512_and_si512(both[p], _mm512_set1_epi32((int)0xffff0000)));
            scale[2 * half + p] = _mm512_castsi512_ps(_mm512_slli_epi32(both[p], 16));
            origin[2 * half + p] = _mm512_fnmadd_ps(scale[2 * half + p], _mm512_set1_ps(24), zero);
        }
    }
}

INLINE void stored(uint16_t *out, const float *totals)
{
    for (int half = 0; half < 2; half++) {
        const __m512 low = _mm512_loadu_ps(totals + 2 * half * TILE), high = _mm512_loadu_ps(totals + (2 * half + 1) * TILE);
        const __m512 first = _mm512_shuffle_f32x4(low, high, 0x44), second = _mm512_shuffle_f32x4(low, high, 0xee);
        _mm512_storeu_si512(out + half * 2 * TILE, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
}

/* The four tiles of sums, as nothing. */
INLINE void begun(void)
{
    __asm__ volatile("" ::: "memory"); /* a compiler does not know what tiles are loaded from */
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

INLINE void ended(float products[PARTS][TILE * TILE])
{
    _tile_stored(0, products[0], 4 * TILE);
    _tile_stored(1, products[1], 4 * TILE);
    _tile_stored(2, products[2], 4 * TILE);
    _tile_stored(3, products[3], 4 * TILE);
}

INLINE void multiplied(const struct task *t, int64_t g, const uint16_t *tiles, const uint16_t *line)
{
    const int64_t groups = t->inputs / t->group, rows = t->rows < TILE ? t->rows : TILE;
    __m512 scale[PARTS], origin[PARTS];
    float products[PARTS][TILE * TILE] __attribute__((aligned(64)));
    lined(line, scale, origin);
    for (int64_t r = 0; r < t->rows; r += TILE) {
        begun();
        for (int64_t k = 0; k < t->group; k += TILE_INPUTS) {
            const uint16_t *some = tiles + k * TILE;
            _tile_loadd(4, t->x + r * t->inputs + g * t->group + k, 2 * t->inputs);
            _tile_loadd(5, some, 4 * TILE);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, some + t->group * TILE, 4 * TILE);
            _tile_dpbf16ps(1, 4, 6);
            _tile_loadd(5, some + 2 * t->group * TILE, 4 * TILE);
            _tile_dpbf16ps(2, 4, 5);
            _tile_loadd(6, some + 3 * t->group * TILE, 4 * TILE);
            _tile_dpbf16ps(3, 4, 6);
        }
        ended(products);
        for (int64_t i = 0; i < rows; i++) {
            const __m512 sum = _mm512_set1_ps(t->sums[(r + i) * groups + g]);
            float *totals = t->totals + (r + i) * BLOCK;
            for (int p = 0; p < PARTS; p++) {
                const __m512 before = g ? _mm512_loadu_ps(totals + p * TILE) : _mm512_setzero_ps();
                const __m512 more = _mm512_fmadd_ps(scale[p], _mm512_load_ps(products[p] + i * TILE), before);
                _mm512_storeu_ps(totals + p * TILE, _mm512_fmadd_ps(origin[p], sum, more));
            }
        }
    }
}

INLINE void configured(int rows)
{
    struct shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = 4 * TILE;
        shapes.rows[i] = i < 5 ? rows : TILE; /* what is summed and what comes first have a row each */
    }
    _tile_loadconfig(&shapes);
}

static void product(const struct task *t)
{
    const int64_t groups = t->inputs / t->group;
    uint16_t tiles[2][BLOCK * MOST_GROUP] __attribute__((aligned(64)));
    summed(t);
    configured(t->rows < TILE ? t->rows : TILE);
    for (int64_t block = t->first; block < t->last; block++) {
        const uint8_t *codes = t->codes + block * t->inputs * (BLOCK / 2);
        unpacked(codes, t->group, tiles[0]);
        for (int64_t g = 0; g < groups; g++) {
            if (g + 1 < groups) /* one ahead: what was stored just now cannot be loaded into a tile yet */
                unpacked(codes + (g + 1) * t->group * (BLOCK / 2), t->group, tiles[(g + 1) % 2]);
            multiplied(t, g, tiles[g % 2], t->lines + 2 * (g * t->outputs + block * BLOCK));
        }
        for (int64_t r = 0; r < t->rows; r++)
            stored(t->out + r * t->outputs + block * BLOCK, t->totals + r * BLOCK);
    }
    _tile_release();
}

struct bytes_task {
    int64_t rows, inputs, outputs, first, last; /* of 16 outputs each, `last` exclusive */
    const uint16_t *x;      /* bf16 [n, K], K a multiple of 32 */
    const int8_t *codes;    /* [N, K] */
    const uint16_t *scales; /* bf16 [N] */
    uint32_t *inputs_first; /* pairs of bf16 [n / 16, K / 2, 16], written here; n rounded up */
    uint16_t *tiles;        /* bf16 [K / 32, 16, 32], written here */
    uint16_t *out;          /* bf16 [N, n rounded up to 16] */
};

INLINE void turned_about(const struct bytes_task *t)
{
    for (int64_t r = 0; r < t->rows; r += TILE)
        for (int64_t k = 0; k < t->inputs / 2; k++)
            for (int64_t i = 0; i < TILE; i++) {
                uint32_t *to = t->inputs_first + (r * t->inputs / 2) + k * TILE + i;
                *to = 0;
                if (r + i < t->rows)
                    memcpy(to, t->x + (r + i) * t->inputs + 2 * k, sizeof *to);
            }
}

INLINE void widened(const int8_t *codes, int64_t inputs, uint16_t *out)
{
    for (int64_t k = 0; k < inputs; k += TILE_INPUTS)
        for (int64_t i = 0; i < TILE; i++, out += TILE_INPUTS) {
            const int8_t *from = codes + i * inputs + k;
            _mm_prefetch((const char *)from + TILE * inputs, _MM_HINT_T0); /* what is next */
            const __m512i low = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from));
            const __m512i high = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(from + TILE)));
            _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(_mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(low)));
        }
}

/* 16 outputs for up to 4 times 16 rows. */
INLINE void multiplied_bytes(const struct bytes_task *t, int64_t block, int64_t row, int64_t count)
{
    const int64_t width = t->inputs * TILE / 2, rows = (t->rows + TILE - 1) / TILE * TILE;
    const uint32_t *x = t->inputs_first + row * t->inputs / 2;
    float products[PARTS][TILE * TILE] __attribute__((aligned(64)));
    begun();
    for (int64_t k = 0; k < t->inputs; k += TILE_INPUTS, x += TILE * TILE) {
        _tile_loadd(4, t->tiles + k * TILE, 4 * TILE);
        _tile_loadd(5, x, 4 * TILE);
        _tile_dpbf16ps(0, 4, 5);
        if (count > 1) {
            _tile_loadd(6, x + width, 4 * TILE);
            _tile_dpbf16ps(1, 4, 6);
        }
        if (count > 2) {
            _tile_loadd(5, x + 2 * width, 4 * TILE);
            _tile_dpbf16ps(2, 4, 5);
        }
        if (count > 3) {
            _tile_loadd(6, x + 3 * width, 4 * TILE);
            _tile_dpbf16ps(3, 4, 6);
        }
    }
    ended(products);
    for (int64_t i = 0; i < TILE; i++) {
        const int64_t output = block * TILE + i;
        const __m512 scale = _mm512_castsi512_ps(_mm512_set1_epi32((int)((uint32_t)t->scales[output] << 16)));
        for (int64_t tile = 0; tile < count; tile++) {
            const __m512 scaled = _mm512_mul_ps(scale, _mm512_load_ps(products[tile] + i * TILE));
            _mm256_storeu_si256((__m256i *)(t->out + output * rows + row + tile * TILE), (__m256i)_mm512_cvtneps_pbh(scaled));
        }
    }
}

static void bytes_product(const struct bytes_task *t)
{
    configured(TILE);
    turned_about(t);
    for (int64_t block = t->first; block < t->last; block++) {
        widened(t->codes + block * TILE * t->inputs, t->inputs, t->tiles);
        for (int64_t row = 0; row < t->rows; row += 4 * TILE) {
            const int64_t left = (t->rows - row + TILE - 1) / TILE;
            multiplied_bytes(t, block, row, left < 4 ? left : 4);
        }
    }
    _tile_release();
}

#undef INLINE
