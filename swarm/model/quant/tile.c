/* Unpacks matrices in few bits to bf16 in one pass: torch's own operations take six (see docs/performance.md). On CPUs with a matrix
   unit it multiplies, too (amx.h).

   Optional: where it was not compiled, swarm/model/quant/planes.py unpacks the same, bit for bit, and torch multiplies. */

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

#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")
#include "amx.h"
#pragma GCC pop_options

enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* Linux: Documentation/arch/x86/xstate.rst */

int swarm_has_tiles(void)
{
    return __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("avx512bf16")
        && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

typedef void (*parallel)(void (*work)(void *), void *data, unsigned threads, unsigned flags); /* GOMP_parallel */

struct shared {
    const struct task *tasks;
    const struct bytes_task *bytes_tasks;
    int64_t next, count;
};

static void take(void *data)
{
    struct shared *const all = data;
    for (int64_t i; (i = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED)) < all->count;)
        all->tasks ? product(all->tasks + i) : bytes_product(all->bytes_tasks + i);
}

static void share_out(struct shared all, parallel run)
{
    if (run && all.count > 1)
        run(take, &all, all.count, 0);
    else
        take(&all);
}

void swarm_product(const struct task *tasks, int64_t count, parallel run)
{
    share_out((struct shared){.tasks = tasks, .count = count}, run);
}

void swarm_bytes_product(const struct bytes_task *tasks, int64_t count, parallel run)
{
    share_out((struct shared){.bytes_tasks = tasks, .count = count}, run);
}
#endif

void swarm_grouped(const uint8_t *codes, const uint8_t *second, const uint16_t *lines, uint16_t *out, const struct sizes *n)
{
    BEST(grouped)(codes, second, lines, out, n);
}
