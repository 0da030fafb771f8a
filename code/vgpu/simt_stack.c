/* code/vgpu/simt_stack.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* A worker's fibers and their stacks: one reservation of address space,
 *
 *   | guard | stack 0 ......... top 0 | guard | stack 1 ...... top 1   | guard | ...
 *
 * opened stack by stack, and given back when the OS thread ends.
 */
#include "vgpu/simt_internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { GUARD = 4096 * 4, STACK = 128 * 1024, STRIDE = GUARD + STACK,
       STAGGER = 192, STAGGERS = 32 };

/* open a stack for a fiber */
/* Makes fiber number w->opened ready for dls_fiber_prepare. 0 when memory has run out. */
static int open_stack(dls_simt_worker *w)
{
    unsigned n = w->opened;
    char *base = w->stacks + (size_t)n * STRIDE + GUARD;
    size_t guard = w->together && n ? GUARD : 0;  // too many mappings
    if (mprotect(base - guard, STACK + guard, PROT_READ | PROT_WRITE) != 0)
        return 0;
    w->fibers[n].bottom = base;
    w->fibers[n].top = base + STACK - (n % STAGGERS) * STAGGER;
    w->opened++;
    return 1;
}

dls_fiber *dls_fiber_fresh(dls_simt_worker *w)
{
    if (w->fresh == w->opened && !open_stack(w))
        return NULL;
    dls_fiber *f = &w->fibers[w->fresh++];
    f->holds = 0;
    f->sp = dls_fiber_prepare(f->bottom, f->top);
    return f;
}

int dls_stack_guards(const dls_simt_worker *w, const void *p)
{
    size_t at = (uintptr_t)p - (uintptr_t)w->stacks;
    return (uintptr_t)p >= (uintptr_t)w->stacks &&
           at < (size_t)DLS_SIMT_MAX_THREADS * STRIDE && at % STRIDE < GUARD;
}
/* allocate a worker */
void *dls_reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

dls_simt_worker *dls_worker_new(void)
{
    dls_simt_worker *w = aligned_alloc(128, (sizeof *w + 127) / 128 * 128);
    if (!w)
        return NULL;
    *w = (dls_simt_worker){0};
    w->stacks = dls_reserve((size_t)DLS_SIMT_MAX_THREADS * STRIDE + GUARD);
    if (w->stacks && dls_arena_open(&w->arena))
        return w;
    dls_worker_free(w);
    return NULL;
}
/* give a worker back when its thread ends */
static pthread_key_t worker_key;
static pthread_once_t worker_once = PTHREAD_ONCE_INIT;
static __thread dls_simt_worker *mine;

void dls_worker_free(dls_simt_worker *w)
{
    if (w->stacks)
        munmap(w->stacks, (size_t)DLS_SIMT_MAX_THREADS * STRIDE + GUARD);
    dls_arena_close(&w->arena);
    if (w->copies)
        w->free_copies(w->copies);
    if (w->hopper)
        w->free_hopper(w->hopper);
    free(w);
}

static void free_worker(void *w)
{
    const stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);  // it is part of the worker
    dls_worker_free(w);
}

static void make_key(void)
{
    pthread_key_create(&worker_key, free_worker);
}

dls_simt_worker *dls_worker_of_this_thread(void)
{
    if (!mine && (mine = dls_worker_new())) {
        pthread_once(&worker_once, make_key);
        pthread_setspecific(worker_key, mine);
        dls_catch_signals(mine);
    }
    return mine;
}

void dls_simt_get_regions(dls_simt_regions *out)
{
    const dls_simt_worker *w = dls_worker_of_this_thread();
    *out = (dls_simt_regions){0};
    if (!w)
        return;
    out->stacks = w->stacks;
    out->stacks_size = (size_t)DLS_SIMT_MAX_THREADS * STRIDE + GUARD;
    out->shared = w->arena.base;
    out->shared_size = (size_t)(w->arena.end - w->arena.base);
}
