/* A tile of a matrix in few bits, as bf16. Included once for each kind of CPU, whose name `OF` puts behind a function's.

   `w = c * scale + m * (zero - 8 * scale)`: one plane has codes c of 0 to 15 and m is 1, two have 0 to 255 and 17. A code times a
   scale of bf16 is exact in fp32, so whatever the compiler joins, the sum is rounded once there and once to bf16.

   b: blocks   K: inputs   h: rows of a block, a multiple of 32   G: groups of a row   S: shares of the groups
   `swarm/model/quant/int4_layout.py` says how codes lie: low halves of a byte are the first h / 2 rows of a block. */

static void OF(grouped)(const uint8_t *codes,  /* [b, K, h / 2], the high plane's */
                        const uint8_t *second, /* the low plane's, or null */
                        const uint16_t *lines, /* bf16 [S, G / S, line_rows, 2]: scale and zero, from the tile's first row on */
                        uint16_t *out,         /* bf16 [K, b * h] */
                        const struct sizes *n)
{
    const int64_t half = n->height / 2, vectors = half / LANES, group = n->inputs / n->groups;
    const float zeros = second ? 17 : 1;
    for (int64_t g = 0; g < n->groups; g++)
        for (int64_t b = 0; b < n->blocks; b++) {
            floats scale[MOST_VECTORS], origin[MOST_VECTORS];
            const uint16_t *line = lines
                + 2 * ((g % n->shares * (n->groups / n->shares) + g / n->shares) * n->line_rows + b * n->height);
            for (int64_t j = 0; j < n->height; j++) {
                const float s = WIDENED(line[2 * j]);
                scale[j / LANES][j % LANES] = s;
                origin[j / LANES][j % LANES] = zeros * (WIDENED(line[2 * j + 1]) - 8 * s);
            }
            for (int64_t k = g * group; k < (g + 1) * group; k++)
                for (int64_t v = 0; v < vectors; v++) {
                    const int64_t at = (b * n->inputs + k) * half + v * LANES;
                    uint16_t *to = out + k * n->blocks * n->height + b * n->height + v * LANES;
                    bytes c, d = {0};
                    memcpy(&c, codes + at, sizeof c);
                    if (second) {
                        memcpy(&d, second + at, sizeof d);
                        PUT(to, (c << 4) | (d & 15), scale[v], origin[v]);
                        PUT(to + half, (c & 240) | (d >> 4), scale[vectors + v], origin[vectors + v]);
                    } else {
                        PUT(to, c & 15, scale[v], origin[v]);
                        PUT(to + half, c >> 4, scale[vectors + v], origin[vectors + v]);
                    }
                }
        }
}
