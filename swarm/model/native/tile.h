/* A tile of a matrix in few bits, as bf16. Included once for each kind of CPU, whose name `OF` puts behind a function's.

   `w = c * scale + m * (zero - 8 * scale)`: one plane has codes c of 0 to 15 and m is 1, two have 0 to 255 and 17. A code times a
   scale of bf16 is exact in fp32, so whatever the compiler joins, the sum is rounded once there and once to bf16.

   b: blocks   K: inputs   h: rows of a block, a multiple of 32   G: groups of a row, each a multiple of 16   S: shares of the groups
   `swarm/model/quant/int4_layout.py` says how codes lie: low halves of a byte are the first h / 2 rows of a block. */

#define INLINE static inline __attribute__((always_inline))

/* Bytes [16 inputs, 16], each input's `stride` behind the one before, the other way about: [16, 16 inputs]. */
INLINE void OF(turned)(const uint8_t *from, int64_t stride, bytes out[LANES])
{
    const bytes first = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    const bytes other = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    bytes was[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        memcpy(&out[i], from + i * stride, sizeof *out);
#pragma GCC unroll 4
    for (int step = 0; step < 4; step++) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            was[i] = out[i];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            out[2 * i] = __builtin_shuffle(was[i], was[i + LANES / 2], first);
            out[2 * i + 1] = __builtin_shuffle(was[i], was[i + LANES / 2], other);
        }
    }
}

/* What the 16 codes of a row's group stand for: the low bytes of the bf16 numbers, then the high ones. */
INLINE void OF(meanings)(float scale, float origin, bytes out[2])
{
    const bytes codes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    shorts numbers;
    PUT(&numbers, codes, scale, origin);
    out[0] = __builtin_convertvector(numbers & 255, bytes);
    out[1] = __builtin_convertvector(numbers >> 8, bytes);
}

INLINE void OF(looked_up)(uint16_t *to, bytes codes, const bytes meanings[2])
{
    const bytes low = __builtin_shuffle(meanings[0], codes), high = __builtin_shuffle(meanings[1], codes);
    const bytes first = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    const bytes other = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const bytes left = __builtin_shuffle(low, high, first), right = __builtin_shuffle(low, high, other);
    memcpy(to, &left, sizeof left);
    memcpy(to + LANES / 2, &right, sizeof right);
}

static void OF(grouped)(const uint8_t *codes,  /* [b, K, h / 2], the high plane's */
                        const uint8_t *second, /* the low plane's, or null */
                        const uint16_t *lines, /* bf16 [S, G / S, line_rows, 2]: scale and zero, from the tile's first row on */
                        uint16_t *out,         /* bf16 [b * h, K], rows `out_stride` apart */
                        const struct sizes *n)
{
    const int64_t half = n->height / 2, group = n->inputs / n->groups;
    const int64_t pieces = group % (2 * LANES) ? 1 : 2; /* a row's line of the cache is written at once */
    const float zeros = second ? 17 : 1;
    for (int64_t b = 0; b < n->blocks; b++)
        for (int64_t g = 0; g < n->groups; g++) {
            const uint16_t *line = lines
                + 2 * ((g % n->shares * (n->groups / n->shares) + g / n->shares) * n->line_rows + b * n->height);
            float scale[MOST_ROWS], origin[MOST_ROWS];
            bytes meanings[MOST_ROWS][2];
            for (int64_t j = 0; j < n->height; j++) {
                scale[j] = WIDENED(line[2 * j]);
                origin[j] = zeros * (WIDENED(line[2 * j + 1]) - 8 * scale[j]);
                if (!second)
                    OF(meanings)(scale[j], origin[j], meanings[j]);
            }
            for (int64_t v = 0; v < half; v += LANES)
                for (int64_t k = g * group; k < (g + 1) * group; k += pieces * LANES) {
                    uint16_t *to = out + (b * n->height + v) * n->out_stride + k;
                    bytes c[MOST_PIECES][LANES], d[MOST_PIECES][LANES];
                    for (int64_t p = 0; p < pieces; p++) {
                        const int64_t at = (b * n->inputs + k + p * LANES) * half + v;
                        OF(turned)(codes + at, half, c[p]);
                        if (second)
                            OF(turned)(second + at, half, d[p]);
                    }
                    for (int64_t i = 0, j = v; i < LANES; i++, j++, to += n->out_stride)
                        for (int64_t p = 0; p < pieces; p++) {
                            uint16_t *low = to + p * LANES, *high = low + half * n->out_stride;
                            if (second) {
                                PUT(low, (c[p][i] << 4) | (d[p][i] & 15), scale[j], origin[j]);
                                PUT(high, (c[p][i] & 240) | (d[p][i] >> 4), scale[half + j], origin[half + j]);
                            } else {
                                OF(looked_up)(low, c[p][i] & 15, meanings[j]);
                                OF(looked_up)(high, c[p][i] >> 4, meanings[half + j]);
                            }
                        }
                }
        }
}

#undef INLINE
