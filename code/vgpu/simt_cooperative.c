/* code/vgpu/simt_cooperative.c: from chapters/A-virtual-gpu-simt-groups.md. Edit the chapter, or edit here and run "make untangle". */
/* Cooperative launches: all blocks exist at once, each on a worker, on one OS thread.
 *
 * The launching thread resumes one block after the other. A block comes back when it is
 * done, when all its threads have arrived at grid.sync(), or when they only spin. Whoever
 * resumes a block puts its thread-local state (cursor, blockIdx) back in place.
 */
#include "vgpu/simt_internal.h"

#include <stdlib.h>

enum { READY, AT_GRID, DONE };

/* leave and resume a block */
/* On a fiber: leaves the block as it is, for the thread that runs all of them. */
static void leave(dls_simt_worker *w, int state)
{
    dls_fiber *self = w->running;
    w->state = state;
    w->cursor = dls_simt_here;
    self->index = threadIdx;
    dls_fiber_switch(&self->sp, w->home);
}

static void resume(dls_simt_worker *w)
{
    dls_me = w;
    dls_simt_here = w->cursor;
    threadIdx = w->running->index;
    dls_set_position(w->grid, w->block);
    dls_fiber_switch(&w->home, w->running->sp);
}

void dls_block_rest(dls_simt_worker *w)
{
    leave(w, READY);
}

unsigned long long dls_next_block(dls_simt_worker *w)
{
    dls_simt_launch *l = w->launch;
    if (!w->together)
        return w->block = atomic_fetch_add(&l->next, 1);
    int taken = w->taken;
    w->taken = 1;
    w->state = DONE;  // unless the block waits before it ends
    return taken ? l->blocks : w->block;
}
/* wait for the grid */
int dls_simt_is_cooperative(void)
{
    return dls_me->together;
}

void dls_simt_grid_barrier(const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    if (!w->together)
        dls_fault(w, "thread (%u,%u,%u): grid.sync at %s:%d, in a launch that is not "
                  "cooperative", threadIdx.x, threadIdx.y, threadIdx.z, file, line);
    dls_simt_barrier(file, line);
    if (w->grid_passed == w->epoch)
        return;
    w->grid_passed = w->epoch;
    w->running->waits_for = "grid.sync";
    leave(w, AT_GRID);
}
/* make a worker for each block */
static void free_workers(dls_simt_worker **workers, unsigned long long count)
{
    for (unsigned long long i = 0; workers && i < count; i++)
        if (workers[i])
            dls_worker_free(workers[i]);
    free(workers);
}

/* One worker for each block, none of which has begun; NULL without memory. */
static dls_simt_worker **make_workers(dls_simt_launch *l)
{
    dls_simt_worker **workers = calloc(l->blocks, sizeof *workers);
    for (unsigned long long i = 0; workers && i < l->blocks; i++) {
        dls_simt_worker *w = workers[i] = dls_worker_new();
        if (w) {
            w->together = 1;
            dls_worker_reset(w, l);
            w->block = i;
            w->state = READY;
            w->running = dls_fiber_fresh(w);
        }
        if (!w || !w->running) {
            free_workers(workers, l->blocks);
            return NULL;
        }
    }
    return workers;
}
/* run blocks together */
/* Resumes each block that is ready; counts how many then wait for the grid. */
static unsigned long long run_round(dls_simt_launch *l, dls_simt_worker **workers,
                                    uint64_t dice, unsigned long long *done)
{
    unsigned long long waiting = 0, n = l->blocks;
    *done = 0;
    for (unsigned long long i = 0; i < n && !atomic_load(&l->failed); i++) {
        unsigned long long at = (dice + (dice >> 63 ? i : n - i)) % n;
        if (workers[at]->state == READY)
            resume(workers[at]);
        waiting += workers[at]->state == AT_GRID;
        *done += workers[at]->state == DONE;
    }
    return waiting;
}

static void report_split(dls_simt_launch *l, dls_simt_worker **workers,
                         unsigned long long waiting, unsigned long long done)
{
    unsigned long long i = 0;
    while (workers[i]->state != AT_GRID)
        i++;
    const dls_fiber *f = workers[i]->running;
    dls_launch_failed(l, cudaErrorLaunchFailure, "deadlock: %llu block%s wait%s in "
                      "grid.sync at %s:%d, and %llu returned without it", waiting,
                      waiting == 1 ? "" : "s", waiting == 1 ? "s" : "", f->file, f->line,
                      done);
}

void dls_run_together(dls_simt_launch *l, uint64_t seed)
{
    unsigned long long done = 0;
    dls_simt_worker *own = dls_worker_of_this_thread();  // it has the signals' stack
    dls_simt_worker **workers = own ? make_workers(l) : NULL;
    if (!workers)
        dls_launch_failed(l, cudaErrorMemoryAllocation,
                          "no memory for a worker for each block");
    for (uint64_t round = 0; workers && done < l->blocks && !atomic_load(&l->failed);
         round++) {
        uint64_t dice = seed ? dls_mix(seed ^ dls_mix(l->number ^ round << 32)) : 0;
        unsigned long long waiting = run_round(l, workers, dice, &done);
        if (waiting && waiting + done == l->blocks) {
            if (done)
                report_split(l, workers, waiting, done);
            for (unsigned long long i = 0; i < l->blocks; i++)
                if (workers[i]->state == AT_GRID)
                    workers[i]->state = READY;
        }
    }
    free_workers(workers, l->blocks);
    dls_me = own;
}
