/* code/vgpu/check_start.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* Attaches the checker to the runtime and to the probes, and prints at the end. */
#include "vgpu/check_internal.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* understand a fault */
static void set_stop(dls_check_party *p, const char *did, const dls_simt_stop *at)
{
    p->file = at->file;
    p->line = at->line;
    dls_check_name_thread(p->what, sizeof p->what, did, dls_checker.block, at->thread);
}

/* Paths below the working directory are shown without it, as the compiler writes them;
 * also when the program was compiled in another copy of the tree. */
static const char *shortened(const char *file)
{
    for (const char *at = file; *file == '/' && (at = strchr(at, '/')) != NULL;)
        if (access(++at, R_OK) == 0)
            return at;
    return file;
}

/* "block B: thread T: ... at FILE:LINE: 588 bytes past ..." in the engine's words becomes
 * a thread, a place, and what is said of the memory. */
static void take_place_from(dls_check_report *r, const char *text)
{
    char file[160], block[48], thread[48];
    int used = 0;
    snprintf(r->here.what, sizeof r->here.what, "%.*s", (int)sizeof r->here.what - 1,
             text);
    for (const char *at = strstr(text, " at "); at; at = strstr(at + 1, " at "))
        if (sscanf(at, " at %159[^: ]:%d%n", file, &r->here.line, &used) == 2) {
            r->here.file = strdup(shortened(file));
            if (!strstr(text, ": illegal access") ||
                sscanf(text, "block %47[^:]: thread %47[^:]", block, thread) != 2)
                return;
            snprintf(r->here.what, sizeof r->here.what, "by thread %s of block %s",
                     thread, block);
            if (!strncmp(at + used, ": ", 2))
                snprintf(r->memory, sizeof r->memory, "%s", at + used + 2);
            return;
        }
}

static void diverged(const dls_simt_stop *one, const dls_simt_stop *other)
{
    dls_check_report *r = dls_check_found(
        DLS_CHECK_BARRIER, DLS_CHECK_ERROR, (const void *)(one->file + one->line),
        "threads of one block wait at different barriers",
        "move __syncthreads() out of the condition, so that all threads reach the same");
    if (r) {
        set_stop(&r->here, "waited at by", one);
        set_stop(&r->there, "waited at by", other);
    }
}

static void early_exit(unsigned returned, const dls_simt_stop *waits)
{
    dls_check_report *r = dls_check_found(
        DLS_CHECK_BARRIER, DLS_CHECK_WARNING, (const void *)(waits->file + waits->line),
        "a thread has returned before a barrier that others of its block wait at",
        "let it skip the work instead of returning, so that it reaches the barrier");
    if (!r)
        return;
    set_stop(&r->here, "waited at by", waits);
    dls_check_name_thread(r->there.what, sizeof r->there.what, "returned before:",
                          dls_checker.block, returned);
}

static void source_lane(const dls_simt_stop *at, unsigned source)
{
    dls_check_report *r = dls_check_found(
        DLS_CHECK_SOURCE_LANE, DLS_CHECK_NOTE, (const void *)(at->file + at->line),
        "a shuffle reads from a lane that does not take part: the value is undefined",
        "harmless if the value is thrown away; else let all lanes of the mask take part");
    if (!r)
        return;
    set_stop(&r->here, "called by", at);
    snprintf(r->memory, sizeof r->memory, "lane %u was asked", source);
}

static char fault_text[512];

/* Kept until the logs have been read: the access that caused it may be in them. */
static void fault(const char *text)
{
    snprintf(fault_text, sizeof fault_text, "%s", text);
}

static void explain_fault(const char *text, int accesses)
{
    static const struct {
        const char *word;
        dls_check_class kind;
        const char *title;
    } known[] = {
        {"deadlock", DLS_CHECK_DEADLOCK, "every thread of a block waits, for ever"},
        {"mask", DLS_CHECK_MASK, "the mask of a warp operation is wrong"},
        {"different", DLS_CHECK_MASK, "lanes of a warp meet in different operations"},
        {"width", DLS_CHECK_MASK, "the width of a shuffle is wrong"},
        {"shared memory", DLS_CHECK_SHARED_BOUNDS,
         "access outside of the block's shared memory"},
        {"illegal access", DLS_CHECK_GLOBAL_BOUNDS, "access outside of every allocation"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!strstr(text, known[i].word))
            continue;
        if (i >= 4 && accesses)
            return; // that was it
        dls_check_report *r = dls_check_found(known[i].kind, DLS_CHECK_ERROR,
                                              known[i].word, known[i].title, "");
        if (r)
            take_place_from(r, text);
        return;
    }
}

static void bounds(uintptr_t pc, const char *file, int line, int column, long long index,
                   const char *type)
{
    unsigned thread;
    unsigned long long block;
    (void)pc, (void)column;
    dls_check_report *r = dls_check_found(
        DLS_CHECK_LOCAL_BOUNDS, DLS_CHECK_ERROR, (const void *)(file + line),
        "index outside of an array", "compare the index with the array's size");
    if (!r)
        return;
    snprintf(r->memory, sizeof r->memory, "index %lld of an array of type %s", index,
             type);
    r->here.file = file;
    r->here.line = line;
    snprintf(r->here.what, sizeof r->here.what, "indexed by the host");
    if (dls_probe_here(&thread, &block) && dls_checker.grid)
        dls_check_name_thread(r->here.what, sizeof r->here.what, "indexed by",
                              (uint32_t)block, thread);
}
/* follow a launch */
static unsigned reports_before;

static void launch_begin(const dls_simt_grid *grid, unsigned long long number)
{
    reports_before = dls_check_unsettled_count();
    (void)number;
    dls_checker.grid = grid;
    dls_check_op_number(dls_checker.op)->seen = 1;
    dls_check_sync_reset();
}

static void block_begin(unsigned long long block)
{
    dls_check_block_began((uint32_t)block);
}

static void block_end(unsigned long long block)
{
    (void)block;
    dls_check_epoch_ended(0);
}

static void sync_access(unsigned thread, const void *address, int writes, int reads)
{
    dls_check_sync_access((uint64_t)(uintptr_t)address, thread, writes, reads);
}

static void launch_end(const dls_simt_grid *grid, int failed)
{
    (void)grid;
    if (failed && fault_text[0])
        explain_fault(fault_text, dls_check_unsettled_count() > reports_before);
    fault_text[0] = 0;
    dls_check_epoch_ended(0);
    dls_checker.block = DLS_NO_BLOCK;
    dls_checker.grid = NULL;
    dls_check_own(dls_checker.op, DLS_NO_BLOCK);
}

static void barrier(unsigned epoch, const char *file, int line)
{
    (void)epoch, (void)file, (void)line;
    dls_check_barrier_passed();
}
/* follow errors */
static struct {
    char kernel[64];
    const char *file;
    int line;
    cudaError_t error, now; // now: the call that told of it has not returned
} unseen; // a launch that failed, and nobody has asked

static void refused_free(const void *pointer, int is_host)
{
    const dls_check_block *b = dls_check_block_at((uint64_t)(uintptr_t)pointer);
    int again = b && b->start == pointer && b->freed;
    dls_check_trace t;
    dls_check_record_trace(&t);
    dls_check_report *r = dls_check_found(
        again ? DLS_CHECK_DOUBLE_FREE : DLS_CHECK_INVALID_FREE, DLS_CHECK_ERROR,
        (const void *)t.pc[0], again ? "memory is freed a second time"
        : "this address can not be freed", again ? "set the pointer to NULL once freed"
        : is_host ? "cudaFreeHost takes what cudaMallocHost or cudaHostAlloc returned"
        : "cudaFree takes the very pointer that cudaMalloc returned");
    if (!r)
        return;
    dls_check_set_caller(&r->here, "freed here", &t);
    if (b && (char *)pointer < b->start + b->bytes) {
        snprintf(r->memory, sizeof r->memory, "byte %zu of %zu bytes",
                 (size_t)((const char *)pointer - b->start), b->bytes);
        dls_check_set_caller(&r->origin[0], "allocated here", &b->allocated);
        if (b->freed)
            dls_check_set_caller(&r->origin[1], "freed here before", &b->released);
    }
}

static void failed(cudaError_t error)
{
    static cudaError_t broke; // the first call that told it; all later ones repeat it
    dls_check_trace t;
    char title[120];
    int launch = unseen.now != cudaSuccess;
    unseen.now = cudaSuccess;
    if (launch)
        return; // a launch has nobody to return it to
    if (dls_vgpu.sticky != cudaSuccess && broke == dls_vgpu.sticky)
        return;
    broke = dls_vgpu.sticky;
    dls_check_record_trace(&t);
    snprintf(title, sizeof title, "a CUDA call returned %s (%s)", cudaGetErrorName(error),
             cudaGetErrorString(error));
    dls_check_report *r = dls_check_found(DLS_CHECK_API_ERROR, DLS_CHECK_NOTE,
                                          (const void *)t.pc[0], title, "");
    if (r)
        dls_check_set_caller(&r->here, "called here", &t);
}

static void launch_failed(const char *kernel, const char *file, int line,
                          cudaError_t error)
{
    snprintf(unseen.kernel, sizeof unseen.kernel, "%s", kernel);
    unseen.error = unseen.now = error;
    unseen.file = file;
    unseen.line = line;
}

static void looked(void) { unseen.error = cudaSuccess; }

static void waited_for_nothing(void)
{
    dls_check_trace t;
    dls_check_record_trace(&t);
    dls_check_report *r = dls_check_found(
        DLS_CHECK_NEVER_RECORDED, DLS_CHECK_NOTE, (const void *)t.pc[0],
        "a stream waits for an event that was never recorded: it does not wait at all",
        "call cudaEventRecord before cudaStreamWaitEvent");
    if (r)
        dls_check_set_caller(&r->here, "called here", &t);
}
/* look for leaks */
static void report_leak(const dls_check_block *b)
{
    dls_check_report *r = dls_check_found(
        DLS_CHECK_LEAK, DLS_CHECK_WARNING, (const void *)b->allocated.pc[0],
        "memory is never freed", "call cudaFree when it is no longer needed");
    if (!r)
        return;
    dls_check_set_caller(&r->here, "allocated here", &b->allocated);
    snprintf(r->memory, sizeof r->memory, "%zu bytes of %s memory", b->bytes,
             b->device < 0 ? "pinned host" : "device");
}

void dls_check_look_at_the_end(void)
{
    int broken = dls_vgpu.sticky != cudaSuccess; // nothing can be freed any more
    for (unsigned i = 0; i < dls_check_block_count() && !broken; i++)
        if (!dls_check_block_number(i)->freed)
            report_leak(dls_check_block_number(i));
    if (unseen.error == cudaSuccess)
        return;
    char title[200];
    snprintf(title, sizeof title, "the launch of %s failed with %s, and nobody asked",
             unseen.kernel, cudaGetErrorName(unseen.error));
    dls_check_report *r = dls_check_found(
        DLS_CHECK_LAUNCH_ERROR, DLS_CHECK_WARNING, (const void *)(unseen.file +
        unseen.line), title, "a launch returns nothing: ask cudaGetLastError() after it");
    if (r) {
        snprintf(r->here.what, sizeof r->here.what, "launched here");
        r->here.file = unseen.file;
        r->here.line = unseen.line;
    }
    unseen.error = cudaSuccess;
}
/* attach the checker */
static const dls_vgpu_observer_table observer = {
    .allocate = dls_check_allocate, .release = dls_check_release,
    .renew = dls_check_renew, .managed = dls_check_managed,
    .refused_free = refused_free, .enqueued = dls_check_op_enqueued,
    .begun = dls_check_op_begun, .ended = dls_check_op_ended,
    .host_waited = dls_check_host_waited, .waited_for_nothing = waited_for_nothing,
    .touched = dls_check_touched, .failed = failed, .launch_failed = launch_failed,
    .looked = looked,
};

static const dls_probe_consumer consumer = {
    .launch_begin = launch_begin, .launch_end = launch_end, .block_begin = block_begin,
    .block_end = block_end, .request = dls_check_request, .again = dls_check_again,
    .barrier = barrier,
    .shared_array = dls_check_shared_array, .host = dls_check_host, .bounds = bounds,
    .sync = sync_access, .fence = dls_check_fence, .diverged = diverged,
    .early_exit = early_exit, .source_lane = source_lane, .fault = fault,
};

static void find_stack(void)
{
    pthread_attr_t a;
    void *start = NULL;
    size_t bytes = 0;
    if (pthread_getattr_np(pthread_self(), &a) != 0)
        return;
    pthread_attr_getstack(&a, &start, &bytes);
    pthread_attr_destroy(&a);
    dls_checker.stack = (uint64_t)(uintptr_t)start;
    dls_checker.stack_bytes = bytes;
}

int dls_check_start(void)
{
    if (dls_vgpu_observer)
        return 0; // it has been started
    dls_checker.slot = -1;
    dls_checker.block = DLS_NO_BLOCK;
    if (dls_check_arena() != 0 || (dls_checker.slot = dls_probe_attach(&consumer)) < 0)
        return -1;
    mallopt(M_MMAP_MAX, 0); // the host's heap is one range of addresses
    find_stack();
    dls_check_is_ours((uintptr_t)dls_check_start + 1); // opens the debugging information
    dls_vgpu_observer = &observer;
    dls_check_tick();
    return 0;
}
/* check the whole process */
static void print_at_exit(void)
{
    const char *json = getenv("DLS_CHECK_JSON");
    FILE *out = json && *json ? fopen(json, "w") : NULL;
    dls_check_look_at_the_end();
    unsigned bad = out ? dls_check_print_json(out) : dls_check_print(stderr);
    if (out)
        fclose(out);
    if (bad) {
        fflush(NULL);
        _exit(DLS_CHECK_STATUS);
    }
}


static const int endings[] = {SIGSEGV, SIGABRT, SIGFPE, SIGINT, SIGTERM};

static void ended_by(int number)
{
    signal(number, SIG_DFL);
    fprintf(stderr, "dls check: the program is ended by signal %d (SIG%s); found so "
            "far:\n", number, sigabbrev_np(number));
    dls_check_print(stderr); // not safe in a handler in theory; silence would be worse
    raise(number);
}

/* Every probed object calls this before main. */
void dls_check_if_asked(void)
{
    const char *set = getenv("DLS_CHECK");
    if (!set || !*set || !strcmp(set, "0") || dls_vgpu_observer)
        return;
    if (dls_check_start() != 0) {
        fprintf(stderr, "dls check: no room for the shadow memory\n");
        _exit(2);
    }
    atexit(print_at_exit);
    for (int i = 0; i < (int)(sizeof endings / sizeof *endings); i++)
        if (signal(endings[i], ended_by) == SIG_IGN)
            signal(endings[i], SIG_IGN);
}
