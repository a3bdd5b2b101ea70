/* One row of bf16 through the halves of a Block, each in a call: a norm, products (dots.h, one.h), and what is between them (heads.h). Of a few rows
   what is between the products, in a call each.

   A part of a Block is computed by the same functions whether it is alone or between others, so that an expert answers the same bits wherever
   it is. */

/* One matrix and what it is multiplied with. */
struct factor {
    const struct matrix *w;
    const uint16_t *x; /* [K] */
    uint16_t *out;     /* [N] */
};

struct factors {
    const struct factor *each;
    const struct whole *whole; /* of each, in 4 bits */
    int64_t wide, parts;       /* of each */
};

static void part_of_factor(const void *factors, int64_t part)
{
    const struct factors *const all = factors;
    const int64_t i = part / all->parts;
    const struct factor *const f = all->each + i;
    const struct matrix *const w = f->w;
    if (w->group) {
        const struct dots t = {1, w->inputs, w->outputs, w->group, w->part, all->wide, 1, f->x, w->codes, w->lines, f->out, all->whole[i]};
        (all->wide && w->part == MOST_ROWS ? dots_part_avx512 : dots_part_avx2)(&t, part % all->parts);
    } else {
        const struct one t = {w->inputs, w->outputs, w->part, all->wide, f->x, w->codes, w->lines, f->out};
        (all->wide ? one_part_avx512 : one_part_avx2)(&t, part % all->parts);
    }
}

/* Products with matrices that are alike, shared out together. In 4 bits, `whole` is what each is multiplied with. */
static void share_products(const struct factor *each, const struct whole *whole, int64_t count, const struct team *team)
{
    const struct matrix *const w = each->w;
    const int64_t parts = (w->outputs + w->part - 1) / w->part;
    const struct factors all = {each, whole, team->wide, w->group ? (parts + 1) / 2 : parts};
    share_out(part_of_factor, &all, count * all.parts, team->threads);
}

static void in_whole_numbers(const struct factor *f, const struct whole *whole, int64_t wide)
{
    const struct dots t = {.rows = 1, .inputs = f->w->inputs, .group = f->w->group, .x = f->x, .whole = *whole};
    if (f->w->group)
        (wide ? in_whole_numbers_avx512 : in_whole_numbers_avx2)(&t, 0);
}

/* The same `x` with each of some matrices. */
static void multiply(const struct factor *each, int64_t count, const struct team *team)
{
    const int64_t inputs = each->w->inputs, groups = each->w->group ? inputs / each->w->group : 1;
    int16_t numbers[inputs];
    float scales[groups], sums[groups];
    struct whole whole[count];
    for (int64_t i = 0; i < count; i++)
        whole[i] = (struct whole){numbers, scales, sums};
    in_whole_numbers(each, whole, team->wide);
    share_products(each, whole, count, team);
}

struct gates {
    const struct factor *second;
    const uint16_t *both; /* [K, 2F] */
    const struct whole *whole;
    int64_t wide;
};

/* What is between one expert's products. */
static void gate_one(const void *gates, int64_t i)
{
    const struct gates *const g = gates;
    const int64_t ffn = g->second->w->inputs;
    (g->wide ? gated_avx512 : gated_avx2)(g->both + 2 * i * ffn, 1, ffn, (uint16_t *)g->second[i].x);
    in_whole_numbers(g->second + i, g->whole + i, g->wide);
}

/* Any number of rows. */
void swarm_norm(const struct norms *n, const struct team *team)
{
    share_out(team->wide ? some_normed_avx512 : some_normed_avx2, n, (n->rows + NORM_ROWS - 1) / NORM_ROWS, team->threads);
}

/* What rows [n, NH D] see of their Sessions. Their keys and values are in their pages afterwards. */
void swarm_attend_few(const struct attending *a, const struct team *team)
{
    share_out(team->wide ? attended_avx512 : attended_avx2, a, a->at->count * a->of->kv_heads, team->threads);
}

/* `h` [H] and what attention adds to it: [H]. Its key and value are in their page afterwards. */
void swarm_attention(const struct attention *t, const uint16_t *h, uint16_t *out, const struct places *place, const struct team *team)
{
    const int64_t hidden = t->wqkv.inputs;
    uint16_t x[hidden], qkv[t->wqkv.outputs], seen[t->wo.inputs], added[hidden];
    const uint16_t *const outputs = added;
    const struct attending a = {&t->heads, place, qkv, qkv + (t->heads.heads + t->heads.kv_heads) * t->heads.head_dim, 0, 0, seen};
    const struct factor first = {&t->wqkv, x, qkv}, second = {&t->wo, seen, added};
    const float whole = 1;
    (team->wide ? normed_avx512 : normed_avx2)(h, t->norm, hidden, t->eps, x);
    multiply(&first, 1, team);
    swarm_attend_few(&a, team);
    multiply(&second, 1, team);
    (team->wide ? mixed_avx512 : mixed_avx2)(h, &outputs, &whole, 1, hidden, out);
}

/* The logits [V] of `h` [H]. */
void swarm_head(const struct head *t, const uint16_t *h, uint16_t *logits, const struct team *team)
{
    uint16_t x[t->output.inputs];
    const struct factor product = {&t->output, x, logits};
    (team->wide ? normed_avx512 : normed_avx2)(h, t->norm, t->output.inputs, t->eps, x);
    multiply(&product, 1, team);
}

/* Which experts a row goes to, ascending, and with which weights: `logits` [E] are spent. */
static void choose(const struct experts *t, float *logits, int64_t *chosen, float *weights, int64_t wide)
{
    char taken[t->count];
    memset(taken, 0, sizeof taken);
    for (int64_t i = 0; i < t->top_k; i++) { /* of logits: of what softmax makes of them, many may be the same next to nothing */
        int64_t first = 0;
        while (taken[first])
            first++;
        for (int64_t e = first + 1; e < t->count; e++)
            first = !taken[e] && logits[e] > logits[first] ? e : first;
        taken[first] = 1;
    }
    float total = (wide ? softmax_avx512 : softmax_avx2)(logits, t->count), best = 0;
    for (int64_t e = 0; e < t->count; e++)
        best += taken[e] ? logits[e] : 0;
    for (int64_t e = 0, i = 0; e < t->count; e++)
        if (taken[e])
            chosen[i] = e, weights[i++] = logits[e] / (t->over_chosen ? best : total);
}

/* The experts that each of some rows `x` [n, H] goes to, [n, top_k], and their weights. */
static void choose_all(const struct experts *t, const uint16_t *x, int64_t rows, int64_t *chosen, float *weights, const struct team *team)
{
    float logits[rows * t->count];
    const struct one scores = {.inputs = t->hidden, .outputs = t->count, .x = x, .w = t->router};
    const struct choosing c = {&scores, rows, t->part, logits};
    if (t->router)
        share_out(team->wide ? scored_avx512 : scored_avx2, &c, (t->count + t->part - 1) / t->part, team->threads);
    for (int64_t r = 0; r < rows; r++)
        if (t->router)
            choose(t, logits + r * t->count, chosen + r * t->top_k, weights + r * t->top_k, team->wide);
        else
            chosen[r] = 0, weights[r] = 1; /* one expert, for all rows */
}

/* Rows to their experts: what is added to them, their norm, and for each expert which of them it is given. Answers how many experts that are. */
int64_t swarm_route(const struct experts *t, const struct routing *r, const struct team *team)
{
    const int64_t all = r->rows * t->top_k;
    int64_t chosen[all], begin[t->count + 1], count = 0;
    float weights[all];
    const struct norms norms = {r->h, r->added, t->norm, r->rows, t->hidden, t->eps, r->total, r->x};
    swarm_norm(&norms, team);
    choose_all(t, r->x, r->rows, chosen, weights, team);
    memset(begin, 0, sizeof begin);
    for (int64_t i = 0; i < all; i++)
        begin[chosen[i] + 1]++;
    for (int64_t e = 0; e < t->count; e++) {
        if (begin[e + 1]) {
            r->chosen[count] = e;
            r->shares[count++] = (struct share){begin[e + 1], r->index + begin[e], r->weight + begin[e], 0};
        }
        begin[e + 1] += begin[e];
    }
    for (int64_t i = 0; i < all; i++) {
        const int64_t at = begin[chosen[i]]++, row = i / t->top_k;
        r->index[at] = row, r->weight[at] = weights[i];
        if (r->given)
            memcpy(r->given + at * t->hidden, r->x + row * t->hidden, t->hidden * sizeof *r->x);
    }
    return count;
}

/* `h` [H] and the weighted sum of what some of the experts make of `x` [H], in their order: [H]. */
void swarm_experts(const struct experts *t, const uint16_t *h, const uint16_t *x, const int64_t *chosen, const float *weights,
                   uint16_t *out, const struct team *team)
{
    const int64_t hidden = t->hidden, count = t->top_k, ffn = t->w2[chosen[0]].inputs;
    const int64_t groups = t->w2[chosen[0]].group ? ffn / t->w2[chosen[0]].group : 1;
    uint16_t both[count][2 * ffn], gated[count][ffn], outputs[count][hidden];
    int16_t numbers[count][ffn];
    float scales[count][groups], sums[count][groups];
    const uint16_t *from[count];
    struct factor first[count], second[count];
    struct whole whole[count];
    for (int64_t i = 0; i < count; i++) {
        first[i] = (struct factor){t->w13 + chosen[i], x, both[i]};
        second[i] = (struct factor){t->w2 + chosen[i], gated[i], outputs[i]};
        whole[i] = (struct whole){numbers[i], scales[i], sums[i]};
        from[i] = outputs[i];
    }
    const struct gates gates = {second, both[0], whole, team->wide};
    multiply(first, count, team);
    share_out(gate_one, &gates, count, team->threads);
    share_products(second, whole, count, team);
    (team->wide ? mixed_avx512 : mixed_avx2)(h, from, weights, count, hidden, out);
}

/* Both halves, where all experts are here. */
void swarm_block(const struct attention *a, const struct experts *e, const uint16_t *h, uint16_t *out, const struct places *place,
                 int64_t *chosen, float *weights, const struct team *team)
{
    uint16_t between[e->hidden], x[e->hidden];
    swarm_attention(a, h, between, place, team);
    (team->wide ? normed_avx512 : normed_avx2)(between, e->norm, e->hidden, e->eps, x);
    choose_all(e, x, 1, chosen, weights, team);
    swarm_experts(e, between, x, chosen, weights, out, team);
}

/* The Blocks of a Stage. `chosen` and `weights` have room for `width` experts of each. */
struct layers {
    int64_t count, width;
    const struct layer {
        const struct attention *attention;
        const struct experts *experts;
    } *each;
    uint16_t *const (*kept)[2]; /* each one's keys and values */
    int64_t *chosen;
    float *weights;
    int64_t (*between)(void); /* asked before each whether to go on */
};

/* `h` [H] through all of them, in place, where all experts are here. */
void swarm_blocks(const struct layers *t, uint16_t *h, const struct places *places, const struct team *team)
{
    struct places at = *places;
    for (int64_t i = 0; i < t->count && t->between(); i++) {
        at.keys = t->kept[i][0], at.values = t->kept[i][1];
        swarm_block(t->each[i].attention, t->each[i].experts, h, h, &at, t->chosen + i * t->width, t->weights + i * t->width, team);
    }
}
