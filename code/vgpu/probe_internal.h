/* code/vgpu/probe_internal.h: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* Inside the probes: logs of lanes, the state of the launch that is being watched. */
#ifndef DLS_VGPU_PROBE_INTERNAL_H
#define DLS_VGPU_PROBE_INTERNAL_H

#include "vgpu/probe.h"

/* define the code of a note */
/* A note's code: the place (27 bits of it) and what happened. */
enum {
    NOTE_READ = 0, NOTE_WRITE = 5,              // + log2 of the size: 1, 2, 4, 8, 16
    NOTE_READ_RANGE = 10, NOTE_WRITE_RANGE,     // size in the top 16 bits of the address
    NOTE_ATOMIC_READ, NOTE_ATOMIC_WRITE, NOTE_ATOMIC_UPDATE, NOTE_LANDING,  // likewise
    NOTE_BLOCK, NOTE_FLOPS, NOTE_SPECIAL, NOTE_SYNC,
    NOTE_BITS = 5, NOTE_SIZE_SHIFT = 48
};

extern char __executable_start[];

static inline uint32_t dls_probe_code(const void *pc, unsigned what)
{
    return (uint32_t)(__executable_start - (const char *)pc) +
           (what << (32 - NOTE_BITS));
}

/* The place, counted from the start of the program, << NOTE_BITS | what happened there:
 * ordered as the code is. */
static inline uint32_t dls_probe_offset(uint32_t code)
{
    uint32_t place = -code & (~0u >> NOTE_BITS);
    return place << NOTE_BITS | (code + place) >> (32 - NOTE_BITS);
}
/* define the log of a lane */
enum { PROBE_ROOM = 512, PROBE_FULL = PROBE_ROOM - 4, PROBE_ALMOST = PROBE_ROOM - 8,
       PROBE_THREADS = DLS_SIMT_MAX_THREADS,
       PROBE_WARPS = PROBE_THREADS / DLS_SIMT_WARP };

typedef struct dls_probe_lane {
    int32_t end;          // how many notes there are, - PROBE_FULL
    uint32_t thread;
    uint32_t code[PROBE_ROOM];
    __attribute__((aligned(64))) uint64_t address[PROBE_ROOM];
} __attribute__((aligned(64))) dls_probe_lane;

_Static_assert(sizeof(dls_probe_lane) / 64 % 2 == 1, "neighbours in different sets");

static inline uint32_t dls_probe_count(const dls_probe_lane *l)
{
    return (uint32_t)(l->end + PROBE_FULL);
}

static inline void dls_probe_set_count(dls_probe_lane *l, uint32_t count)
{
    l->end = (int32_t)count - PROBE_FULL;
}

/* Appends a note; 1: the log is full now. */
static inline int dls_probe_note(dls_probe_lane *l, const void *pc, unsigned what,
                                 uint64_t word)
{
    uint32_t n = dls_probe_count(l);
    l->code[n] = dls_probe_code(pc, what);
    l->address[n] = word;
    return ++l->end >= 0;
}
/* declare the state of probes */
typedef struct dls_probe_warp {
    uint32_t absent;   // lanes that the block does not have, or that have returned
    uint32_t stopped;  // lanes that wait in the engine
    uint32_t fencing;  // lanes that stand at a fence
} dls_probe_warp;

typedef struct dls_probe_state {
    dls_probe_lane *lane[PROBE_THREADS];   // of the block's threads; NULL: nothing noted
    dls_probe_lane *spare[PROBE_THREADS];  // logs that nobody has
    unsigned spares;
    uint32_t logs[PROBE_WARPS];            // the lanes of each warp that have a log
    const void *waits_at[PROBE_THREADS];   // the call in which a thread waits
    const dls_simt_grid *grid;
    unsigned long long block, launches;
    unsigned warps, epoch, meetings;
    uintptr_t stacks, stacks_size, shared, shared_size, tls, tls_size, closure,
        closure_size;
    dls_probe_warp warp[PROBE_WARPS];
    unsigned met[PROBE_THREADS];
    const dls_probe_consumer *consumer[DLS_PROBE_CONSUMERS];
} dls_probe_state;

extern dls_probe_state dls_probe;
extern dls_probe_lane dls_probe_nobody;          // full, once a consumer is attached
extern int dls_probe_attached;                  // are there consumers?
extern int dls_probe_hears_host;                // somebody listens, and no kernel runs
extern __thread dls_probe_lane *dls_probe_now;  // of the lane that runs, or of nobody

static inline int dls_probe_somebody(void) { return dls_probe_now != &dls_probe_nobody; }
/* declare the internals of probes */
void dls_probe_full(dls_probe_lane *lane);  // makes room; other lanes may run
void dls_probe_outside(uint32_t code, uint64_t word); // a note that no lane made
void dls_probe_cut(dls_probe_lane *lane);   // hands over all that the lane has noted
void dls_probe_interrupted(const void *context);

/* Hands the notes of a warp over. `open`: lanes that will go on, so that what comes next
 * in their logs is not known. */
void dls_probe_consume(unsigned warp, uint32_t open);
void dls_probe_forget_shapes(void);  // of all sites: a launch begins
typedef struct dls_probe_view {  // a warp whose logs are read
    dls_probe_lane *lane[DLS_SIMT_WARP];
    unsigned number;
    const unsigned *met;   // (32)
} dls_probe_view;

/* Of one note; `code` counts from the start of the program. `address` may be changed. */
void dls_probe_request_of(const dls_probe_view *v, uint32_t code, uint32_t mask,
                          uint64_t *address);
dls_probe_site *dls_probe_find_site(uint32_t code);  // NULL: no memory

/* 1: the warp's logs were a phrase, which has been handed over. */
int dls_probe_play(const dls_probe_view *v, uint32_t mask);
void dls_probe_learn(const dls_probe_view *v, uint32_t mask);  // equal logs
void dls_probe_tell_repeated(void);   // at the end of a launch
void dls_probe_forget_phrases(int only_if_many);

void dls_probe_tell_sync(const dls_probe_lane *l, const volatile void *p, unsigned what);
void dls_probe_access(const void *p, size_t size, int write, const void *pc);
void dls_probe_flops(unsigned long long count, const void *pc);

/* What a site's last request looked like. The site is the first member. */
typedef struct dls_probe_shape {
    dls_probe_site site;
    uint32_t mask;
    dls_probe_space space;
    uint64_t first;
    uint64_t rest[DLS_SIMT_WARP];  // address[i] - first
} dls_probe_shape;

static inline dls_probe_shape *dls_probe_shape_of(dls_probe_site *site)
{
    return (dls_probe_shape *)site;
}

#endif
