/* What a Block does to many rows of bf16 between its products. Included once for each kind of CPU, behind heads.h. Everything is fp32 inside, in the
   order in which torch does it, and rounded once: without memory for what is in between, which the system would have to give each time.

   R: rows   T: heads   D: head_dim, a multiple of 32   H: hidden, a multiple of 16   n: rows of one expert */

/* Some rows' heads turned by their positions' angles, halves against each other. */
static void OF(turned_rows)(const void *turning, int64_t part)
{
    const struct turning *const t = turning;
    const int64_t d = t->head_dim, end = (part + 1) * SOME_ROWS;
    for (int64_t r = part * SOME_ROWS; r < end && r < t->rows; r++)
        for (int64_t head = 0; head < t->heads; head++)
            OF(rotated)(t->x + r * t->stride + head * d, t->cos + r * d, t->sin + r * d, d, t->out + (r * t->heads + head) * d);
}

/* Some rows, and the sums of what their experts put out, times how much it counts for each. */
static void OF(summed_rows)(const void *summing, int64_t part)
{
    const struct summing *const t = summing;
    const int64_t begin = part * SOME_ROWS, end = begin + SOME_ROWS;
    int64_t at[t->count];
    for (int64_t e = 0; e < t->count; e++)
        for (at[e] = 0; at[e] < t->each[e].rows && t->each[e].index[at[e]] < begin;)
            at[e]++;
    for (int64_t r = begin; r < end && r < t->rows; r++) {
        const uint16_t *from[t->count];
        float weight[t->count];
        int64_t count = 0;
        for (int64_t e = 0; e < t->count; e++) {
            const struct share *const share = t->each + e;
            if (at[e] < share->rows && share->index[at[e]] == r) {
                from[count] = share->outputs + at[e] * t->hidden;
                weight[count++] = share->weight[at[e]++];
            }
        }
        OF(mixed)(t->h + r * t->hidden, from, weight, count, t->hidden, t->out + r * t->hidden);
    }
}
