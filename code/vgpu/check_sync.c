/* code/vgpu/check_sync.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* What threads of one launch know of each other: barriers, meetings, fences, atomics.
 *
 *   thread t2: access ... fence f ... atomic r on v      (a release)
 *                                       |
 *                              thread t: atomic e on v ... access      (an acquire)
 *
 * The access of t sees that of t2 if the fence covers it, the atomic follows the fence,
 * and e came after r. Barriers and meetings of a warp hand on each of these steps.
 */
#include "vgpu/check_internal.h"

#include <stdlib.h>
#include <string.h>

/* pass barriers and meetings */
void dls_check_barrier_passed(void)
{
    dls_check_epoch_ended(1);
    dls_checker.bar = dls_check_tick();
    dls_check_epoch_ended(0);  // the tick belongs to none
    for (unsigned w = 0; w < 32; w++) {
        dls_checker.full[w] = dls_checker.last[w] = dls_checker.bar;
        dls_checker.partial[w] = 0;
    }
}

void dls_check_block_began(uint32_t block)
{
    dls_checker.block = block;
    dls_check_own(dls_checker.op, block);
    dls_checker.first = dls_check_tick();
    dls_check_barrier_passed();
}

/* The lanes that the block has in this warp. */
static uint32_t lanes_of(unsigned warp)
{
    const dls_simt_grid *g = dls_checker.grid;
    unsigned threads = g->block[0] * g->block[1] * g->block[2];
    unsigned n = threads - 32 * warp;
    return n >= 32 ? ~0u : (1u << n) - 1;
}

/* A meeting of some lanes: each learns what the others know, and what they did. */
static void join_lanes(uint32_t met[32][32], uint32_t lanes, uint32_t now)
{
    uint32_t all[32] = {0};
    for (uint32_t rest = lanes; rest; rest &= rest - 1)
        for (unsigned i = 0; i < 32; i++) {
            uint32_t known = met[__builtin_ctz(rest)][i];
            all[i] = known > all[i] ? known : all[i];
        }
    for (unsigned i = 0; i < 32; i++)
        all[i] = lanes >> i & 1 ? now : all[i];
    for (uint32_t rest = lanes; rest; rest &= rest - 1)
        memcpy(met[__builtin_ctz(rest)], all, sizeof all);
}

void dls_check_lanes_met(unsigned warp, uint32_t lanes)
{
    uint32_t now = dls_checker.last[warp] = dls_check_tick();
    if ((lanes & lanes_of(warp)) == lanes_of(warp)) {
        dls_checker.full[warp] = now;
        return;
    }
    if (!dls_checker.partial[warp])
        memset(dls_checker.met[warp], 0, sizeof dls_checker.met[warp]);
    dls_checker.partial[warp] = 1;
    join_lanes(dls_checker.met[warp], lanes, now);
}
/* keep lists of a launch */
typedef struct fence {
    uint32_t time, bar, last, next; // last: meeting of the thread's warp
    uint16_t thread, wide;
} fence;
typedef struct release {
    uint32_t time, bar, last, next, variable, block;
    uint16_t thread;
} release;
typedef struct acquire {
    uint32_t time, upto, variable, next;
    uint16_t thread;
} acquire;
typedef struct variable {
    uint64_t address;
    uint32_t newest;   // release, + 1
    uint32_t asked;    // by which query
} variable;

static struct list {
    void *items;
    uint32_t count, room, size;
} fences = {.size = sizeof(fence)}, releases = {.size = sizeof(release)},
  acquires = {.size = sizeof(acquire)}, variables = {.size = sizeof(variable)};

#define FENCE(i) (&((fence *)fences.items)[i])
#define RELEASE(i) (&((release *)releases.items)[i])
#define ACQUIRE(i) (&((acquire *)acquires.items)[i])
#define VARIABLE(i) (&((variable *)variables.items)[i])

/* The index of a new, zeroed item; UINT32_MAX without memory. */
static uint32_t add(struct list *l)
{
    if (l->count == l->room) {
        uint32_t room = l->room ? 2 * l->room : 256;
        void *more = realloc(l->items, (size_t)room * l->size);
        if (more == NULL)
            return UINT32_MAX;
        l->items = more;
        l->room = room;
    }
    memset((char *)l->items + (size_t)l->count * l->size, 0, l->size);
    return l->count++;
}
/* find what belongs to a block and variable */
enum { OF_FENCE, OF_ACQUIRE, OF_RELEASE, OF_VARIABLE };

/* An open hash table: (kind, a, b) --> the newest item + 1, 0: none. */
static struct slot {
    uint64_t a;
    uint32_t b, kind, item;
} *table;
static uint32_t table_room, table_used;

static struct slot *probe_table(uint32_t kind, uint64_t a, uint32_t b)
{
    uint64_t h = (a * 0x9E3779B97F4A7C15u) ^ ((uint64_t)b * 0xC2B2AE3D27D4EB4Fu) ^ kind;
    for (uint32_t i = (uint32_t)(h ^ h >> 32);; i++) {
        struct slot *s = &table[i & (table_room - 1)];
        if (s->item == 0 || (s->a == a && s->b == b && s->kind == kind))
            return s;
    }
}

static void grow_table(void)
{
    struct slot *old = table;
    uint32_t room = table_room;
    struct slot *more = calloc(room ? 2 * (size_t)room : 1024, sizeof *more);
    if (more == NULL)
        return;
    table = more;
    table_room = room ? 2 * room : 1024;
    for (uint32_t i = 0; i < room; i++)
        if (old[i].item)
            *probe_table(old[i].kind, old[i].a, old[i].b) = old[i];
    free(old);
}

/* The place of the newest item + 1, to read or to set. */
static uint32_t *newest(uint32_t kind, uint64_t a, uint32_t b)
{
    static uint32_t nothing;
    if (2 * table_used >= table_room)
        grow_table();
    if (table_used + 1 >= table_room)
        return &nothing;
    struct slot *s = probe_table(kind, a, b);
    if (s->item == 0)
        *s = (struct slot){a, b, kind, 0};
    return &s->item;
}

void dls_check_sync_reset(void)
{
    fences.count = releases.count = acquires.count = variables.count = table_used = 0;
    if (table)
        memset(table, 0, table_room * sizeof *table);
    dls_checker.launch_floor = 0;
}
/* note a fence */
static void set_newest(uint32_t *slot, uint32_t item)
{
    table_used += *slot == 0;
    *slot = item + 1;
}

void dls_check_fence(unsigned thread, int device_wide)
{
    uint32_t i = add(&fences);
    if (i == UINT32_MAX)
        return;
    uint32_t *slot = newest(OF_FENCE, dls_checker.block, 0);
    *FENCE(i) = (fence){dls_check_tick(), dls_checker.bar, dls_checker.last[thread / 32],
                        *slot, (uint16_t)thread, (uint16_t)device_wide};
    set_newest(slot, i);
}
/* note a release or acquire */
static void note_release(uint64_t address, unsigned thread)
{
    if (*newest(OF_FENCE, dls_checker.block, 0) == 0)
        return; // a block without fences releases nothing
    uint32_t *v = newest(OF_VARIABLE, address, 0), i = add(&releases);
    if (i == UINT32_MAX)
        return;
    if (*v == 0) {
        uint32_t fresh = add(&variables);
        if (fresh == UINT32_MAX)
            return;
        VARIABLE(fresh)->address = address;
        set_newest(v, fresh);
    }
    uint32_t which = *newest(OF_VARIABLE, address, 0) - 1;
    uint32_t *slot = newest(OF_RELEASE, which, dls_checker.block);
    *RELEASE(i) = (release){dls_checker.now, dls_checker.bar,
                            dls_checker.last[thread / 32], *slot, which,
                            dls_checker.block, (uint16_t)thread};
    set_newest(slot, i);
    VARIABLE(which)->newest = i + 1;
}

static void note_acquire(uint64_t address, unsigned thread)
{
    uint32_t v = table_room ? *newest(OF_VARIABLE, address, 0) : 0;
    if (v == 0)
        return;
    uint32_t *slot = newest(OF_ACQUIRE, dls_checker.block, 0);
    uint32_t upto = RELEASE(VARIABLE(v - 1)->newest - 1)->time;
    for (uint32_t i = *slot, n = 0; i && n < 32; i = ACQUIRE(i - 1)->next, n++)
        if (ACQUIRE(i - 1)->variable == v - 1 && ACQUIRE(i - 1)->thread == thread &&
            ACQUIRE(i - 1)->upto == upto)
            return; // it polls, and nothing is new
    uint32_t i = add(&acquires);
    if (i == UINT32_MAX)
        return;
    *ACQUIRE(i) = (acquire){dls_checker.now, upto, v - 1, *slot, (uint16_t)thread};
    set_newest(slot, i);
    dls_check_tick();
}

void dls_check_sync_access(uint64_t address, unsigned thread, int writes, int reads)
{
    if (fences.count == 0)
        return;
    if (reads)
        note_acquire(address, thread);
    if (writes)
        note_release(address, thread);
}
/* ask whether a release carries an access */
static int same_warp(unsigned a, unsigned b) { return a / 32 == b / 32; }

/* Had the releasing block fenced what its `thread` did at `time`? */
static int carries(const release *r, unsigned thread, uint32_t time)
{
    int inside = r->block == dls_checker.block;
    uint32_t i = *newest(OF_FENCE, r->block, 0);
    for (; i; i = FENCE(i - 1)->next) {
        const fence *f = FENCE(i - 1);
        if (f->time > r->time || f->time <= time || !(f->wide || inside))
            continue;
        int before = f->thread == r->thread || f->time < r->bar ||
                     (same_warp(f->thread, r->thread) && f->time < r->last);
        int covers = f->thread == thread || time < f->bar ||
                     (same_warp(f->thread, thread) && time < f->last);
        if (before && covers)
            return 1;
    }
    return 0;
}
/* search what a thread has acquired */
enum { DEPTH = 6, WIDTH = 64 };
static uint32_t query;

/* Is the access carried by some release on the variable, at most at `upto`? */
static int through(uint32_t v, uint32_t upto, uint32_t block, unsigned thread,
                   uint32_t time, int depth)
{
    uint32_t i = *newest(OF_RELEASE, v, block);
    for (; i; i = RELEASE(i - 1)->next)
        if (RELEASE(i - 1)->time <= upto && carries(RELEASE(i - 1), thread, time))
            return 1;
    if (depth == DEPTH || VARIABLE(v)->asked == query)
        return 0;
    VARIABLE(v)->asked = query;
    uint32_t n = 0;
    for (i = VARIABLE(v)->newest; i && n < WIDTH; i--) { // others' knowledge, handed on
        const release *r = RELEASE(i - 1);
        if (r->variable != v || r->time > upto)
            continue;
        n++;
        for (uint32_t k = *newest(OF_ACQUIRE, r->block, 0); k; k = ACQUIRE(k - 1)->next) {
            const acquire *e = ACQUIRE(k - 1);
            if (e->time <= r->time && (e->thread == r->thread || e->time < r->bar) &&
                through(e->variable, e->upto, block, thread, time, depth + 1))
                return 1;
        }
    }
    return 0;
}

/* Does thread `to` of the running block know what that thread did at `time`? */
int dls_check_known(uint32_t block, unsigned thread, uint32_t time, unsigned to)
{
    if (acquires.count == 0)
        return 0;
    query++;
    uint32_t k = *newest(OF_ACQUIRE, dls_checker.block, 0);
    for (; k; k = ACQUIRE(k - 1)->next) {
        const acquire *e = ACQUIRE(k - 1);
        int mine = e->thread == to || e->time < dls_checker.bar ||
                   (same_warp(e->thread, to) && e->time < dls_checker.last[to / 32]);
        if (mine && through(e->variable, e->upto, block, thread, time, 0))
            return 1;
    }
    return 0;
}
