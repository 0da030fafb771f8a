/* code/vgpu/simt_internal.h: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* Inside the SIMT engine: fibers, warps, and the worker that runs a block with them. */
#ifndef DLS_VGPU_SIMT_INTERNAL_H
#define DLS_VGPU_SIMT_INTERNAL_H

#include "vgpu/simt.h"
#include "vgpu/shadow/driver_types.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct dls_simt_launch dls_simt_launch;
/* define a launch */
struct dls_simt_launch {
    const dls_simt_grid *grid;
    atomic_ullong next;          // the block to be taken next
    unsigned long long blocks;
    unsigned long long number;   // of this launch in the process: part of the seed
    double started;              // host time, for the decision to wake helpers
    int may_wake;                // the launching thread has the pool, helpers still sleep
    atomic_int failed;
};

/* define a fiber */
typedef struct dls_fiber {
    void *sp;                // where its registers lie while it is switched out
    struct dls_fiber *next;  // in one of the worker's lists
    dls_simt_index index;    // threadIdx of its thread
    int holds;               // it carries a thread (and is not idle)
    int line;                // the call in which it waits ...
    const char *file;
    const char *waits_for;   // ... and for what
    int operation, argument; // of a warp rendezvous: see simt_warp.c
    unsigned mask, arrived;
    int width;
    unsigned long long value, result;
    char *bottom, *top;      // its stack
} __attribute__((aligned(64))) dls_fiber;

typedef struct dls_fiber_list {
    dls_fiber *head, *tail;
} dls_fiber_list;
/* define a warp */
typedef struct dls_warp {
    unsigned gone;     // lanes that have returned, or that the block does not have
    unsigned leaders;  // lanes that opened a rendezvous which is still incomplete
    dls_fiber *lane[DLS_SIMT_WARP];  // the fibers waiting in one
} dls_warp;
/* define an arena */
enum { DLS_STATIC_ROOM = 128 * 1024, DLS_DYNAMIC_ROOM = 228 * 1024,
       DLS_SHARED_VARIABLES = 64 };

typedef struct dls_arena {
    char *base, *end;
    char *dynamic;        // the block's dynamic array ...
    size_t dynamic_bytes; // ... as the launch asked for it
    size_t used;          // by static arrays, from base
    size_t declared;      // the same as hardware would count
    unsigned count;
    struct {
        const dls_simt_shared *variable;
        void *address;
    } placed[DLS_SHARED_VARIABLES];
} dls_arena;
/* define a worker */
enum { DLS_SIMT_WARPS = DLS_SIMT_MAX_THREADS / DLS_SIMT_WARP };

typedef struct dls_simt_worker {
    dls_fiber *running;
    dls_fiber_list ready, waiting, asking;
    dls_fiber *idle;
    unsigned threads;   // of this block
    unsigned active;    // fibers that hold a thread
    unsigned missing;   // threads that have neither returned nor come to the barrier
    int line;           // of the barrier where a thread was last; 0: look closely
    const char *file;   // likewise
    unsigned epoch;     // barriers passed by this block
    unsigned votes[2];  // predicates counted for the barrier of an even or odd epoch
    int tracked;        // some thread of this block has waited
    unsigned start;     // prefer threads not yet started to those ready: in this block
                        // (1), for the next choice (2)
    unsigned spins;
    uint64_t dice;      // the state of this block's random choices
    void *home;         // the worker's own stack, while a fiber runs
    dls_simt_launch *launch;
    const dls_simt_grid *grid;
    unsigned long long block;  // its number in the grid
    unsigned shape_of[3];      // the block that `shape` was made for
    int together, taken, state;  // of a cooperative launch: simt_cooperative.c
    unsigned grid_passed, rests;
    dls_simt_cursor cursor;
    unsigned opened, fresh;  // stacks made; fibers in use in this launch
    char *stacks;
    dls_arena arena;    // shared memory
    void *copies;       // what cp.async has issued (simt_async.c)
    void (*free_copies)(void *copies);
    void *hopper;       // barriers and products under way (simt_hopper.c)
    void (*free_hopper)(void *hopper);
    char signal_stack[64 * 1024];
    dls_simt_index shape[DLS_SIMT_MAX_THREADS];  // the block's threads, ascending
    dls_simt_index order[DLS_SIMT_MAX_THREADS];  // the same, shuffled
    dls_warp warp[DLS_SIMT_WARPS];
    dls_fiber fibers[DLS_SIMT_MAX_THREADS];
} dls_simt_worker;
/* declare the engine internals */
extern __thread dls_simt_worker *dls_me;

void dls_fiber_switch(void **save, void *load);
#if defined(__x86_64__) && !defined(DLS_SIMT_UCONTEXT)
void dls_fiber_jump(void **save, void *load);  // the same, predicted as a jump
#else
#define dls_fiber_jump dls_fiber_switch
#endif
void *dls_fiber_prepare(void *bottom, void *top);
void dls_fiber_main(void);
dls_fiber *dls_fiber_fresh(dls_simt_worker *w);
dls_simt_worker *dls_worker_of_this_thread(void);
dls_simt_worker *dls_worker_new(void);           // NULL: no memory
void dls_worker_reset(dls_simt_worker *w, dls_simt_launch *l);
void dls_worker_free(dls_simt_worker *w);
void dls_set_position(const dls_simt_grid *g, unsigned long long block);  // blockIdx
unsigned long long dls_next_block(dls_simt_worker *w);  // >= launch->blocks: none
void dls_run_together(dls_simt_launch *l, uint64_t seed);
void dls_block_rest(dls_simt_worker *w);         // others of its launch go on
void dls_launch_failed(dls_simt_launch *l, int error, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void *dls_reserve(size_t bytes);                 // address space without access, or NULL
int dls_arena_open(dls_arena *a);                // 0: no memory
void dls_arena_close(dls_arena *a);
void dls_arena_begin(dls_simt_worker *w, const dls_simt_grid *grid);
void dls_catch_signals(dls_simt_worker *w);      // on this OS thread, of kernels
int dls_stack_guards(const dls_simt_worker *w, const void *p);  // is p below a stack?

void dls_block_track(dls_simt_worker *w);        // some thread waits: fibers from now on
void dls_block_dispatch(dls_simt_worker *w, dls_fiber *self);  // run somebody else
void dls_list_push(dls_fiber_list *list, dls_fiber *f);
dls_simt_stop dls_stop_of(const dls_fiber *f);   // for the probes
int dls_block_begin(dls_simt_worker *w);         // 0: no block is left
void dls_block_warn_early_exit(dls_simt_worker *w);
void dls_block_warn_divergence(dls_simt_worker *w, const dls_fiber *a,
                               const dls_fiber *b);
void dls_warp_recheck(dls_simt_worker *w, dls_warp *warp);  // a lane has returned
_Noreturn void dls_fault_as(dls_simt_worker *w, int error, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#define dls_fault(w, ...) dls_fault_as(w, cudaErrorLaunchFailure, __VA_ARGS__)
uint64_t dls_mix(uint64_t x);

#endif
