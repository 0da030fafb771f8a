/* code/vgpu/probe.h: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* Probes: what a kernel does to memory, seen warp by warp.
 *
 *   hook (a lane's access) -> log of the lane -> requests of the warp -> consumers
 *
 * A probed program calls a hook before every access and at every basic block. A hook
 * notes its place and the address; when the lanes of a warp have stopped, their notes are
 * merged into requests and handed to the consumers: the profiler and the checker. The
 * launches of a probed process run one at a time, on one thread, block after block.
 */
#ifndef DLS_VGPU_PROBE_H
#define DLS_VGPU_PROBE_H

#include <stddef.h>
#include <stdint.h>

#include "vgpu/simt.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare kinds of requests */
typedef enum dls_probe_kind {
    DLS_PROBE_READ, DLS_PROBE_WRITE,
    DLS_PROBE_ATOMIC_READ, DLS_PROBE_ATOMIC_WRITE, DLS_PROBE_ATOMIC_UPDATE,
    DLS_PROBE_LANDING,  // bytes of a cp.async, at its wait; the WRITE was at its issue
    DLS_PROBE_BLOCK,    // a basic block was entered; no address
    DLS_PROBE_FLOPS,    // address[i]: operations that a wrapper did for lane i
    DLS_PROBE_SPECIAL,  // a call of a mathematical function; no address
    DLS_PROBE_SYNC      // lanes met in a warp operation; address[i]: all its lanes << 32
                        // | the number of the meeting in its block << 8 | dls_warp_op
} dls_probe_kind;

typedef enum dls_probe_space {
    DLS_PROBE_GLOBAL,   // device memory, variables of the program, host memory
    DLS_PROBE_SHARED
} dls_probe_space;

enum { DLS_PROBE_CONSUMERS = 4 };

/* declare a site */
/* A place in the machine code. Lives as long as the process. */
typedef struct dls_probe_site {
    uint32_t code;           // its identity
    unsigned id;             // 0, 1, ...: in the order of their first request
    dls_probe_kind kind;
    unsigned size;           // bytes per lane
    uintptr_t pc;            // where the hook returns to
    const char *function;    // these four after dls_probe_locate()
    const char *file;
    int line;
    int hidden;              // no line of the program: the emulator's own code
    void *slot[DLS_PROBE_CONSUMERS];  // for consumer number i, NULL at first
} dls_probe_site;

/* declare a request */
/* The accesses that lanes of one warp made together. */
typedef struct dls_probe_request {
    dls_probe_site *site;
    dls_probe_kind kind;
    dls_probe_space space;
    unsigned size;           // bytes per lane: 1, 2, 4, 8 or 16
    uint32_t mask;           // the lanes that took part
    unsigned warp;           // in its block
    unsigned long long block;
    unsigned epoch;          // barriers that the block has passed
    const unsigned *met;     // (32) warp operations that each lane passed in its block
    int same;                // as the site's last request, but shifted: the same mask and
                             // space, and every address[i] differs from it by `shift`
    int64_t shift;
    const uint64_t *address; // (32); undefined for lanes outside of mask
} dls_probe_request;

/* declare a phrase */
/* What a warp has noted between two stops, more than once. Some of it is quiet: basic
 * blocks, special functions, and accesses to shared memory at the same addresses. */
typedef struct dls_probe_phrase {
    unsigned number;         // no other phrase has it
    unsigned warp, count;    // notes of a lane
    uint32_t mask;           // the lanes that play it
    unsigned quiet;          // requests that are quiet ...
    unsigned shared, writes; // ... that are to shared memory, and of these the writes
    void *slot[DLS_PROBE_CONSUMERS];  // NULL at first; freed with the phrase
} dls_probe_phrase;
/* declare a consumer */
/* A consumer. Every function may be NULL. They are called on the launching thread. */
typedef struct dls_probe_consumer {
    void (*launch_begin)(const dls_simt_grid *grid, unsigned long long number);
    void (*launch_end)(const dls_simt_grid *grid, int failed);
    void (*block_begin)(unsigned long long block);
    void (*block_end)(unsigned long long block);
    void (*request)(const dls_probe_request *request);
    /* A warp plays a phrase again. 1: its quiet requests need not be handed over; 0: they
     * must be. And when the launch ends: it was played so often without them. A consumer
     * of requests that has neither gets them all, always. */
    int (*again)(dls_probe_phrase *phrase);
    void (*repeated)(dls_probe_phrase *phrase, unsigned long long times);
    void (*barrier)(unsigned epoch, const char *file, int line); // all warps consumed
    void (*shared_array)(const char *name, void *array, size_t bytes, const char *file,
                         int line);
    /* At once, before the notes of the lane are handed over: an atomic or volatile
     * access, and a fence, for which they have been. */
    void (*sync)(unsigned thread, const void *address, int writes, int reads);
    void (*fence)(unsigned thread, int device_wide);
    /* The engine's own complaints. */
    void (*diverged)(const dls_simt_stop *one, const dls_simt_stop *other);
    void (*early_exit)(unsigned returned, const dls_simt_stop *waits);
    void (*source_lane)(const dls_simt_stop *at, unsigned source);
    void (*fault)(const char *text);
    /* Probed host code touches memory: at once, no request. */
    void (*host)(uintptr_t pc, const void *address, size_t size, int write);
    /* An index out of a local or shared array's bounds, before the access. */
    void (*bounds)(uintptr_t pc, const char *file, int line, int column, long long index,
                   const char *array_type);
} dls_probe_consumer;

/* declare the functions of probes */
/* Host. Begins to hand events to the consumer; returns its number (its slot in a site),
 * or -1 when there are too many. Not while a kernel runs. */
int dls_probe_attach(const dls_probe_consumer *consumer);
void dls_probe_detach(int number);

/* Fills function, file and line of a site: the line of the program which the access
 * belongs to, also where code was inlined from headers of the virtual GPU. */
void dls_probe_locate(dls_probe_site *site);

/* The same for any program counter of this process; 0 when it is not known. The strings
 * live as long as the process. */
int dls_probe_place(uintptr_t pc, const char **function, const char **file, int *line);

/* The function that the machine code belongs to, whatever was inlined there; or "". */
const char *dls_probe_symbol(uintptr_t pc);

/* All sites so far: 0 .. count-1. */
unsigned dls_probe_site_count(void);
dls_probe_site *dls_probe_site_at(unsigned id);

/* The quiet request i of a phrase, in their order; address: (32), room for its own.
 * Neither block, epoch nor `met` are set. */
void dls_probe_quiet(const dls_probe_phrase *phrase, unsigned i, dls_probe_request *out,
                     uint64_t *address);

/* Inside a kernel, on a lane, while a consumer runs: its thread in the block and the
 * block. 0 outside of kernels. */
int dls_probe_here(unsigned *thread, unsigned long long *block);

/* Threads that ran before a fault may have notes left: hand them over now. The engine
 * calls it; the checker may, before it reports from inside `bounds`. */
void dls_probe_flush(void);

#ifdef __cplusplus
}
#endif
#endif
