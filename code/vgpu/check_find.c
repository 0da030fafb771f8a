/* code/vgpu/check_find.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* From an access and a record to a report in words. */
#include "vgpu/check_internal.h"

#include <malloc.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vgpu/accounts.h"

/* number places */
typedef struct place {
    uintptr_t pc;
    const char *function, *file;
    int line, located, ours;     // ours: + 1, see dls_check_is_ours
} place;

enum { PLACES = 1 << 16 };
static place *places;             // [DLS_PLACE_FIRST ..]
static unsigned place_count = DLS_PLACE_FIRST;
static uint32_t by_pc[2 * PLACES];

unsigned dls_check_place(uintptr_t pc)
{
    uint64_t h = (uint64_t)pc * 0x9E3779B97F4A7C15u;
    for (uint32_t i = (uint32_t)(h >> 40);; i++) {
        uint32_t *slot = &by_pc[i % (2 * PLACES)];
        if (*slot && places[*slot].pc == pc)
            return *slot;
        if (*slot)
            continue;
        if (!places)
            places = calloc(PLACES, sizeof *places);
        if (!places || place_count == PLACES)
            return DLS_PLACE_NONE;
        places[place_count].pc = pc;
        return *slot = place_count++;
    }
}

void dls_check_place_of(unsigned p, const char **function, const char **file, int *line)
{
    *function = *file = NULL;
    *line = 0;
    if (p < DLS_PLACE_FIRST || p >= place_count)
        return;
    if (!places[p].located)
        places[p].located = 1 + dls_probe_place(places[p].pc, &places[p].function,
                                                &places[p].file, &places[p].line);
    if (places[p].located == 1)
        return;
    *function = places[p].function;
    *file = places[p].file;
    *line = places[p].line;
}

static int is_ours(const char *function)
{
    static const char *const prefixes[] = {"cuda", "cublas", "dls_gpu_", "dls_vgpu_",
                                           "dls_simt_", "dls_check_"};
    enum { CALLED = 3 };
    for (int i = 0; i < (int)(sizeof prefixes / sizeof prefixes[0]); i++)
        if (!strncmp(function, prefixes[i], strlen(prefixes[i])))
            return i < CALLED ? 2 : 1;
    return 0;
}

/* Does the frame belong to the virtual GPU, so that the caller is further out? 2: it is a
 * function that programs call. */
int dls_check_is_ours(uintptr_t pc)
{
    const char *function, *file;
    int line;
    unsigned p = dls_check_place(pc);
    dls_check_place_of(p, &function, &file, &line);
    if (p < DLS_PLACE_FIRST)
        return 0;
    if (!places[p].ours) {
        int inlined = function ? is_ours(function) : 0;
        int symbol = is_ours(dls_probe_symbol(pc));
        places[p].ours = 1 + (symbol > inlined ? symbol : inlined);
    }
    return places[p].ours - 1;
}
/* keep reports */
enum { MOST_REPORTS = 256 };

/* What makes two findings the same. */
typedef struct key {
    dls_check_class kind;
    unsigned here, there;
    const void *what;
} key;

static dls_check_report *reports;
static key keys[MOST_REPORTS];
static unsigned report_count;

/* A new report to fill in; NULL when it was known (and is counted), or no more fit. */
static dls_check_report *new_report(key k, dls_check_severity severity)
{
    dls_checker.findings++;
    for (unsigned i = 0; i < report_count; i++)
        if (keys[i].kind == k.kind && keys[i].here == k.here &&
            keys[i].there == k.there && keys[i].what == k.what) {
            reports[i].count++;
            return NULL;
        }
    if (!reports)
        reports = calloc(MOST_REPORTS, sizeof *reports);
    if (!reports || report_count == MOST_REPORTS)
        return NULL;
    keys[report_count] = k;
    dls_check_report *r = &reports[report_count++];
    *r = (dls_check_report){.kind = k.kind, .severity = severity, .count = 1};
    return r;
}

static void drop_number(unsigned i)
{
    report_count--;
    memmove(&keys[i], &keys[i + 1], (report_count - i) * sizeof keys[0]);
    memmove(&reports[i], &reports[i + 1], (report_count - i) * sizeof reports[0]);
}

/* Takes a report back: a better one explains it. */
static void drop_report(dls_check_class kind, unsigned here)
{
    for (unsigned i = 0; i < report_count; i++)
        if (keys[i].kind == kind && keys[i].here == here)
            drop_number(i--);
}

/* The compiler's own check of the index has spoken of this line already. */
static int index_was_reported(const dls_check_report *r)
{
    for (unsigned i = 0; r->here.file && i < report_count; i++)
        if (reports[i].kind == DLS_CHECK_LOCAL_BOUNDS &&
            reports[i].here.line == r->here.line &&
            !strcmp(reports[i].here.file, r->here.file))
            return 1;
    return 0;
}

static void settle_party(dls_check_party *p)
{
    if (p->place >= DLS_PLACE_FIRST && !p->line)
        dls_check_place_of(p->place, &p->function, &p->file, &p->line);
}

static int same_line(const dls_check_party *a, const dls_check_party *b)
{
    return a->line == b->line && a->file && b->file && !strcmp(a->file, b->file);
}

/* Is an earlier race between the same two lines? Then it counts there. */
static int merged_before(unsigned i)
{
    const dls_check_report *r = &reports[i];
    for (unsigned k = 0; k < i && r->there.line; k++) {
        dls_check_report *e = &reports[k];
        if (e->kind == r->kind && ((same_line(&e->here, &r->here) &&
                                    same_line(&e->there, &r->there)) ||
                                   (same_line(&e->here, &r->there) &&
                                    same_line(&e->there, &r->here)))) {
            e->count += r->count;
            return 1;
        }
    }
    return 0;
}

/* Finds the lines, which needs more stack than a thread of a kernel has; and drops what
 * the compiler's own check of an index has said already. */
static void settle(void)
{
    for (unsigned i = 0; i < report_count; i++) {
        settle_party(&reports[i].here);
        settle_party(&reports[i].there);
        settle_party(&reports[i].origin[0]);
        settle_party(&reports[i].origin[1]);
    }
    for (unsigned i = 0; i < report_count; i++)
        if ((reports[i].kind == DLS_CHECK_SHARED_BOUNDS &&
             index_was_reported(&reports[i])) || merged_before(i))
            drop_number(i--);
}

unsigned dls_check_count(void)
{
    settle();
    return report_count;
}

unsigned dls_check_unsettled_count(void) { return report_count; }
const dls_check_report *dls_check_report_number(unsigned i) { return &reports[i]; }
void dls_check_forget(void) { report_count = 0; }
/* describe who */
#define SAY(field, ...) snprintf((field), sizeof (field), __VA_ARGS__)

static void name_thread(char *out, size_t room, uint32_t block, unsigned thread)
{
    const unsigned *b = dls_checker.grid->block, *g = dls_checker.grid->grid;
    snprintf(out, room, "thread (%u,%u,%u) of block (%u,%u,%u)", thread % b[0],
             thread / b[0] % b[1], thread / b[0] / b[1], block % g[0],
             block / g[0] % g[1], block / g[0] / g[1]);
}

/* Who made the access of a record: a thread of this launch, an operation, the host. */
static void name_owner(char *out, size_t room, dls_record r, int in_stream)
{
    dls_check_owner o = dls_check_owner_of(dls_time_of(r));
    const dls_check_op *op = dls_check_op_number(o.op);
    char thread[80] = "";
    if (o.op == 0) {
        snprintf(out, room, "the host");
    } else if (o.op == dls_checker.op && o.block != DLS_NO_BLOCK && dls_checker.grid) {
        name_thread(thread, sizeof thread, o.block, dls_thread_of(r));
        snprintf(out, room, in_stream ? "%s of '%s' in %s" : "%s", thread, op->name,
                 op->stream);
    } else {
        if (o.block != DLS_NO_BLOCK)
            snprintf(thread, sizeof thread, "thread %u of block %u of ", dls_thread_of(r),
                     o.block);
        snprintf(out, room, "%s'%s' in %s", thread, op->name, op->stream);
    }
}

static void set_place(dls_check_party *p, unsigned where, uint32_t time)
{
    const dls_check_op *op = dls_check_op_number(dls_check_owner_of(time).op);
    p->place = where;
    if (where == DLS_PLACE_OPERATION && op->file) {
        p->file = op->file;
        p->line = op->line;
    } else if (where == DLS_PLACE_OPERATION && op->caller.count) {
        p->place = dls_check_place(op->caller.pc[0]);
    }
}

static void set_here(dls_check_party *p, const dls_check_access *a, int in_stream)
{
    static const char *const did[] = {"read", "written", "updated atomically"};
    char who[120];
    unsigned thread = a->thread;
    dls_record r = dls_record_of(dls_checker.now, thread, a->place);
    name_owner(who, sizeof who, r, in_stream);
    SAY(p->what, "%s by %s", did[a->write], who);
    set_place(p, a->place, dls_checker.now);
}
/* describe memory */
static void set_trace(dls_check_party *p, const char *what, const dls_check_trace *t)
{
    SAY(p->what, "%s", what);
    if (t->count)
        p->place = dls_check_place(t->pc[0]);
}

static void describe_shared(dls_check_report *r, const dls_check_access *a)
{
    const dls_check_array *array = dls_check_array_at(a->address);
    if (!array) {
        SAY(r->memory, "no shared array lies there");
        return;
    }
    size_t off = a->address - array->start;
    if (off < array->bytes)
        SAY(r->memory, "byte %zu of the shared array '%s' of %zu bytes", off, array->name,
            array->bytes);
    else
        SAY(r->memory, "%zu bytes past the end of the shared array '%s' of %zu bytes",
            off - array->bytes, array->name, array->bytes);
    SAY(r->origin[0].what, "declared here");
    r->origin[0].file = array->file;
    r->origin[0].line = array->line;
}

/* The block that contains the address, or the one whose end or start is nearest. */
static const dls_check_block *nearest_block(uint64_t address)
{
    const dls_check_block *b = dls_check_block_at(address), *next = b ? b + 1 : NULL;
    const dls_check_block *last = dls_check_block_count()
        ? dls_check_block_number(dls_check_block_count() - 1) : NULL;
    if (!dls_check_in_arena(address) || !last)
        return NULL;
    if (!b)
        return dls_check_block_number(0);
    uint64_t end = (uint64_t)(uintptr_t)b->start + b->bytes;
    if (next > last || address < end)
        return b;
    return (uint64_t)(uintptr_t)next->start - address < address - end ? next : b;
}

static void describe_memory(dls_check_report *r, const dls_check_access *a)
{
    if (a->space == DLS_PROBE_SHARED) {
        describe_shared(r, a);
        return;
    }
    const dls_check_block *b = nearest_block(a->address);
    if (!b) {
        SAY(r->memory, "%s, at 0x%llx", a->address < 4096 ? "a null pointer"
            : "a variable of the program", (unsigned long long)a->address);
        return;
    }
    const char *kind = b->device < 0 ? "pinned host memory"
                       : b->managed ? "managed memory" : "device memory";
    size_t off = a->address - (uint64_t)(uintptr_t)b->start;
    if (a->address < (uint64_t)(uintptr_t)b->start)
        SAY(r->memory, "%zu bytes before the start of %zu bytes of %s", -off, b->bytes,
            kind);
    else if (off < b->bytes)
        SAY(r->memory, "byte %zu of %zu bytes of %s%s", off, b->bytes, kind,
            b->freed ? ", freed" : "");
    else
        SAY(r->memory, "%zu bytes past the end of %zu bytes of %s", off - b->bytes,
            b->bytes, kind);
    set_trace(&r->origin[0], "allocated here", &b->allocated);
    if (b->freed)
        set_trace(&r->origin[1], "freed here", &b->released);
}
/* report a race */
static const char *race_hint(const dls_check_access *a, dls_record other,
                             const dls_check_owner *o)
{
    int same_warp = dls_thread_of(other) / 32 == a->thread / 32;
    if (o->op != dls_checker.op && (o->op == 0 || dls_checker.op == 0))
        return "the host has to wait first: cudaStreamSynchronize, cudaEventSynchronize";
    if (o->op != dls_checker.op)
        return "record an event after the first and let the other stream wait for it "
               "(cudaEventRecord, cudaStreamWaitEvent)";
    if (dls_thread_of(other) == a->thread && o->block == dls_checker.block)
        return "two lanes of one instruction";
    if (o->block != dls_checker.block)
        return "blocks run in any order: let each write its own element, use atomics, or "
               "split the kernel; a flag needs __threadfence() before it is set";
    if (same_warp)
        return "put __syncthreads() between the two; __syncwarp() is enough where only "
               "lanes of one warp meet";
    return "put __syncthreads() between the two, where all threads of the block come by";
}

void dls_check_found_race(const dls_check_access *a, dls_record other, int other_writes)
{
    dls_check_owner o = dls_check_owner_of(dls_time_of(other));
    dls_check_class kind = o.op != dls_checker.op ? DLS_CHECK_STREAM_RACE
                           : a->space == DLS_PROBE_SHARED ? DLS_CHECK_SHARED_RACE
                                                          : DLS_CHECK_GLOBAL_RACE;
    const void *what = kind == DLS_CHECK_STREAM_RACE && a->place == DLS_PLACE_OPERATION
                       ? dls_check_op_number(dls_checker.op)->file : NULL;
    unsigned one = a->place, two = dls_place_of(other);
    if (a->write && !other_writes)
        drop_report(DLS_CHECK_UNINITIALISED, two); // it was read too early, that is all
    dls_check_report *r = new_report((key){kind, one < two ? one : two,
                                           one < two ? two : one, what}, DLS_CHECK_ERROR);
    if (!r)
        return;
    char who[120];
    int both = a->write && other_writes;
    SAY(r->title, "race %s: %s", kind == DLS_CHECK_STREAM_RACE ? "between operations"
        : kind == DLS_CHECK_SHARED_RACE ? "in shared memory" : "in global memory",
        both ? "two writes, and nothing says which is the last"
        : other_writes ? "a read of what another writes, and nothing orders the two"
                       : "a write of what another reads, and nothing orders the two");
    set_here(&r->here, a, kind == DLS_CHECK_STREAM_RACE);
    name_owner(who, sizeof who, other, kind == DLS_CHECK_STREAM_RACE);
    SAY(r->there.what, "%s by %s", other & DLS_RECORD_ATOMIC ? "updated atomically"
        : other_writes ? "written" : "read", who);
    set_place(&r->there, dls_place_of(other), dls_time_of(other));
    describe_memory(r, a);
    SAY(r->hint, "%s", race_hint(a, other, &o));
}
/* report a wrong access */
static const struct wrong {
    const char *title, *hint;
} wrong[DLS_CHECK_CLASSES] = {
    [DLS_CHECK_GLOBAL_BOUNDS] = {"access outside of every allocation",
        "compare the index with the number of elements before the access"},
    [DLS_CHECK_SHARED_BOUNDS] = {"access outside of the shared arrays",
        "compare the index with the array's size, and the third argument of <<<>>> with "
        "what the kernel uses"},
    [DLS_CHECK_MISALIGNED] = {"misaligned access",
        "an access of n bytes needs an address that is a multiple of n"},
    [DLS_CHECK_UNINITIALISED] = {"read of memory that nobody has written",
        "fresh memory holds anything: write it, copy to it, or cudaMemset it first"},
    [DLS_CHECK_AFTER_FREE] = {"access to memory that has been freed",
        "free it after the last operation that uses it"},
    [DLS_CHECK_HOST_ACCESS] = {"the host touches device memory",
        "copy it with cudaMemcpy, or allocate it with cudaMallocManaged"},
    [DLS_CHECK_HOST_MEMORY] = {"a kernel touches ordinary host memory",
        "pass memory of cudaMalloc, or pin the host's with cudaHostRegister"},
};

/* Code that was not watched has run since the allocation, and something lies there. */
static int may_be_written(const dls_check_access *a)
{
    const dls_check_op *op = dls_check_op_number(dls_checker.op);
    const dls_check_block *b = dls_check_block_at(a->address);
    if (a->place == DLS_PLACE_OPERATION && op->kind == DLS_GPU_COPY)
        return 1; // whole buffers are copied, padding and all
    return a->space == DLS_PROBE_GLOBAL && b && b->opaque;
}

static dls_check_class refine(dls_check_class kind, const dls_check_access *a)
{
    const dls_check_block *b = dls_check_block_at(a->address);
    if (kind != DLS_CHECK_GLOBAL_BOUNDS)
        return kind;
    if (!dls_check_in_arena(a->address))
        return a->address < 4096 ? kind : DLS_CHECK_HOST_MEMORY;
    return b && b->freed && a->address - (uint64_t)(uintptr_t)b->start < b->bytes
               ? DLS_CHECK_AFTER_FREE : kind;
}

/* An address that is not the device's: is it the heap of the host? */
int dls_check_is_wrong(uint64_t address)
{
    uint64_t top = (uint64_t)(uintptr_t)sbrk(0);
    extern char _end;
    if (dls_check_in_arena(address) || address < 4096)
        return 1;
    int heap = address >= (uint64_t)(uintptr_t)&_end && address < top;
    int stack = address - dls_checker.stack < dls_checker.stack_bytes;
    return (heap || stack) && !dls_account_at((const void *)(uintptr_t)address);
}

void dls_check_found_bad(dls_check_class kind, const dls_check_access *a)
{
    kind = refine(kind, a);
    if (kind == DLS_CHECK_UNINITIALISED && may_be_written(a))
        return;
    const void *what = a->place == DLS_PLACE_OPERATION
                       ? dls_check_op_number(dls_checker.op)->file : NULL;
    dls_check_report *r = new_report((key){kind, a->place, 0, what}, DLS_CHECK_ERROR);
    if (!r)
        return;
    SAY(r->title, "%s", wrong[kind].title);
    SAY(r->hint, "%s", wrong[kind].hint);
    set_here(&r->here, a, 0);
    if (kind == DLS_CHECK_MISALIGNED)
        SAY(r->memory, "%u bytes at 0x%llx, which is a multiple of %u only", a->size,
            (unsigned long long)a->address, 1u << __builtin_ctzll(a->address));
    else if (kind == DLS_CHECK_HOST_MEMORY)
        SAY(r->memory, "0x%llx is not memory of the device",
            (unsigned long long)a->address);
    else
        describe_memory(r, a);
}
/* report something else */
dls_check_report *dls_check_found(dls_check_class kind, dls_check_severity severity,
                                  const void *what, const char *title, const char *hint)
{
    dls_check_report *r = new_report((key){kind, 0, 0, what}, severity);
    if (r) {
        SAY(r->title, "%s", title);
        SAY(r->hint, "%s", hint);
    }
    return r;
}

void dls_check_set_caller(dls_check_party *p, const char *what, const dls_check_trace *t)
{
    set_trace(p, what, t);
}

void dls_check_name_thread(char *out, size_t room, const char *did, uint32_t block,
                           unsigned thread)
{
    char who[100];
    name_thread(who, sizeof who, block, thread);
    snprintf(out, room, "%s %s", did, who);
}
