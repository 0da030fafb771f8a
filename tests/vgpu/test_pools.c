/* tests/vgpu/test_pools.c: from chapters/A-virtual-gpu-graphs.md. Edit the chapter, or edit here and run "make untangle". */
/* Stream-ordered allocation: reuse, times, accounts, capacity, errors. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vgpu/gpu.h"

#define US 1e-6
#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

#ifdef DLS_VIRTUAL_GPU // times, orders and accounts of the emulation
#include "under_seed.h"

/* test a buffer per call */
static double twenty_rounds(int in_order, void **first, void **last)
{
    cudaStream_t s;
    OK(cudaStreamCreate(&s));
    double before = dls_gpu_host_time();
    for (int i = 0; i < 20; i++) {
        void *p;
        dls_gpu_op op = {.name = "layer", .flops = 50 * US * 53.6e12};
        OK(in_order ? cudaMallocAsync(&p, 100000000, s) : cudaMalloc(&p, 100000000));
        *first = i ? *first : p;
        *last = p;
        OK(dls_gpu_enqueue(s, &op, NULL));
        OK(in_order ? cudaFreeAsync(p, s) : cudaFree(p));
    }
    OK(cudaStreamSynchronize(s));
    return dls_gpu_host_time() - before;
}

Test(vgpu, a_free_in_stream_order_does_not_wait)
{
    void *first, *last;
    cr_assert_float_eq(twenty_rounds(0, &first, &last), 1134 * US, 1e-12);
    cr_assert_float_eq(twenty_rounds(1, &first, &last), 1006.7 * US, 1e-12);
    cr_assert_eq(first, last, "one block serves all rounds");
}

/* test a free in the wrong stream */
typedef struct move { long *to; const long *from; long value; } move;

static int move_run(void *arg, double start, double *finish)
{
    move *m = arg;
    (void)start;
    (void)finish;
    *m->to = m->from ? *m->from : m->value;
    return 0;
}

static void enqueue_move(cudaStream_t s, long *to, const long *from, long value)
{
    move *m = malloc(sizeof *m);
    *m = (move){to, from, value};
    dls_gpu_op op = {.name = "move", .run = move_run, .destroy = free};
    OK(dls_gpu_enqueue(s, &op, m));
}

static long free_elsewhere(int with_event)
{
    cudaStream_t a, b;
    cudaEvent_t used;
    long *p, *q, read = 0;
    OK(cudaStreamCreate(&a));
    OK(cudaStreamCreate(&b));
    OK(cudaEventCreate(&used));
    OK(cudaMallocAsync((void **)&p, sizeof *p, a));
    enqueue_move(a, p, NULL, 1);
    enqueue_move(a, &read, p, 0);
    OK(cudaEventRecord(used, a));
    if (with_event)
        OK(cudaStreamWaitEvent(b, used, 0));
    OK(cudaFreeAsync(p, b));
    OK(cudaMallocAsync((void **)&q, sizeof *q, b));
    cr_assert_eq(p, q, "reused in B's order");
    enqueue_move(b, q, NULL, 2);
    OK(cudaDeviceSynchronize());
    return read;
}

static long freed_after_an_event(void) { return free_elsewhere(1); }
static long freed_too_early(void) { return free_elsewhere(0); }

Test(vgpu, a_free_belongs_behind_the_last_use)
{
    cr_assert_eq(wrong_seeds(freed_after_an_event, 1), 0);
    int wrong = wrong_seeds(freed_too_early, 1);
    cr_assert(wrong >= 5 && wrong <= 45, "%d of 50 seeds show it", wrong);
}

/* test the accounts of a pool */
static unsigned long long ask(cudaMemPool_t pool, enum cudaMemPoolAttr which)
{
    unsigned long long value = 77;
    OK(cudaMemPoolGetAttribute(pool, which, &value));
    return value;
}

static size_t activations(void)
{
    dls_gpu_memory m;
    OK(dls_gpu_memory_stats(0, &m));
    return m.current[DLS_MEM_ACTIVATIONS];
}

static cudaMemPool_t pool_with(cudaStream_t *s, cudaStream_t *t)
{
    cudaMemPool_t pool;
    OK(cudaStreamCreate(s));
    OK(cudaStreamCreate(t));
    OK(cudaDeviceGetDefaultMemPool(&pool, 0));
    dls_gpu_memory_purpose(DLS_MEM_ACTIVATIONS);
    return pool;
}

Test(vgpu, a_pool_keeps_its_accounts)
{
    cudaStream_t s, t;
    cudaMemPool_t pool = pool_with(&s, &t);
    void *p, *q;
    dls_gpu_op op = {.name = "use"};
    OK(cudaMallocAsync(&p, 1000, s));
    cr_assert_eq(activations(), 1000);
    OK(dls_gpu_enqueue(s, &op, NULL));
    OK(cudaFreeAsync(p, s));
    cr_assert_eq(activations(), 0);
    cr_assert_eq(cudaFreeAsync(p, s), cudaErrorInvalidValue, "freed twice");
    cr_assert_eq(ask(pool, cudaMemPoolAttrReservedMemCurrent), 1000);
    cr_assert_eq(ask(pool, cudaMemPoolAttrUsedMemCurrent), 0);
    OK(cudaMallocAsync(&q, 1000, t));
    cr_assert_neq(p, q, "the free has not been reached");
    OK(cudaStreamSynchronize(s));
    cr_assert_eq(ask(pool, cudaMemPoolAttrReservedMemCurrent), 1000, "q's only");
    OK(cudaFree(q)); // allowed, and waits
    cr_assert_eq(ask(pool, cudaMemPoolAttrReservedMemCurrent), 0);
    cr_assert_eq(activations(), 0);
}

Test(vgpu, a_pool_keeps_what_its_threshold_allows)
{
    cudaStream_t s, t;
    cudaMemPool_t pool = pool_with(&s, &t);
    unsigned long long all = ~0ull;
    size_t before, after, total;
    void *p, *q;
    OK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all));
    OK(cudaMemGetInfo(&before, &total));
    OK(cudaMallocAsync(&p, 60000000000, s));
    OK(cudaFreeAsync(p, s));
    OK(cudaStreamSynchronize(s));
    OK(cudaMemGetInfo(&after, &total));
    cr_assert_eq(before - after, 60000000000, "cached");
    OK(cudaMallocAsync(&q, 60000000000, t));
    cr_assert_eq(p, q, "reached, so any stream may have it");
    OK(cudaFreeAsync(q, t));
    OK(cudaStreamSynchronize(t));
    cr_assert_eq(cudaMalloc(&p, 30000000000), cudaErrorMemoryAllocation);
    OK(cudaMallocAsync(&p, 30000000000, s)); // the pool gives back and tries again
    OK(cudaFreeAsync(p, s));
    OK(cudaStreamSynchronize(s));
    OK(cudaMemPoolTrimTo(pool, 0));
    cr_assert_eq(ask(pool, cudaMemPoolAttrReservedMemCurrent), 0);
}
#endif
