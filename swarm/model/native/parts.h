/* What dots.h, one.h, heads.h, between.h, ranked.h and row.h are given.

   n: rows   b: blocks   H: hidden   D: head_dim   NH: heads   KV: key-value heads   E: experts   N: outputs   K: inputs   G: groups of a row */

enum { PART_ROWS = 64, WHOLE_ROWS = 8 /* that a thread multiplies, and has in whole numbers, at a time */ };
enum { MOST_GROUP = 128, MOST_WHOLE = 32767, HIGH = 16, AT_ONCE = 4, SPAN = LANES, NORM_ROWS = 16 };

/* Bytes ahead that a matrix is fetched: of one row, then of several. An AMD CPU (Zen 4) reads one row's matrix 10 to 20% quicker at 256 than at
   2048, which is what Intel's were measured with; several rows compute for longer. */
static int64_t fetched_ahead[2] = {2048, 2048};

/* Bytes ahead that one row's codes of 4 bits are fetched into the second cache as well, 0: they are not. An AMD core (Zen 4) whose other thread is
   busy reads them twice as quick for it; where it has the core to itself, a twentieth slower. */
static int64_t fetched_far;

__attribute__((constructor)) static void know_this_cpu(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_is("amd"))
        fetched_ahead[0] = 256, fetched_far = 4096;
}

/* Rows [n, K] in whole numbers. */
struct whole {
    int16_t *numbers;     /* [G, n, K / G] */
    float *scales, *sums; /* [G, n] each: s, and what the group's inputs sum up to */
};

struct dots {
    int64_t rows, inputs, outputs, group, height;
    int64_t wide;  /* whether by vectors of 512 bits, which take blocks of 64 */
    int64_t parts; /* of the rows, `PART_ROWS` at most in each */
    const uint16_t *x;     /* bf16 [n, K] */
    const uint8_t *codes;  /* [b, K, height / 2]: low halves are a block's first outputs */
    const uint16_t *lines; /* bf16 [S, G / S, N, 2]: scale and zero */
    uint16_t *out;         /* bf16 [n, N] */
    struct whole whole;    /* what `x` becomes */
    const uint8_t *second; /* as `codes`, whose 16th part these count; null: there are no others */
    int64_t shares;        /* of the groups, 0 for one: a share has every S-th */
};

struct one {
    int64_t inputs, outputs, part, wide;
    const uint16_t *x;      /* bf16 [K] */
    const void *w;          /* bf16 or int8 [N, K] */
    const uint16_t *scales; /* bf16 [N]; null: `w` is of bf16 */
    uint16_t *out;          /* bf16 [N] */
};

/* What a tile's weights are: a matrix's own, or laid out as they are multiplied. */
enum { OF_BF16, OF_BYTES, OF_STRIP };
enum { MOST_OUTPUTS = 6, MOST_TILE_ROWS = 8, MOST_TILE = 24, MOST_SUMS = 80, STRIP_INPUTS = 1024, TILE_AHEAD = 4096 /* bytes */ };

struct several {
    int64_t rows, inputs, outputs, part; /* outputs that one thread takes at a time */
    int64_t whole, small;   /* rows of a group, where there is one and where there are more */
    const uint16_t *x;      /* bf16 [n, K] */
    const void *w;          /* bf16 or int8 [N, K] */
    const uint16_t *scales; /* bf16 [N]; null: `w` is of bf16 */
    void *laid;             /* room for `x` in the numbers that are multiplied */
    uint16_t *out;          /* bf16 [n, N] */
};

/* Some inputs of some outputs times a group, added to its sums where these have begun: [rows, width], of which `sums` are the first. What comes soon is
   fetched: of the matrix where it is met as it lies, else of two outputs that are `next`. */
struct tile {
    const char *const *w; /* of each output */
    const void *x;
    int64_t inputs;
    void *sums;
    int64_t begun;
    const char *const *next;
    int64_t next_size; /* bytes of a weight */
};

static inline int64_t least(int64_t one, int64_t other)
{
    return one < other ? one : other;
}

static inline int64_t groups_of(const struct several *t)
{
    return t->rows <= t->whole ? 1 : (t->rows + t->small - 1) / t->small;
}

/* Groups are as equal as can be. */
static inline int64_t first_row(const struct several *t, int64_t group)
{
    return group * t->rows / groups_of(t);
}

/* Of some outputs that lie `apart`, for each of the rows: [rows, outputs]. */
static inline void scales_of(const struct several *t, int64_t rows, int64_t output, int64_t outputs, int64_t apart, float *to)
{
    for (int64_t r = 0; t->scales && r < rows; r++)
        for (int64_t o = 0; o < outputs; o++)
            *to++ = WIDENED(t->scales[least(output + o * apart, t->outputs - 1)]);
}

/* A matrix as one row meets it; in 4 bits where it has groups. */
struct matrix {
    int64_t inputs, outputs, group, part; /* outputs that one thread takes at a time */
    const void *codes;
    const uint16_t *lines;
};

struct heads {
    int64_t heads, kv_heads, head_dim, window; /* positions that are seen, 0: all */
    float scale;
};

struct attention {
    struct heads heads;
    struct matrix wqkv, wo;
    const uint16_t *norm; /* bf16 [H] */
    float eps;
};

/* The last norm, and the output matrix. */
struct head {
    struct matrix output;
    const uint16_t *norm; /* bf16 [H] */
    float eps;
};

/* Rows of one Session, at positions that follow each other. */
struct session {
    int64_t first, rows, position; /* of the first row, which is `first` of all of them */
    const int64_t *pages;
};

/* Where rows of some Sessions are. */
struct places {
    int64_t count, page; /* Sessions, positions of a page */
    const struct session *each;
    const float *cos, *sin;  /* [n, D]; the first half of the sines negated */
    uint16_t *keys, *values; /* bf16 [all pages, page, KV, D] */
};

struct attending {
    const struct heads *of;
    const struct places *at;
    const uint16_t *qk, *v;   /* bf16 [n, (NH + KV) D], [n, KV D] */
    int64_t qk_apart, v_apart; /* from a row to the next */
    uint16_t *out;            /* bf16 [n, NH D] */
};

struct experts {
    int64_t hidden, count, top_k, over_chosen, part;
    float eps;
    const uint16_t *norm, *router; /* bf16 [H], [E, H]; null: there is one expert */
    const struct matrix *w13, *w2; /* [E] each */
};

/* Rows that one expert is given. */
struct share {
    int64_t rows;
    const int64_t *index;    /* [n], ascending */
    const float *weight;     /* [n] */
    const uint16_t *outputs; /* bf16 [n, H] */
};

/* Rows on their way to experts. */
struct routing {
    int64_t rows;
    const uint16_t *h, *added; /* bf16 [n, H] each; null: nothing is added */
    uint16_t *total, *x;       /* bf16 [n, H]: `h` and what is added, and its norm */
    uint16_t *given;           /* bf16 [n top_k, H]: each expert's rows of `x`; null: there is one expert, which is given all */
    int64_t *chosen;           /* [E]: who is chosen by any row, ascending */
    struct share *shares;      /* [E] of these, without outputs */
    int64_t *index;            /* [n top_k], which they point into */
    float *weight;
};

struct choosing {
    const struct one *of; /* the first row; the others lie behind it */
    int64_t rows, part;
    float *logits; /* [n, E] */
};

struct summing {
    int64_t rows, hidden, count;
    const struct share *each;
    const uint16_t *h; /* bf16 [n, H], added at last */
    uint16_t *out;     /* bf16 [n, H] */
};

struct norms {
    const uint16_t *x, *added, *weight; /* bf16 [n, H] each; null: nothing is added; [H] */
    int64_t rows, hidden;
    float eps;
    uint16_t *total, *out; /* bf16 [n, H] each: `x` and what is added, where something is; its norm */
};

/* A row of logits, and what is told of it. */
struct ranking {
    int64_t vocab, k;       /* of them, so many best are told */
    const uint16_t *logits; /* bf16 [V] */
    int32_t *ids;           /* [k]: whose they are, best first */
    float *best;            /* [k] */
    double *sums;           /* [3]: the largest logit; e to the power of all less that, added up, and the same times `factor` */
    float factor;
};

/* A logit's place among all that there are, as a whole number; what is no number is beyond the infinities. */
static inline int16_t rank_of(uint16_t logit)
{
    return logit & 0x8000 ? -(logit & 0x7fff) : logit;
}

struct team {
    int64_t threads, wide;
};
