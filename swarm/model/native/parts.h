/* What row.h and heads.h are given.

   n: rows   H: hidden   D: head_dim   NH: heads   KV: key-value heads   E: experts   N: outputs   K: inputs   G: groups of a row */

/* A matrix as one row meets it; in 4 bits where it has groups. */
struct matrix {
    int64_t inputs, outputs, group, part; /* outputs that one thread takes at a time */
    const void *codes;
    const uint16_t *lines;
};

struct attention {
    int64_t heads, kv_heads, head_dim, window; /* positions that are seen, 0: all */
    float eps, scale;
    const uint16_t *norm; /* bf16 [H] */
    struct matrix wqkv, wo;
};

/* Where a row is. */
struct place {
    int64_t position, page;
    const float *cos, *sin;  /* [D]; the first half of the sines negated */
    const int64_t *pages;    /* of the Session */
    uint16_t *keys, *values; /* bf16 [all pages, page, KV, D] */
};

struct attending {
    const struct attention *of;
    const struct place at;
    const uint16_t *qkv; /* bf16 [(NH + 2 KV) D] */
    uint16_t *out;       /* bf16 [NH D] */
};

struct experts {
    int64_t hidden, count, top_k, over_chosen, part;
    float eps;
    const uint16_t *norm, *router; /* bf16 [H], [E, H]; null: there is one expert */
    const struct matrix *w13, *w2; /* [E] each */
};

struct choosing {
    const struct one *of;
    int64_t part;
    float *logits;
};

struct norms {
    const uint16_t *x, *weight; /* bf16 [n, H], [H] */
    int64_t rows, hidden;
    float eps;
    uint16_t *out;
};

struct team {
    int64_t threads, wide;
    parallel run;
};
