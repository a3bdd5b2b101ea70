/* A CPU's own products, and what is between them: each header says what it takes, docs/design.md which rows go where.

   Optional: where it was not compiled, or a CPU has not what a header wants, torch computes (swarm/model/quant/planes.py unpacks with the
   same bits). */

#define _GNU_SOURCE /* names of threads */
#include <stdint.h>
#include <string.h>

enum { LANES = 16, MOST_ROWS = 64, MOST_PIECES = 2 };

typedef uint8_t bytes __attribute__((vector_size(LANES)));
typedef uint16_t shorts __attribute__((vector_size(2 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef float floats __attribute__((vector_size(4 * LANES)));

struct sizes {
    int64_t blocks, inputs, height, groups, shares, line_rows, out_stride;
};

/* No functions: each kind of CPU would need its own. */
#define WIDENED(b) (((union { uint32_t bits; float number; }){.bits = (uint32_t)(b) << 16}).number)
#define PUT(to, code, scale, origin)                                                                                    \
    do {                                                                                                                \
        const words w = (words)((origin) + (scale) * __builtin_convertvector(__builtin_convertvector(code, integers), floats)); \
        const shorts rounded = __builtin_convertvector((w + 0x7fff + ((w >> 16) & 1)) >> 16, shorts);                   \
        memcpy(to, &rounded, sizeof rounded);                                                                           \
    } while (0)

#define OF(what) what##_anywhere
#include "tile.h"
#undef OF
#define BEST(what) what##_anywhere

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("arch=haswell")
#define OF(what) what##_avx2
#include "tile.h"
#undef OF
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=skylake-avx512")
#define OF(what) what##_avx512
#include "tile.h"
#undef OF
#pragma GCC pop_options

#undef BEST
#define BEST(what) \
    (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") ? what##_avx512 \
     : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")        ? what##_avx2 \
                                                                              : what##_anywhere)
#endif

#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#include <immintrin.h>
#include "parts.h"
#include "team.h"

enum { SOME_ROWS = 32 /* that a thread takes at a time */ };

/* For between.h. */
struct turning {
    int64_t rows, heads, head_dim, stride; /* from a row to the next */
    const uint16_t *x;      /* bf16 [R, T, D] */
    const float *cos, *sin; /* [R, D]; the first half of the sines negated */
    uint16_t *out;          /* bf16 [R, T, D], contiguous */
};

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "dots_avx2.h"
static inline float summed_avx2(__m256 of)
{
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(of), _mm256_extractf128_ps(of, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#define OF(what) what##_avx2
#define NUMBERS __m256
#define WIDTH 8
#define NOTHING _mm256_setzero_ps()
#define EVEN(at) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)(at)), 16))
#define ODD(at) _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256((const __m256i *)(at)), _mm256_set1_epi32((int)0xffff0000)))
#define WIDENED_BF16(at) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(at))), 16))
#define WIDENED_BYTES(at) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(at))))
#define JOINED _mm256_fmadd_ps
#define ADDED _mm256_add_ps
#define SUMMED summed_avx2
#include "dots.h"
#include "one.h"
#include "heads.h"
#include "between.h"
#include "ranked.h"
#define WHOLE_GROUP UP_TO_6
#define SMALL_GROUP UP_TO_6
#define STRIP 12
#define OUTPUTS_OF(form, rows) ((rows) > 3 ? 2 : (rows) > 2 ? 3 : (rows) > 1 ? 4 : 6)
#define FACTOR float
#define FACTORS NUMBERS
#define MULTIPLIED JOINED
#define WEIGHT(form, at, half, to) ((to)[half] = (form) == OF_BYTES ? WIDENED_BYTES((at) + (half) * WIDTH) : (half) ? ODD(at) : EVEN(at))
#define LIES 0
#define LAID(x, half, natural) ((natural) ? WIDENED_BF16((x) + (half) * WIDTH) : (half) ? ODD(x) : EVEN(x))
#include "several.h"
#undef OF
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")
#include "dots_avx512.h"
#define OF(what) what##_avx512
#define NUMBERS __m512
#define WIDTH 16
#define NOTHING _mm512_setzero_ps()
#define EVEN(at) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(at), 16))
#define ODD(at) _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(at), _mm512_set1_epi32((int)0xffff0000)))
#define WIDENED_BF16(at) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(at))), 16))
#define WIDENED_BYTES(at) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(at))))
#define JOINED _mm512_fmadd_ps
#define ADDED _mm512_add_ps
#define SUMMED _mm512_reduce_add_ps
#include "dots.h"
#include "one.h"
#include "heads.h"
#include "between.h"
#include "ranked.h"
#define WHOLE_GROUP UP_TO_8
#define SMALL_GROUP UP_TO_4
#define STRIP 6
#define OUTPUTS_OF(form, rows) ((form) == OF_STRIP ? 6 : (rows) > 6 ? 3 : 4)
#define FACTOR float
#define FACTORS NUMBERS
#define MULTIPLIED JOINED
#define WEIGHT(form, at, half, to) ((to)[half] = (form) == OF_BYTES ? WIDENED_BYTES((at) + (half) * WIDTH) : (half) ? ODD(at) : EVEN(at))
#define LIES 0
#define LAID(x, half, natural) ((natural) ? WIDENED_BF16((x) + (half) * WIDTH) : (half) ? ODD(x) : EVEN(x))
#include "several.h"
#undef OF
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,avx512bf16")
#include "pairs.h"
#define OF(what) what##_pairs
#define each_summed_pairs each_summed_avx512
#define write_lanes_pairs write_lanes_avx512
#define NUMBERS __m512
#define NOTHING _mm512_setzero_ps()
#define WHOLE_GROUP UP_TO_8
#define SMALL_GROUP UP_TO_4
#define STRIP 6
#define OUTPUTS_OF(form, rows) ((form) == OF_STRIP ? 6 : (rows) > 6 ? 3 : 4)
#define FACTOR uint16_t
#define FACTORS __m512i
#define MULTIPLIED(w, x, sum) _mm512_dpbf16_ps(sum, (__m512bh)(w), (__m512bh)(x))
#define WEIGHT paired_weight
#define LIES 1
#define LAID paired_row
#include "several.h"
#undef OF
#pragma GCC pop_options

enum { NO_DOTS, DOTS, WIDE_DOTS };

/* What this CPU can. */
int swarm_has_dots(void)
{
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vl"))
        return WIDE_DOTS;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? DOTS : NO_DOTS;
}

void swarm_one(const struct one *t, int64_t threads)
{
    share_out(t->wide ? one_part_avx512 : one_part_avx2, t, (t->outputs + t->part - 1) / t->part, threads);
}

/* See `swarm_expert`. */
void swarm_one_expert(const struct one *first, const struct one *second, int64_t threads)
{
    swarm_one(first, threads);
    (first->wide ? gated_avx512 : gated_avx2)(first->out, 1, first->outputs / 2, (uint16_t *)second->x);
    swarm_one(second, threads);
}

static void shared_dots(const struct dots *t, int64_t threads)
{
    share_out(t->wide ? dots_part_avx512 : dots_part_avx2, t, (t->outputs / t->height + 1) / 2 * t->parts, threads);
}

static int64_t whole_parts(const struct dots *t)
{
    return (t->rows + WHOLE_ROWS - 1) / WHOLE_ROWS;
}

void swarm_dots(const struct dots *t, int64_t threads)
{
    share_out(t->wide ? in_whole_numbers_avx512 : in_whole_numbers_avx2, t, whole_parts(t), threads);
    shared_dots(t, threads);
}

struct gating {
    const struct dots *first, *second;
};

static void some_gated(const void *gating, int64_t part)
{
    const struct gating *const g = gating;
    const struct dots *const t = g->second;
    const int64_t row = part * WHOLE_ROWS, rows = row + WHOLE_ROWS < t->rows ? WHOLE_ROWS : t->rows - row;
    (t->wide ? gated_avx512 : gated_avx2)(g->first->out + 2 * row * t->inputs, rows, t->inputs, (uint16_t *)t->x + row * t->inputs);
    (t->wide ? in_whole_numbers_avx512 : in_whole_numbers_avx2)(t, part);
}

/* A SwiGLU expert: `first` has w1 and w3, `second` w2, whose inputs lie behind what `first` puts out. */
void swarm_expert(const struct dots *first, const struct dots *second, int64_t threads)
{
    const struct gating between = {first, second};
    swarm_dots(first, threads);
    share_out(some_gated, &between, whole_parts(second), threads);
    shared_dots(second, threads);
}

enum { BY_AVX2, BY_AVX512, BY_PAIRS };

/* Up to which of these this CPU goes, where it has any (`swarm_has_dots`). */
int swarm_has_several(void)
{
    return swarm_has_dots() != WIDE_DOTS ? BY_AVX2 : __builtin_cpu_supports("avx512bf16") ? BY_PAIRS : BY_AVX512;
}

void swarm_several(const struct several *t, int64_t kind, int64_t threads)
{
    void (*const laid[])(const void *, int64_t) = {laid_group_avx2, laid_group_avx512, laid_group_pairs};
    void (*const parts[])(const void *, int64_t) = {several_part_avx2, several_part_avx512, several_part_pairs};
    share_out(laid[kind], t, groups_of(t), threads);
    share_out(parts[kind], t, (t->outputs + t->part - 1) / t->part, threads);
}

struct gated_rows {
    const struct several *first, *second;
    int64_t kind;
};

static void gate_row(const void *rows, int64_t row)
{
    const struct gated_rows *const g = rows;
    const int64_t ffn = g->second->inputs;
    (g->kind == BY_AVX2 ? gated_avx2 : gated_avx512)(g->first->out + 2 * row * ffn, 1, ffn, (uint16_t *)g->second->x + row * ffn);
}

/* See `swarm_expert`. */
void swarm_several_expert(const struct several *first, const struct several *second, int64_t kind, int64_t threads)
{
    const struct gated_rows gated = {first, second, kind};
    swarm_several(first, kind, threads);
    share_out(gate_row, &gated, first->rows, threads);
    swarm_several(second, kind, threads);
}

void swarm_rotate(const struct turning *t, int64_t wide, int64_t threads)
{
    share_out(wide ? turned_rows_avx512 : turned_rows_avx2, t, (t->rows + SOME_ROWS - 1) / SOME_ROWS, threads);
}

void swarm_sum(const struct summing *t, int64_t wide, int64_t threads)
{
    share_out(wide ? summed_rows_avx512 : summed_rows_avx2, t, (t->rows + SOME_ROWS - 1) / SOME_ROWS, threads);
}

void swarm_rank(const struct ranking *each, int64_t count, int64_t wide, int64_t threads)
{
    share_out(wide ? ranked_avx512 : ranked_avx2, each, count, threads);
}

#include "row.h"
#endif

#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512vbmi,avx512bf16,amx-tile,amx-bf16")
#include "amx.h"
#include "many.h"
#include "many4.h"
#include "attend.h"
#pragma GCC pop_options

enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* Linux: Documentation/arch/x86/xstate.rst */

int swarm_has_tiles(void)
{
    return __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("avx512bf16")
        && __builtin_cpu_supports("avx512vbmi") && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

static void one_product(const void *tasks, int64_t part)
{
    product((const struct task *)tasks + part);
}

static void one_bytes_product(const void *tasks, int64_t part)
{
    bytes_product((const struct bytes_task *)tasks + part);
}

void swarm_product(const struct task *tasks, int64_t count)
{
    share_out(one_product, tasks, count, count);
}

void swarm_bytes_product(const struct bytes_task *tasks, int64_t count)
{
    share_out(one_bytes_product, tasks, count, count);
}

static void many_shared_out(const struct many *t, int64_t threads)
{
    share_out(many_part, t, (t->outputs / (2 * TILE) + t->part - 1) / t->part, threads);
}

void swarm_many(const struct many *t, int64_t threads)
{
    many_begun(t);
    many_shared_out(t, threads);
}

/* See `swarm_expert`. */
void swarm_many_expert(const struct many *first, const struct many *second, int64_t threads)
{
    swarm_many(first, threads);
    many_shared_out(second, threads);
}

void swarm_many4(const struct many4 *t, int64_t threads)
{
    share_out(many4_part, t, (t->outputs / BLOCK / (t->gated ? 2 : 1) + t->part - 1) / t->part, threads);
}

/* Whether this CPU multiplies bf16 in pairs. */
int swarm_has_pairs(void)
{
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vl");
}

void swarm_attend(const struct queries *t, int64_t tiles, int64_t threads)
{
    share_out(keys_begun, t, t->kv_heads * ((t->positions + 2 * TILE - 1) / (2 * TILE)), threads);
    share_out(tiles ? attended_by_tiles : attended_by_pairs, t, t->heads * ((t->rows + QUERIES - 1) / QUERIES), threads);
}
#endif

/* Which layout of what Python passes this was compiled for: another number wherever a structure changes (compiled.py). */
int swarm_layout(void)
{
    return 3;
}

void swarm_grouped(const uint8_t *codes, const uint8_t *second, const uint16_t *lines, uint16_t *out, const struct sizes *n)
{
    BEST(grouped)(codes, second, lines, out, n);
}
