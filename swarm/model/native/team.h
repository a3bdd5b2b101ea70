/* Threads of our own, which share the parts of a task.

   Nobody waits for a thread that does not run: whoever is there takes parts, and who calls waits only for those that others have begun. (The
   barrier of OpenMP waits for all threads, so that a core which sleeps or is busy with something else holds up the others, and a Block of one row
   would have six.) */

#include <pthread.h>
#include <sched.h>
#include <signal.h>

enum { MOST_HELPERS = 255, CACHE_LINE = 64 };
enum { WATCHED = 1 << 18 /* cycles that a helper looks for work before it sleeps, some 0.1 ms */, PATIENCE = 1000 /* looks before a core is offered */ };

/* Parts that follow each other, up to `end`. */
struct lot {
    int64_t next, end, apart[6]; /* from what another thread counts on */
};

/* Each thread begins with a lot of its own, for what a CPU fetches behind the part that it reads is of use there; then it helps with the others'. */
struct shared {
    void (*one)(const void *task, int64_t part);
    const void *task;
    int64_t threads;
    struct lot *lots;
};

/* One crew a process: who finds it taken computes alone. */
static struct {
    int64_t taken, called; /* helpers that were asked for; the system may have given fewer */
    pthread_mutex_t lock;
    pthread_cond_t bell;
    _Alignas(CACHE_LINE) int64_t round; /* grows with each task */
    int64_t asleep;                     /* helpers that want the bell */
    struct shared *task;                /* null: none that may be begun */
    _Alignas(CACHE_LINE) int64_t inside; /* helpers that may hold the task, which lies on its caller's stack */
} crew = {.lock = PTHREAD_MUTEX_INITIALIZER, .bell = PTHREAD_COND_INITIALIZER};

static void take(struct shared *all, int64_t mine)
{
    for (int64_t i = 0; i < all->threads; i++) {
        struct lot *const lot = all->lots + (mine + i) % all->threads;
        for (int64_t part; (part = __atomic_fetch_add(&lot->next, 1, __ATOMIC_RELAXED)) < lot->end;)
            all->one(all->task, part);
    }
}

/* Returns when there is another one. */
static int64_t next_round(int64_t seen)
{
    const uint64_t begin = __builtin_ia32_rdtsc();
    int64_t round;
    while ((round = __atomic_load_n(&crew.round, __ATOMIC_ACQUIRE)) == seen && __builtin_ia32_rdtsc() - begin < WATCHED)
        __builtin_ia32_pause();
    if (round != seen)
        return round;
    pthread_mutex_lock(&crew.lock);
    __atomic_fetch_add(&crew.asleep, 1, __ATOMIC_SEQ_CST);
    while ((round = __atomic_load_n(&crew.round, __ATOMIC_SEQ_CST)) == seen)
        pthread_cond_wait(&crew.bell, &crew.lock);
    __atomic_fetch_sub(&crew.asleep, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&crew.lock);
    return round;
}

static void *help(void *number)
{
    for (int64_t round = 0;;) {
        round = next_round(round);
        __atomic_fetch_add(&crew.inside, 1, __ATOMIC_SEQ_CST);
        struct shared *const all = __atomic_load_n(&crew.task, __ATOMIC_SEQ_CST); /* behind `inside`: its caller waits from here on */
        if (all && (int64_t)number < all->threads)
            take(all, (int64_t)number);
        __atomic_fetch_sub(&crew.inside, 1, __ATOMIC_SEQ_CST);
    }
    return 0;
}

/* What a fork leaves: no threads. */
static void begin_alone(void)
{
    crew.taken = crew.called = crew.asleep = crew.inside = 0, crew.task = 0;
    pthread_mutex_init(&crew.lock, 0), pthread_cond_init(&crew.bell, 0);
}

__attribute__((constructor)) static void know_of_forks(void)
{
    pthread_atfork(0, 0, begin_alone);
}

/* Up to so many, where the system gives them, under a name that `top -H` shows. They take no signals. */
static void call_helpers(int64_t count)
{
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int64_t failed = 0; crew.called < count; crew.called++) {
        failed = failed || pthread_create(&thread, 0, help, (void *)(crew.called + 1));
        if (!failed)
            pthread_setname_np(thread, "swarm products"), pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

static void share_among(struct shared *all)
{
    if (crew.called < all->threads - 1)
        call_helpers(all->threads - 1);
    __atomic_store_n(&crew.task, all, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&crew.round, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&crew.asleep, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&crew.lock);
        pthread_cond_broadcast(&crew.bell);
        pthread_mutex_unlock(&crew.lock);
    }
    take(all, 0);
    __atomic_store_n(&crew.task, 0, __ATOMIC_SEQ_CST);
    for (int64_t looks = 0; __atomic_load_n(&crew.inside, __ATOMIC_SEQ_CST); looks++)
        looks < PATIENCE ? __builtin_ia32_pause() : (void)sched_yield();
}

/* `one` of each of `count` parts, by so many threads at most. */
static void share_out(void (*one)(const void *, int64_t), const void *task, int64_t count, int64_t threads)
{
    threads = threads < count ? threads : count;
    threads = threads < 1 ? 1 : threads <= MOST_HELPERS ? threads : MOST_HELPERS + 1;
    struct lot lots[threads];
    struct shared all = {one, task, threads, lots};
    for (int64_t i = 0; i < threads; i++)
        lots[i].next = count * i / threads, lots[i].end = count * (i + 1) / threads;
    if (threads > 1 && !__atomic_exchange_n(&crew.taken, 1, __ATOMIC_ACQUIRE)) {
        share_among(&all);
        __atomic_store_n(&crew.taken, 0, __ATOMIC_RELEASE);
    } else
        take(&all, 0);
}
