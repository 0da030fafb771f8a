/* code/vgpu/simt.h: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* The SIMT engine: runs every thread of a CUDA grid on a few CPU threads.
 *
 * A worker (an OS thread) takes one block at a time. The threads of the block are
 * iterations of a plain loop until one of them waits; from then on each waiting thread
 * keeps its own stack (a fiber) and the worker switches between them. A block never moves
 * to another worker, whose arena holds its shared memory.
 *
 * Everything here may be called from inside a kernel unless it says "host".
 */
#ifndef DLS_VGPU_SIMT_H
#define DLS_VGPU_SIMT_H

#include <stddef.h>

#ifdef __cplusplus
#include "shadow/vector_types.h"
#endif

/* declare the position of a thread */
/* A thread's coordinates in its block, and its index when they are counted through. */
#ifdef __cplusplus
typedef struct alignas(16) dls_simt_index : uint3 {
    unsigned linear;
} dls_simt_index;
#else
typedef struct dls_simt_index {
    unsigned x, y, z, linear;
} __attribute__((aligned(16))) dls_simt_index;
#endif

typedef struct dls_simt_dim {
    unsigned x, y, z;
} dls_simt_dim;

enum { DLS_SIMT_WARP = 32, DLS_SIMT_MAX_THREADS = 1024 };

#ifdef __cplusplus
extern "C" {
#endif

/* declare a grid and how to run it */
typedef struct dls_simt_grid {
    const char *name;            // the kernel as written in the launch: "k<float>"
    const char *file;            // where it was launched
    int line;
    unsigned grid[3], block[3];
    size_t shared_bytes;         // dynamic shared memory per block
    size_t shared_limit;         // what cudaFuncSetAttribute allows; 0: 48 KiB
    const void *kernel;          // its address: what attributes are kept under
    int cooperative;             // all blocks must run together
    void (*span)(void *closure); // while (dls_simt_next()) kernel(arguments);
    void *closure;
} dls_simt_grid;

/* Host. Runs the whole grid and returns 0; or -1 after a fault in a kernel (a deadlock, a
 * wrong mask), which is logged in one line and kept for dls_simt_take_fault(). */
int dls_simt_run_grid(const dls_simt_grid *grid);

/* Host. What the runtime runs when a launch's turn in its stream has come: configures the
 * engine from the runtime's options if nobody did, runs the grid, and breaks the device
 * (cudaErrorLaunchFailure, with the message) when a kernel failed. */
void dls_simt_run_launch(const dls_simt_grid *grid);

/* Host. Copies the message of the last fault, forgets it and returns its error number (a
 * cudaError_t); 0 when there was none. */
int dls_simt_take_fault(char *message, size_t room);

/* Host. `threads` workers (0: DLS_THREADS, else the cores divided by DLS_WORLD_SIZE) and
 * the seed of the lane order (0: threads run in ascending order). */
void dls_simt_configure(int threads, unsigned long long seed);

/* Host. The same, but only if nobody has. */
void dls_simt_configure_once(int threads, unsigned long long seed);

/* Host. Early exits before a barrier that were seen (each kernel warns once), and
 * arrivals at a barrier while other threads of the block waited at another one. */
unsigned long dls_simt_early_exits(void);
unsigned long dls_simt_divergent_barriers(void);
/* declare the thread loop */
typedef struct dls_simt_cursor {
    unsigned next, end;           // threads handed out; where the fast path stops
    unsigned key;                 // the order: position i runs thread i ^ key of `index`
    unsigned serial;              // changes with every block this worker begins
    unsigned threads;             // of the block
    const dls_simt_index *index;  // (threads)
} dls_simt_cursor;

extern __thread dls_simt_index threadIdx;
extern __thread dls_simt_cursor dls_simt_here;

int dls_simt_next_slow(void);

#ifdef DLS_PROBED
#define DLS_UNPROBED __attribute__((no_sanitize("thread"), no_sanitize_coverage))
#else
#define DLS_UNPROBED
#endif

/* Becomes the next thread; 0 when this stack has no more work in this launch. *at is the
 * caller's copy of the position, 0 at first: a register instead of a store and a load. */
DLS_UNPROBED static inline int dls_simt_next(unsigned *at)
{
    if (__builtin_expect(*at < dls_simt_here.end, 1)) {
        __builtin_memcpy(&threadIdx, &dls_simt_here.index[*at ^ dls_simt_here.key],
                         sizeof threadIdx);
        dls_simt_here.next = ++*at;
        return 1;
    }
    int more = dls_simt_next_slow();
    *at = dls_simt_here.next;
    return more;
}
/* declare barriers and yields */
/* Waits until every thread of the block that has not returned is here. */
void dls_simt_barrier(const char *file, int line);

/* The same for all blocks of a cooperative launch; in another launch, a fault. */
void dls_simt_grid_barrier(const char *file, int line);

/* The same; returns how many of them came with a `predicate` that is not 0. */
unsigned dls_simt_barrier_count(int predicate, const char *file, int line);

/* The lanes of this warp that ask at the same place, as far as that can be told. */
unsigned dls_simt_active_mask(const char *file, int line);

/* Is this a cooperative launch? */
int dls_simt_is_cooperative(void);

/* Lets the other threads of the block run; the engine also calls it in spin loops. */
void dls_simt_yield(void);

/* An atomic operation changed nothing: after some of these in a row the thread yields. */
void dls_simt_spin(void);
/* declare warp rendezvous */
typedef enum dls_warp_op {
    DLS_WARP_SYNC, DLS_WARP_SHFL, DLS_WARP_UP, DLS_WARP_DOWN, DLS_WARP_XOR,
    DLS_WARP_ANY, DLS_WARP_ALL, DLS_WARP_BALLOT, DLS_WARP_MATCH_ANY, DLS_WARP_MATCH_ALL,
    DLS_WARP_ADD, DLS_WARP_AND, DLS_WARP_OR, DLS_WARP_BITXOR,
    DLS_WARP_MIN, DLS_WARP_MAX, DLS_WARP_MIN_U, DLS_WARP_MAX_U,
    DLS_WARP_MEET  // with operands of any size: dls_simt_meet
} dls_warp_op;

/* Waits for the lanes of `mask` that have not returned; returns this lane's result. A
 * shuffle from a lane that does not take part returns poison. */
unsigned long long dls_simt_warp(dls_warp_op op, unsigned mask, unsigned long long value,
                                 int argument, int width, const char *file, int line);

/* declare a meeting */
/* A warp operation with operands of any size. What a lane brings begins with this; when
 * the lanes have come, `complete` is called once and writes everybody's result. */
typedef struct dls_simt_meeting {
    const char *name;    // of the instruction
    const void *caller;  // in the kernel
    void (*complete)(struct dls_simt_meeting *const lane[DLS_SIMT_WARP]);
} dls_simt_meeting;

/* All 32 lanes of the warp must come. */
void dls_simt_meet(dls_simt_meeting *own, const char *file, int line);
/* declare shared memory calls */
/* The block's dynamic shared memory, 128-byte aligned; a guard page follows its end. */
void *dls_simt_dynamic_memory(void);

/* A __shared__ variable as declared, and where it lies in the block of this serial. */
typedef struct dls_simt_shared {
    const char *name, *file;
    int line;
    size_t bytes, align;
} dls_simt_shared;

typedef struct dls_simt_slot {
    unsigned serial;
    void *address;
} dls_simt_slot;

/* The variable's place in the arena of the running block, 128-byte aligned. The first
 * thread that comes by gives it one, poisoned. */
dls_simt_slot dls_simt_shared_enter(const dls_simt_shared *variable);

/* Every 32-bit word of fresh memory: a quiet NaN as float, and doubled as double; a large
 * negative int; an index that faults. */
#define DLS_SIMT_POISON 0xfffddeadu
/* declare what probes are told */

/* Where a thread stands. */
typedef struct dls_simt_stop {
    unsigned thread;  // in its block
    const char *file;
    int line;
} dls_simt_stop;

/* What the engine tells the probes (probe.h); NULL in a program without them. All calls
 * come on the one thread that runs the launch. */
typedef struct dls_simt_probe {
    void (*launch_begin)(const dls_simt_grid *grid);
    void (*launch_end)(const dls_simt_grid *grid, int failed);
    void (*block_begin)(unsigned long long block);
    void (*block_end)(void);
    void (*run)(unsigned thread);      // goes on, or DLS_SIMT_MAX_THREADS: none yet
    void (*returned)(unsigned thread);
    void (*arrived)(unsigned thread, const void *pc); // at a barrier or warp operation
    void (*barrier)(const char *file, int line);      // it is complete
    void (*met)(unsigned warp, unsigned lanes, dls_warp_op op); // complete, too
    void (*shared_array)(const char *name, void *array, size_t bytes, const char *file,
                         int line);
    /* What a wrapper does for a lane, out of the hooks' sight. write: 0 a read, 1 a
     * write, 2 a write that was told of before lands now (cp.async). */
    void (*access)(const void *address, size_t size, int write, const void *pc);
    void (*flops)(unsigned long long count, const void *pc);
    /* Complaints. Two threads stand at different barriers; one returned before another's
     * barrier; a shuffle read a lane that did not take part; the launch is given up. */
    void (*diverged)(const dls_simt_stop *one, const dls_simt_stop *other);
    void (*early_exit)(unsigned returned, const dls_simt_stop *waits);
    void (*source_lane)(const dls_simt_stop *at, unsigned source);
    void (*fault)(const char *text);
    void (*interrupted)(const void *context); // a ucontext_t: by a signal, for good
} dls_simt_probe;

extern const dls_simt_probe *dls_simt_probes;

/* Where the engine keeps what a kernel calls its own: stacks, and shared memory. */
typedef struct dls_simt_regions {
    void *stacks, *shared;
    size_t stacks_size, shared_size;
} dls_simt_regions;

/* Host. Of this thread's worker; zeros without memory for one. */
void dls_simt_get_regions(dls_simt_regions *out);

#ifdef __cplusplus
}
#endif
#endif
