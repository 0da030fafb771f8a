/* code/vgpu/simt_block.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* One block on one worker: the thread loop, barriers, yields, and who runs next.
 *
 * Invariants while a block is tracked (some thread has waited):
 *   active  = threads started and not returned = fibers with holds set
 *   each such fiber is running, or in ready, or in waiting, or in its warp's lane table
 *   missing = threads not returned and not in waiting; at 0 the barrier is complete
 * Fibers of a block run on one OS thread, so none of this needs a lock.
 */
#include "vgpu/simt_internal.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

__thread dls_simt_index threadIdx;
__thread dls_simt_cursor dls_simt_here;
__thread dls_simt_worker *dls_me;
const dls_simt_probe *dls_simt_probes;

/* keep lists of fibers */
void dls_list_push(dls_fiber_list *list, dls_fiber *f)
{
    f->next = NULL;
    if (list->head)
        list->tail->next = f;
    else
        list->head = f;
    list->tail = f;
}

static void push_front(dls_fiber_list *list, dls_fiber *f)
{
    f->next = list->head;
    if (!list->head)
        list->tail = f;
    list->head = f;
}

static dls_fiber *pop(dls_fiber_list *list)
{
    dls_fiber *f = list->head;
    list->head = f->next;
    return f;
}
/* start tracking the threads of a block */
void dls_block_track(dls_simt_worker *w)
{
    unsigned warps = (w->threads + DLS_SIMT_WARP - 1) / DLS_SIMT_WARP;
    unsigned rest = w->threads % DLS_SIMT_WARP;
    for (unsigned i = 0; i < warps; i++)
        w->warp[i].gone = w->warp[i].leaders = 0;
    if (rest)
        w->warp[warps - 1].gone = ~0u << rest;
    for (unsigned i = 0; i + 1 < dls_simt_here.next; i++) {
        unsigned t = dls_simt_here.index[i ^ dls_simt_here.key].linear;
        w->warp[t / DLS_SIMT_WARP].gone |= 1u << t % DLS_SIMT_WARP;
    }
    w->tracked = 1;
    w->active = 1;
    w->missing = w->threads - (dls_simt_here.next ? dls_simt_here.next - 1 : 0);
    w->running->holds = 1;
    w->running->index = threadIdx;
    dls_simt_here.end = 0;
}
/* name what everybody waits for */
/* "12 threads in __syncthreads at F:L, the first is (0,0,0)" for all like `like`. */
static size_t describe_place(dls_simt_worker *w, const dls_fiber *like,
                             const char *separator, char *out, size_t room)
{
    unsigned count = 0;
    for (unsigned i = 0; i < w->fresh; i++) {
        const dls_fiber *f = &w->fibers[i];
        count += f->holds && f->line == like->line && f->waits_for == like->waits_for;
    }
    int n = snprintf(out, room, "%s%u thread%s in %s at %s:%d, the first is (%u,%u,%u)",
                     separator, count, count == 1 ? "" : "s",
                     like->waits_for, like->file, like->line, like->index.x,
                     like->index.y, like->index.z);
    return n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

static _Noreturn void report_deadlock(dls_simt_worker *w)
{
    char text[1024] = "";
    size_t used = 0;
    for (unsigned i = 0; i < w->fresh; i++) {
        const dls_fiber *f = &w->fibers[i];
        int seen = !f->holds;
        for (unsigned k = 0; k < i && !seen; k++)
            seen = w->fibers[k].holds && w->fibers[k].line == f->line &&
                   w->fibers[k].waits_for == f->waits_for;
        if (!seen)
            used += describe_place(w, f, used ? "; " : "", text + used,
                                   sizeof text - used);
    }
    dls_fault(w, "deadlock: every thread waits: %s", text);
}
/* answer who is here */
/* Answers lane `self` and all that ask at the same place in its warp, and takes them off
 * the list. */
static void answer_place(dls_simt_worker *w, dls_fiber *self)
{
    dls_fiber_list rest = {NULL, NULL}, here = {NULL, NULL};
    unsigned mask = 0, warp = self->index.linear / DLS_SIMT_WARP;
    w->dice = w->dice ? dls_mix(w->dice) : 0;
    unsigned cut = (w->dice & 3) == 1 ? ~0u << (w->dice >> 8 & 31) : 0;
    for (dls_fiber *f = w->asking.head, *next; f; f = next) {
        int same = f->index.linear / DLS_SIMT_WARP == warp && f->line == self->line &&
                   f->file == self->file;
        next = f->next;
        mask |= same ? 1u << f->index.linear % DLS_SIMT_WARP : 0;
        dls_list_push(same ? &here : &rest, f);
    }
    for (dls_fiber *f = here.head, *next; f; f = next) {
        unsigned side = cut >> f->index.linear % DLS_SIMT_WARP & 1 ? cut : ~cut;
        next = f->next;
        f->result = mask & side;
        dls_list_push(&w->ready, f);
    }
    w->asking = rest;
}

static void answer_all(dls_simt_worker *w)
{
    while (w->asking.head)
        answer_place(w, w->asking.head);
}

unsigned dls_simt_active_mask(const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    dls_fiber *self = w->running;
    if (!w->tracked)
        dls_block_track(w);
    self->file = file;
    self->line = line;
    self->waits_for = "__activemask";
    dls_list_push(&w->asking, self);
    dls_block_dispatch(w, self);
    return (unsigned)self->result;
}
/* choose who runs next */
/* The same when threads may be left to start, or nobody is ready. */
static __attribute__((noinline)) dls_fiber *look_for_next(dls_simt_worker *w)
{
    int unstarted = dls_simt_here.next < w->threads;
    unsigned start = w->start;
    w->start = unstarted ? start & 1 : 0;
    if (!w->ready.head && !unstarted)
        answer_all(w);
    if (w->ready.head && !(start && unstarted))
        return pop(&w->ready);
    if (!unstarted)
        return NULL;
    dls_fiber *f = w->idle;
    if (f)
        w->idle = f->next;
    else if (!(f = dls_fiber_fresh(w)))
        dls_fault(w, "no memory for the stack of another thread");
    return f;
}

/* A fiber to go on with, or NULL when nobody can run. */
static inline dls_fiber *take_next(dls_simt_worker *w)
{
    if (__builtin_expect(w->ready.head && !w->start, 1))
        return pop(&w->ready);
    return look_for_next(w);
}

static inline void go_on_with(dls_simt_worker *w, dls_fiber *self, dls_fiber *f,
                              void (*leave)(void **save, void *load))
{
    if (__builtin_expect(!f, 0))
        report_deadlock(w);
    w->running = f;
    threadIdx = f->index;
    if (f->next)
        __builtin_prefetch(f->next->sp);
    if (__builtin_expect(dls_simt_probes != NULL, 0))
        dls_simt_probes->run(f->holds ? threadIdx.linear : DLS_SIMT_MAX_THREADS);
    leave(&self->sp, f->sp);
}

void dls_block_dispatch(dls_simt_worker *w, dls_fiber *self)
{
    dls_fiber *f = take_next(w);
    if (f != self)
        go_on_with(w, self, f, dls_fiber_switch);
}
/* release a barrier */
dls_simt_stop dls_stop_of(const dls_fiber *f)
{
    return (dls_simt_stop){f->index.linear, f->file, f->line};
}

static void tell_probes_of_barrier(const dls_simt_worker *w)
{
    const dls_fiber *at = w->waiting.head ? w->waiting.head : w->running;
    dls_simt_probes->barrier(at->file, at->line);
}

static void release(dls_simt_worker *w)
{
    if (__builtin_expect(w->active < w->threads, 0))
        dls_block_warn_early_exit(w);
    if (__builtin_expect(dls_simt_probes != NULL, 0))
        tell_probes_of_barrier(w);
    w->epoch++;
    w->votes[w->epoch & 1] = 0;
    w->missing = w->active;
    if (!w->waiting.head)
        return;
    if (w->ready.head)
        w->ready.tail->next = w->waiting.head;
    else
        w->ready.head = w->waiting.head;
    w->ready.tail = w->waiting.tail;
    w->waiting.head = NULL;
}
/* wait at a barrier */
static __attribute__((noinline)) void look_closely(dls_simt_worker *w, dls_fiber *self)
{
    const dls_fiber *other = w->waiting.head;
    if (!w->tracked)
        dls_block_track(w);
    if (other && (other->line != self->line ||
                  (other->file != self->file && strcmp(other->file, self->file))))
        dls_block_warn_divergence(w, other, self);
    w->line = self->line;
    w->file = self->file;
}

void dls_simt_barrier(const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    dls_fiber *self = w->running;
    self->file = file;
    self->line = line;
    self->waits_for = "__syncthreads";
    if (__builtin_expect(line != w->line || file != w->file, 0))
        look_closely(w, self);
    if (__builtin_expect(dls_simt_probes != NULL, 0))
        dls_simt_probes->arrived(threadIdx.linear, NULL);
    if (--w->missing == 0) {
        release(w);
        return;
    }
    if (w->dice >> (w->epoch & 63) & 1)
        push_front(&w->waiting, self);
    else
        dls_list_push(&w->waiting, self);
    go_on_with(w, self, take_next(w), dls_fiber_jump);
}

unsigned dls_simt_barrier_count(int predicate, const char *file, int line)
{
    unsigned *votes = &dls_me->votes[dls_me->epoch & 1];
    *votes += predicate != 0;
    dls_simt_barrier(file, line);
    return *votes;
}
/* hand out threads */
static void thread_returned(dls_simt_worker *w, dls_fiber *self)
{
    unsigned t = threadIdx.linear;
    dls_warp *warp = &w->warp[t / DLS_SIMT_WARP];
    self->holds = 0;
    w->active--;
    warp->gone |= 1u << t % DLS_SIMT_WARP;
    if (__builtin_expect(dls_simt_probes != NULL, 0))
        dls_simt_probes->returned(t);
    if (warp->leaders)
        dls_warp_recheck(w, warp);
    if (--w->missing == 0 && w->active > 0)
        release(w);
}

static void become_next_thread(void)
{
    threadIdx = dls_simt_here.index[dls_simt_here.next++ ^ dls_simt_here.key];
    if (__builtin_expect(dls_simt_probes != NULL, 0))
        dls_simt_probes->run(threadIdx.linear);
}

int dls_simt_next_slow(void)
{
    dls_simt_worker *w = dls_me;
    dls_fiber *self = w->running;
    if (w->tracked && self->holds)
        thread_returned(w, self);
    for (;;) {
        if (w->tracked && dls_simt_here.next < w->threads) {
            become_next_thread();
            self->index = threadIdx;
            self->holds = 1;
            w->active++;
            return 1;
        }
        if (!w->tracked || w->active == 0) {
            if (w->tracked && dls_simt_probes)
                dls_simt_probes->block_end();
            if (!dls_block_begin(w))
                return 0;
            become_next_thread();
            self->index = threadIdx;
            return 1;
        }
        self->next = w->idle;
        w->idle = self;
        dls_block_dispatch(w, self);
    }
}
/* let others run */
void dls_simt_yield(void)
{
    dls_simt_worker *w = dls_me;
    if (!w || !w->running)
        return;
    if (!w->tracked)
        dls_block_track(w);
    w->spins = 0;
    answer_all(w);
    dls_fiber *self = w->running;
    self->waits_for = "a spin loop";
    w->start |= 2;
    int alone = !w->ready.head && dls_simt_here.next == w->threads;
    if (w->together && (alone || ++w->rests % 64 == 0)) {
        dls_block_rest(w);
    } else if (alone) {
        sched_yield();
    } else {
        dls_list_push(&w->ready, self);
        dls_block_dispatch(w, self);
    }
}

void dls_simt_spin(void)
{
    if (dls_me && ++dls_me->spins >= 32)
        dls_simt_yield();
}
