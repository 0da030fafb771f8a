/* code/vgpu/simt_grid.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* A grid on several workers: the pool of OS threads, block order, seeds, faults.
 *
 * The thread that launches works too and begins alone. Helpers are woken only when the
 * grid has lasted a while: many are over before a helper would wake.
 * One launch at a time has the helpers; a second one, from another thread, runs alone.
 */
#include "vgpu/simt_internal.h"

#include "base/log.h"

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* keep the state of the engine */
__thread dls_simt_dim blockIdx, blockDim, gridDim;

static uint64_t seed;
static int worker_count;         // 0: not yet decided
static atomic_ulong early_exits, divergences;
static atomic_ullong launches;
static __thread unsigned serials;  // blocks begun on this OS thread
/* keep the pool of helpers */
static struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    int helpers;              // threads made
    int busy;                 // of these, working on `launch`
    int owned;                // some launch has the pool
    dls_simt_launch *launch;  // that helpers may join
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static void forget_pool_in_child(void)
{
    pool = (struct pool){.lock = PTHREAD_MUTEX_INITIALIZER,
                         .work = PTHREAD_COND_INITIALIZER,
                         .done = PTHREAD_COND_INITIALIZER};
}
/* wake the helpers */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wake_helpers_if_worth_it(dls_simt_launch *l, unsigned long long block)
{
    if (block == 0 || now() - l->started < 20e-6)
        return;
    l->may_wake = 0;
    pthread_mutex_lock(&pool.lock);
    pool.launch = l;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}
/* remember the first fault */
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;
static char fault_message[1536];
static int fault_error;

/* Keeps the first message of a launch and stops it. */
static void record_fault(dls_simt_launch *l, int error, const char *text)
{
    if (atomic_exchange(&l->failed, 1))
        return;
    const dls_simt_grid *g = l->grid;
    pthread_mutex_lock(&fault_lock);
    snprintf(fault_message, sizeof fault_message,
             "kernel %s, launched at %s:%d: %s", g->name, g->file, g->line, text);
    if (dls_simt_probes)
        dls_simt_probes->fault(text);
    fault_error = error;
    dls_log(DLS_LOG_ERROR, "%s", fault_message);
    pthread_mutex_unlock(&fault_lock);
}
/* choose the order of a block */
uint64_t dls_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The threads of a block in ascending order, made once per block shape. */
static void lay_out_shape(dls_simt_worker *w, const unsigned block[3])
{
    unsigned n = block[0] * block[1] * block[2];
    w->threads = n;
    for (unsigned i = 0; i < n; i++)
        w->shape[i] = (dls_simt_index){i % block[0], i / block[0] % block[1],
                                       i / (block[0] * block[1]), i};
}

static void copy_warp(dls_simt_index *to, const dls_simt_index *from, unsigned n,
                      uint64_t dice)
{
    unsigned start = (unsigned)(dice >> 8) % n, step = dice & 1 ? 1 : n - 1;
    for (unsigned i = 0, lane = start; i < n; i++) {
        to[i] = from[lane];
        lane += step;
        lane -= lane >= n ? n : 0;
    }
}

static void write_out_order(dls_simt_worker *w)
{
    unsigned warps = (w->threads + DLS_SIMT_WARP - 1) / DLS_SIMT_WARP, used = 0;
    uint64_t dice = w->dice;
    unsigned start = (unsigned)(dice >> 16) % warps, step = dice & 2 ? 1 : warps - 1;
    for (unsigned i = 0, warp = start; i < warps; i++) {
        unsigned first = warp * DLS_SIMT_WARP, n = w->threads - first;
        n = n < DLS_SIMT_WARP ? n : DLS_SIMT_WARP;
        dice = dls_mix(dice);
        copy_warp(w->order + used, w->shape + first, n, dice);
        used += n;
        warp += step;
        warp -= warp >= warps ? warps : 0;
    }
}

static void choose_order(dls_simt_worker *w)
{
    int power = (w->threads & (w->threads - 1)) == 0;
    dls_simt_here.key = seed && power ? (unsigned)(w->dice >> 20) & (w->threads - 1) : 0;
    dls_simt_here.index = seed && !power ? w->order : w->shape;
    if (dls_simt_here.index == w->order)
        write_out_order(w);
}
/* begin a block */
void dls_set_position(const dls_simt_grid *g, unsigned long long block)
{
    blockIdx.x = (unsigned)(block % g->grid[0]);
    block /= g->grid[0];
    blockIdx.y = (unsigned)(block % g->grid[1]);
    blockIdx.z = (unsigned)(block / g->grid[1]);
}

/* Under probes every thread is counted in and out: such a block is always tracked. */
static void begin_probed_block(dls_simt_worker *w, unsigned long long block)
{
    dls_block_track(w);
    dls_simt_probes->block_begin(block);
}

int dls_block_begin(dls_simt_worker *w)
{
    dls_simt_launch *l = w->launch;
    unsigned long long block = dls_next_block(w);
    if (block >= l->blocks || atomic_load(&l->failed))
        return 0;
    if (__builtin_expect(l->may_wake, 0))
        wake_helpers_if_worth_it(l, block);
    dls_set_position(l->grid, block);
    w->tracked = 0;
    w->active = w->epoch = w->spins = 0;
    w->line = 0;
    w->votes[0] = w->votes[1] = 0;
    w->dice = seed ? dls_mix(seed ^ dls_mix(l->number ^ dls_mix(block))) : 0;
    w->start = w->dice >> 63 & 1;
    dls_simt_here.serial = ++serials;
    dls_simt_here.next = 0;
    dls_simt_here.end = dls_simt_here.threads = w->threads;
    choose_order(w);
    if (__builtin_expect(dls_simt_probes != NULL, 0))
        begin_probed_block(w, block);
    dls_arena_begin(w, l->grid);
    return 1;
}
/* run blocks on this thread */
void dls_worker_reset(dls_simt_worker *w, dls_simt_launch *l)
{
    const dls_simt_grid *g = l->grid;
    if (memcmp(w->shape_of, g->block, sizeof w->shape_of) != 0)
        lay_out_shape(w, g->block);
    memcpy(w->shape_of, g->block, sizeof w->shape_of);
    blockDim = (dls_simt_dim){g->block[0], g->block[1], g->block[2]};
    gridDim = (dls_simt_dim){g->grid[0], g->grid[1], g->grid[2]};
    w->launch = l;
    w->grid = g;
    w->fresh = 0;
    w->idle = NULL;
    w->ready.head = w->waiting.head = w->asking.head = NULL;
    w->tracked = 0;
    w->grid_passed = w->rests = 0;
}

static void run_blocks(dls_simt_launch *l)
{
    dls_simt_worker *w = dls_me = dls_worker_of_this_thread();
    if (!w) {
        record_fault(l, cudaErrorMemoryAllocation,
                     "no memory for a worker of the virtual GPU");
        return;
    }
    dls_worker_reset(w, l);
    w->running = dls_fiber_fresh(w);
    if (w->running)
        dls_fiber_switch(&w->home, w->running->sp);
    else
        record_fault(l, cudaErrorMemoryAllocation, "no memory for the stack of a thread");
    w->running = NULL;
}

void dls_fiber_main(void)
{
    dls_simt_worker *w = dls_me;
    void *abandoned;
    w->launch->grid->span(w->launch->grid->closure);
    dls_fiber_switch(&abandoned, w->home);
}
/* record a kernel fault */
/* Called on a fiber: gives the launch up and leaves for the worker's own stack. */
_Noreturn void dls_fault_as(dls_simt_worker *w, int error, const char *fmt, ...)
{
    char text[1200];
    va_list list;
    void *abandoned;
    int n = snprintf(text, sizeof text, "block (%u,%u,%u): ", blockIdx.x, blockIdx.y,
                     blockIdx.z);
    va_start(list, fmt);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, list);
    va_end(list);
    record_fault(w->launch, error, text);
    dls_fiber_switch(&abandoned, w->home);
    __builtin_unreachable();
}

void dls_launch_failed(dls_simt_launch *l, int error, const char *fmt, ...)
{
    char text[1200];
    va_list list;
    va_start(list, fmt);
    vsnprintf(text, sizeof text, fmt, list);
    va_end(list);
    record_fault(l, error, text);
}

int dls_simt_take_fault(char *message, size_t room)
{
    pthread_mutex_lock(&fault_lock);
    int any = fault_message[0] != 0;
    if (any && room)
        snprintf(message, room, "%s", fault_message);
    fault_message[0] = 0;
    pthread_mutex_unlock(&fault_lock);
    return any ? fault_error : 0;
}
/* warn of an early exit */
static int first_time(const char *name)
{
    static char *warned[64];
    static unsigned count;
    pthread_mutex_lock(&fault_lock);
    int known = count >= 64;
    for (unsigned i = 0; i < count && !known; i++)
        known = !strcmp(warned[i], name);
    if (!known && (warned[count] = strdup(name)))
        count++;
    pthread_mutex_unlock(&fault_lock);
    return !known;
}

void dls_block_warn_early_exit(dls_simt_worker *w)
{
    const dls_simt_grid *g = w->launch->grid;
    atomic_fetch_add(&early_exits, 1);
    const dls_fiber *at = w->waiting.head ? w->waiting.head : w->running;
    const dls_simt_stop stop = dls_stop_of(at);
    unsigned t = 0;
    while (t < w->threads && !(w->warp[t / 32].gone >> t % 32 & 1))
        t++;
    if (dls_simt_probes)
        dls_simt_probes->early_exit(t, &stop);
    if (!first_time(g->name))
        return;
    dls_log(DLS_LOG_WARN, "kernel %s, launched at %s:%d: block (%u,%u,%u): thread "
            "(%u,%u,%u) returned before the barrier at %s:%d, which %u reached", g->name,
            g->file, g->line, blockIdx.x, blockIdx.y, blockIdx.z, w->shape[t].x,
            w->shape[t].y, w->shape[t].z, at->file, at->line, w->active);
}

unsigned long dls_simt_early_exits(void)
{
    return atomic_load(&early_exits);
}

void dls_block_warn_divergence(dls_simt_worker *w, const dls_fiber *a, const dls_fiber *b)
{
    const dls_simt_grid *g = w->launch->grid;
    char mark[512];
    const dls_simt_stop one = dls_stop_of(a), other = dls_stop_of(b);
    atomic_fetch_add(&divergences, 1);
    if (dls_simt_probes)
        dls_simt_probes->diverged(&one, &other);
    snprintf(mark, sizeof mark, "%s: divergent", g->name);
    if (first_time(mark))
        dls_log(DLS_LOG_WARN, "kernel %s, launched at %s:%d: block (%u,%u,%u): divergent "
                "barrier: thread (%u,%u,%u) waits in %s at %s:%d, thread (%u,%u,%u) at "
                "%s:%d", g->name, g->file, g->line, blockIdx.x, blockIdx.y, blockIdx.z,
                a->index.x, a->index.y, a->index.z, a->waits_for, a->file, a->line,
                b->index.x, b->index.y, b->index.z, b->file, b->line);
}

unsigned long dls_simt_divergent_barriers(void)
{
    return atomic_load(&divergences);
}
/* start the helpers */
static void *help(void *unused)
{
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (!pool.launch)
            pthread_cond_wait(&pool.work, &pool.lock);
        dls_simt_launch *l = pool.launch;
        pool.busy++;
        pthread_mutex_unlock(&pool.lock);
        run_blocks(l);
        pthread_mutex_lock(&pool.lock);
        if (pool.launch == l)
            pool.launch = NULL;
        if (--pool.busy == 0)
            pthread_cond_signal(&pool.done);
    }
    return unused;
}

static int default_workers(void)
{
    const char *set = getenv("DLS_THREADS"), *world = getenv("DLS_WORLD_SIZE");
    int wanted = set ? atoi(set) : 0, ranks = world ? atoi(world) : 1;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (wanted <= 0) {
        wanted = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
        wanted /= ranks > 1 ? ranks : 1;
    }
    return wanted < 1 ? 1 : wanted > 24 ? 24 : wanted;
}

void dls_simt_configure(int threads, unsigned long long new_seed)
{
    worker_count = threads <= 0 ? default_workers() : threads > 24 ? 24 : threads;
    seed = new_seed;
}

void dls_simt_configure_once(int threads, unsigned long long new_seed)
{
    if (!worker_count)
        dls_simt_configure(threads, new_seed);
}

static void decide_defaults(void)
{
    const char *text = getenv("DLS_SEED");
    pthread_atfork(NULL, NULL, forget_pool_in_child);
    dls_simt_configure_once(0, text ? strtoull(text, NULL, 0) : 1);
}
/* run a grid */
static int take_pool(void)
{
    pthread_mutex_lock(&pool.lock);
    int mine = !pool.owned && worker_count > 1;
    pool.owned |= mine;
    while (mine && pool.helpers < worker_count - 1) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, NULL) != 0)
            break;
        pthread_detach(thread);
        pool.helpers++;
    }
    pthread_mutex_unlock(&pool.lock);
    return mine;
}

static void give_pool_back(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.launch = NULL;
    while (pool.busy > 0)
        pthread_cond_wait(&pool.done, &pool.lock);
    pool.owned = 0;
    pthread_mutex_unlock(&pool.lock);
}

/* A cooperative launch, out of the sight of probes. */
static void run_unwatched(dls_simt_launch *l)
{
    const dls_simt_probe *watching = dls_simt_probes;
    if (watching)
        dls_log(DLS_LOG_WARN, "kernel %s, launched at %s:%d: a cooperative launch is run "
                "but not watched", l->grid->name, l->grid->file, l->grid->line);
    dls_simt_probes = NULL;
    dls_run_together(l, seed);
    dls_simt_probes = watching;
}

int dls_simt_run_grid(const dls_simt_grid *g)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, decide_defaults);
    dls_simt_launch l = {.grid = g, .started = now()};
    l.blocks = (unsigned long long)g->grid[0] * g->grid[1] * g->grid[2];
    l.number = atomic_fetch_add(&launches, 1);
    if (dls_me && dls_me->running) {
        record_fault(&l, cudaErrorNotSupported,
                     "a kernel can not launch a kernel on the virtual GPU");
        return -1;
    }
    int have_pool = l.blocks > 1 && !dls_simt_probes && !g->cooperative && take_pool();
    l.may_wake = have_pool;
    if (dls_simt_probes)
        dls_simt_probes->launch_begin(g);
    if (g->cooperative)
        run_unwatched(&l);
    else
        run_blocks(&l);
    if (dls_simt_probes)
        dls_simt_probes->launch_end(g, atomic_load(&l.failed));
    if (have_pool)
        give_pool_back();
    return atomic_load(&l.failed) ? -1 : 0;
}
