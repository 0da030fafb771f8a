/* code/vgpu/check_order.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* Which operation was ordered before which: clocks of streams and of the host.
 *
 * Every operation has a sequence number in its stream. It *knows* a number per stream:
 * all operations up to it happened before. Knowledge is handed on by stream order, by
 * events, by the host's calls, and by the host's waits.
 */
#include "vgpu/check_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

dls_check_state dls_checker;

/* keep the time */
/* From a time on, what happens belongs to this operation and block. */
typedef struct reign {
    uint32_t since, op, block;
} reign;

static reign *reigns;
static unsigned reign_count, reign_room;

uint32_t dls_check_tick(void)
{
    dls_check_ordered_inside();
    return dls_checker.now < UINT32_MAX ? ++dls_checker.now : dls_checker.now;
}

void dls_check_own(unsigned op, uint32_t block)
{
    const reign *last = reign_count ? &reigns[reign_count - 1] : NULL;
    if (last && last->op == op && last->block == block)
        return;
    if (reign_count == reign_room) {
        unsigned room = reign_room ? 2 * reign_room : 1024;
        reign *more = realloc(reigns, room * sizeof *more);
        if (more == NULL)
            return; // accesses are then blamed on the one before
        reigns = more;
        reign_room = room;
    }
    reigns[reign_count++] = (reign){dls_check_tick(), op, block};
}

dls_check_owner dls_check_owner_of(uint32_t time)
{
    unsigned low = 0, high = reign_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (reigns[middle].since <= time)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return (dls_check_owner){0, DLS_NO_BLOCK};
    return (dls_check_owner){reigns[low - 1].op, reigns[low - 1].block};
}
/* keep operations and actors */
/* A stream, as long as the process lives; actor 0 is the host. */
typedef struct actor {
    const struct CUstream_st *stream;
    unsigned last;            // operations enqueued
    unsigned latest;          // the operation that began last, 0: none
    unsigned *ops, room;      // (last) their numbers
} actor;

enum { ACTORS = 512 };
static actor actors[ACTORS];
static unsigned actor_count = 1;
static dls_check_op **ops;
static unsigned op_count = 1, op_room;
static uint32_t host[ACTORS]; // what the host knows

dls_check_op *dls_check_op_number(unsigned i)
{
    static dls_check_op the_host = {.name = "the host", .stream = "the host"};
    return i && i < op_count ? ops[i] : &the_host;
}

static unsigned actor_of(const struct CUstream_st *s)
{
    unsigned i = 1;
    while (i < actor_count && actors[i].stream != s)
        i++;
    if (i == ACTORS)
        return ACTORS - 1; // very many streams: some share, and their races are missed
    if (i == actor_count)
        actors[actor_count++].stream = s;
    return i;
}

static int remember(actor *a, unsigned number)
{
    if (a->last == a->room) {
        unsigned room = a->room ? 2 * a->room : 64;
        unsigned *more = realloc(a->ops, room * sizeof *more);
        if (more == NULL)
            return -1;
        a->ops = more;
        a->room = room;
    }
    a->ops[a->last++] = number;
    return 0;
}
/* join what is known */
static void join(uint32_t *to, unsigned actors_to, const uint32_t *from, unsigned n)
{
    for (unsigned i = 0; i < n && i < actors_to; i++)
        if (from[i] > to[i])
            to[i] = from[i];
}

/* All that op knew, and op itself. */
static void join_op(uint32_t *to, unsigned n, const dls_check_op *op)
{
    join(to, n, op->knows, op->actors);
    if (op->actor < n && op->sequence > to[op->actor])
        to[op->actor] = op->sequence;
}

void dls_check_host_waited(const dls_vgpu_mark *mark)
{
    if (mark->observed)
        join_op(host, ACTORS, dls_check_op_number(mark->observed));
}
/* number an operation */
static dls_check_op *new_op(void)
{
    if (op_count >= op_room) {
        unsigned room = op_room ? 2 * op_room : 256;
        dls_check_op **more = realloc(ops, room * sizeof *more);
        if (more == NULL)
            return NULL;
        ops = more;
        op_room = room;
    }
    dls_check_op *op = calloc(1, sizeof *op);
    if (op)
        op->knows = calloc(ACTORS, sizeof *op->knows);
    if (op == NULL || op->knows == NULL) {
        free(op);
        return NULL;
    }
    ops[op_count++] = op;
    return op;
}

/* The mark of the operation carries its number from here on. */
void dls_check_op_enqueued(const struct CUstream_st *s, dls_vgpu_operation *o)
{
    dls_check_op *op = new_op();
    unsigned a = actor_of(s);
    if (op == NULL || remember(&actors[a], op_count - 1) != 0)
        return;
    o->mark->observed = op_count - 1;
    op->actor = a;
    op->sequence = actors[a].last;
    op->actors = actor_count;
    op->file = o->op.file;
    op->line = o->op.line;
    if (!op->file)  // not a launch: who called the function of the runtime?
        dls_check_record_trace(&op->caller);
    op->kind = o->op.kind;
    snprintf(op->name, sizeof op->name, "%s", o->op.name ? o->op.name : "unnamed");
    snprintf(op->stream, sizeof op->stream, "%s", s->name);
    op->knows = realloc(op->knows, actor_count * sizeof *op->knows);
    memcpy(op->knows, host, actor_count * sizeof *op->knows);
    op->knows[0] = dls_checker.now; // what the host does from here on is later:
    dls_check_tick();
}
/* begin an operation */
/* The time before which everything that happened is ordered before op. */
static uint32_t floor_of(const dls_check_op *op)
{
    uint32_t floor = dls_checker.now;
    for (unsigned i = 1; i < actor_count; i++) {
        unsigned known = i < op->actors ? op->knows[i] : 0;
        if (i == op->actor || known >= actors[i].last)
            continue;
        const dls_check_op *first = ops[actors[i].ops[known]]; // the first unknown one
        if (first->begun && first->begun < floor)
            floor = first->begun;
    }
    if (dls_checker.host_access > op->knows[0] && op->knows[0] < floor)
        floor = op->knows[0];
    return floor;
}

void dls_check_op_begun(const struct CUstream_st *s, const dls_vgpu_operation *o)
{
    dls_check_op *op = dls_check_op_number(o->mark->observed);
    if (o->mark->observed == 0)
        return;
    actor *a = &actors[op->actor];
    (void)s;
    if (a->latest)
        join_op(op->knows, op->actors, ops[a->latest]);
    if (o->awaited && o->awaited->observed)
        join_op(op->knows, op->actors, dls_check_op_number(o->awaited->observed));
    a->latest = o->mark->observed;
    dls_checker.op = o->mark->observed;
    dls_check_own(dls_checker.op, DLS_NO_BLOCK);
    op->begun = dls_check_tick();
    dls_checker.floor = floor_of(op);
    if (o->type == DLS_VGPU_RECORD && o->arg) { // the pool's "free" has its turn
        dls_check_release(o->arg);
        dls_check_block_at((uint64_t)(uintptr_t)o->arg)->released = op->caller;
    }
}
/* end an operation */
/* Code that nobody watched may have written to any memory. */
static void distrust_all_memory(void)
{
    for (unsigned i = 0; i < dls_check_block_count(); i++)
        dls_check_block_number(i)->opaque = 1;
}

void dls_check_op_ended(const struct CUstream_st *s, const dls_vgpu_operation *o)
{
    const dls_check_op *op = dls_check_op_number(o->mark->observed);
    (void)s;
    if (o->type == DLS_VGPU_WORK && o->op.run && !op->seen)
        distrust_all_memory();
    dls_checker.op = 0;
    dls_check_tick();
}
/* ask whether an operation is known */
/* Did what happened at `time`, in operation `op` (0: by the host), happen before what
 * runs now? */
int dls_check_op_known(unsigned op, uint32_t time)
{
    const dls_check_op *then = dls_check_op_number(op);
    const dls_check_op *now = dls_check_op_number(dls_checker.op);
    if (op == dls_checker.op)
        return 1;
    if (dls_checker.op == 0)
        return host[then->actor] >= then->sequence;
    if (op == 0)
        return time <= now->knows[0];
    return then->actor < now->actors && now->knows[then->actor] >= then->sequence;
}
