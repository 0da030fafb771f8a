/* code/vgpu/probe.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* Watching a launch: the engine's events, the logs, who is told. */
#include "vgpu/probe_internal.h"
#include "vgpu/simt_internal.h"

#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

dls_probe_state dls_probe;

static pthread_mutex_t one_launch = PTHREAD_MUTEX_INITIALIZER;

/* tell all consumers */
#define TELL(function, ...)                                                       \
    for (int i = 0; i < DLS_PROBE_CONSUMERS; i++)                                 \
        if (dls_probe.consumer[i] && dls_probe.consumer[i]->function)             \
            dls_probe.consumer[i]->function(__VA_ARGS__)
/* find the memory of the emulator */
/* The thread-local variables of the program, which lie together. */
static int find_tls(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_TLS) {
            dls_probe.tls = (uintptr_t)info->dlpi_tls_data;
            dls_probe.tls_size = info->dlpi_phdr[i].p_memsz;
        }
    return 1;  // the first is the program itself
}

static void find_regions(const dls_simt_grid *grid)
{
    dls_simt_regions r;
    dls_simt_get_regions(&r);
    dl_iterate_phdr(find_tls, NULL);
    dls_probe.stacks = (uintptr_t)r.stacks;
    dls_probe.stacks_size = r.stacks_size;
    dls_probe.shared = (uintptr_t)r.shared;
    dls_probe.shared_size = r.shared_size;
    dls_probe.closure = (uintptr_t)grid->closure;
    dls_probe.closure_size = malloc_usable_size(grid->closure);
}
/* begin and end a launch */
static void make_logs(void)
{
    dls_probe_lane *all = aligned_alloc(64, sizeof *all * PROBE_THREADS);
    for (unsigned i = 0; all && i < PROBE_THREADS; i++) {
        dls_probe_set_count(&all[i], 0);  // as all logs are that nobody has
        dls_probe.spare[dls_probe.spares++] = &all[i];
    }
}

static void launch_begin(const dls_simt_grid *grid)
{
    pthread_mutex_lock(&one_launch);
    if (!dls_probe.spares)
        make_logs();
    find_regions(grid);
    dls_probe.grid = grid;
    dls_probe_hears_host = 0;
    dls_probe_forget_shapes();
    dls_probe_forget_phrases(1);
    TELL(launch_begin, grid, dls_probe.launches);
    dls_probe.launches++;
}

static void launch_end(const dls_simt_grid *grid, int failed)
{
    if (failed)
        dls_probe_flush();
    dls_probe_now = &dls_probe_nobody;
    dls_probe_tell_repeated();
    TELL(launch_end, grid, failed);
    dls_probe.grid = NULL;
    dls_probe_hears_host = 1;
    pthread_mutex_unlock(&one_launch);
}
/* begin and end a block */
static void block_begin(unsigned long long block)
{
    const unsigned *b = dls_probe.grid->block;
    unsigned threads = b[0] * b[1] * b[2], rest = threads % DLS_SIMT_WARP;
    dls_probe.block = block;
    dls_probe.warps = (threads + DLS_SIMT_WARP - 1) / DLS_SIMT_WARP;
    dls_probe.epoch = dls_probe.meetings = 0;
    memset(dls_probe.warp, 0, sizeof dls_probe.warp);
    memset(dls_probe.met, 0, sizeof dls_probe.met);
    if (rest)
        dls_probe.warp[dls_probe.warps - 1].absent = ~0u << rest;
    TELL(block_begin, block);
}

void dls_probe_flush(void)
{
    for (unsigned w = 0; w < dls_probe.warps; w++)
        dls_probe_consume(w, 0);
}

static void block_end(void)
{
    dls_probe_now = &dls_probe_nobody;
    dls_probe_flush();
    TELL(block_end, dls_probe.block);
}
/* follow the lanes */
static inline dls_probe_lane *log_of(unsigned thread)
{
    dls_probe_lane *l = dls_probe.lane[thread];
    if (!l) {
        l = dls_probe.lane[thread] = dls_probe.spare[--dls_probe.spares];
        l->thread = thread;
        dls_probe.logs[thread / DLS_SIMT_WARP] |= 1u << thread % DLS_SIMT_WARP;
    }
    return l;
}

static void run(unsigned thread)
{
    dls_probe_now = thread < PROBE_THREADS ? log_of(thread) : &dls_probe_nobody;
}

static void returned(unsigned thread)
{
    dls_probe_warp *w = &dls_probe.warp[thread / DLS_SIMT_WARP];
    w->absent |= 1u << thread % DLS_SIMT_WARP;
    dls_probe_now = &dls_probe_nobody;
    if (w->absent == ~0u)
        dls_probe_consume(thread / DLS_SIMT_WARP, 0);
}
static void arrived(unsigned thread, const void *pc);

static __attribute__((noinline)) void arrived_full(unsigned thread, const void *pc)
{
    dls_probe_full(dls_probe_now);
    arrived(thread, pc);
}

static void arrived(unsigned thread, const void *pc)
{
    enum { WORTH_IT = 4 };
    dls_probe_warp *w = &dls_probe.warp[thread / DLS_SIMT_WARP];
    uint32_t count = dls_probe_count(dls_probe_now);
    if (__builtin_expect(count >= PROBE_ALMOST, 0)) {
        arrived_full(thread, pc);
        return;
    }
    if (pc)
        dls_probe.waits_at[thread] = pc;
    w->stopped |= 1u << thread % DLS_SIMT_WARP;
    if ((w->absent | w->stopped) == ~0u && count >= WORTH_IT)
        dls_probe_consume(thread / DLS_SIMT_WARP, 0);
}
/* answer for the built in variables */
extern __thread dls_simt_dim blockIdx, blockDim, gridDim;

#define BUILT_IN(name, variable)                                                  \
    unsigned name(int axis);                                                      \
    unsigned name(int axis) { return (&variable.x)[axis]; }
BUILT_IN(dls_probed_thread, threadIdx)
BUILT_IN(dls_probed_block, blockIdx)
BUILT_IN(dls_probed_block_size, blockDim)
BUILT_IN(dls_probed_grid_size, gridDim)
/* pass a barrier */
static void barrier(const char *file, int line)
{
    dls_probe_flush();
    for (unsigned w = 0; w < dls_probe.warps; w++)
        dls_probe.warp[w].stopped = 0;
    dls_probe.epoch++;
    TELL(barrier, dls_probe.epoch, file, line);
}

static void met(unsigned warp, unsigned lanes, dls_warp_op op)
{
    uint64_t number = dls_probe.meetings++ & 0xffffff;
    uint64_t word = (uint64_t)lanes << 32 | number << 8 | (unsigned)op;
    dls_probe.warp[warp].stopped &= ~lanes;
    for (unsigned rest = lanes; rest; rest &= rest - 1) {
        unsigned thread = warp * DLS_SIMT_WARP + (unsigned)__builtin_ctz(rest);
        dls_probe_note(log_of(thread), dls_probe.waits_at[thread], NOTE_SYNC, word);
    }
}

static void shared_array(const char *name, void *array, size_t bytes, const char *file,
                         int line)
{
    TELL(shared_array, name, array, bytes, file, line);
}
static void diverged(const dls_simt_stop *one, const dls_simt_stop *other)
{
    TELL(diverged, one, other);
}

static void early_exit(unsigned thread, const dls_simt_stop *waits)
{
    TELL(early_exit, thread, waits);
}

static void source_lane(const dls_simt_stop *at, unsigned source)
{
    TELL(source_lane, at, source);
}

static void fault(const char *text) { TELL(fault, text); }
/* make room in a full log */
enum { PATIENCE = 8 };  // turns that a lane gives to others

/* Those of `lanes` whose logs have no room either. */
static uint32_t full_lanes(unsigned warp, uint32_t lanes)
{
    uint32_t full = 0;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctz(rest);
        const dls_probe_lane *l = dls_probe.lane[warp * DLS_SIMT_WARP + i];
        full |= (uint32_t)(l && dls_probe_count(l) >= PROBE_ALMOST) << i;
    }
    return full;
}

void dls_probe_full(dls_probe_lane *l)
{
    unsigned warp = l->thread / DLS_SIMT_WARP;
    for (unsigned turns = 0; dls_probe_count(dls_probe_now) >= PROBE_ALMOST; turns++) {
        uint32_t open = ~(dls_probe.warp[warp].absent | dls_probe.warp[warp].stopped);
        if (turns >= PATIENCE)
            dls_probe_consume(warp, 0);
        else if (full_lanes(warp, open) == open)
            dls_probe_consume(warp, open);
        else
            dls_simt_yield();
    }
}
void dls_probe_cut(dls_probe_lane *l)
{
    unsigned thread = l->thread, warp = thread / DLS_SIMT_WARP;
    dls_probe_warp *w = &dls_probe.warp[warp];
    uint32_t mine = 1u << thread % DLS_SIMT_WARP;
    w->fencing |= mine;
    for (unsigned turns = 0; turns < PATIENCE && (w->fencing & mine); turns++) {
        if (!~(w->absent | w->stopped | w->fencing))
            break;
        dls_simt_yield();
    }
    if (w->fencing & mine)
        dls_probe_consume(warp, 0);
    w->fencing = 0;
}
/* attach a consumer */
static const dls_simt_probe table = {
    launch_begin, launch_end, block_begin, block_end, run, returned, arrived, barrier,
    met, shared_array, dls_probe_access, dls_probe_flops, diverged, early_exit,
    source_lane, fault, dls_probe_interrupted};

int dls_probe_attach(const dls_probe_consumer *consumer)
{
    for (int i = 0; i < DLS_PROBE_CONSUMERS; i++)
        if (!dls_probe.consumer[i]) {
            dls_probe.consumer[i] = consumer;
            dls_simt_probes = &table;
            dls_probe_hears_host = dls_probe_attached = 1;
            dls_probe_nobody.end = -1;
            dls_probe_forget_phrases(0);  // their slots may be another's
            return i;
        }
    return -1;
}

void dls_probe_detach(int number)
{
    int any = 0;
    if (number >= 0 && number < DLS_PROBE_CONSUMERS)
        dls_probe.consumer[number] = NULL;
    for (int i = 0; i < DLS_PROBE_CONSUMERS; i++)
        any |= dls_probe.consumer[i] != NULL;
    if (!any) {
        dls_simt_probes = NULL;
        dls_probe_hears_host = dls_probe_attached = 0;
    }
}

int dls_probe_here(unsigned *thread, unsigned long long *block)
{
    if (!dls_probe_somebody())
        return 0;
    *thread = dls_probe_now->thread;
    *block = dls_probe.block;
    return 1;
}
