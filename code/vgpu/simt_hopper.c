/* code/vgpu/simt_hopper.c: from chapters/A-virtual-gpu-simt-hopper.md. Edit the chapter, or edit here and run "make untangle". */
/* Barriers that count bytes, tile copies, and barriers with a number, for the emulator.
 *
 * A copy is noted when it is issued. Its bytes are fetched and stored when the phase of
 * its barrier ends, which happens in somebody's wait, or in the first arrival of the next
 * phase: the latest moment at which hardware may.
 */
#include "vgpu/simt_internal.h"
#include "vgpu/simt_hopper.h"

#include <stdlib.h>
#include <string.h>

/* define the state of barriers */
enum { BARRIERS = 32, COPIES = 64, NUMBERS = 16, PATIENCE = 100000 };
static const uint64_t MARK = 0x6d62617272000000u;  // "mbarr"

typedef struct barrier {
    uint64_t *word;
    unsigned count, left;       // arrivals of a phase; those still missing
    unsigned phase;
    unsigned announced, flying; // bytes
} barrier;

typedef struct tile_copy {
    dls_tensor_map map;
    int at[5];
    char *to;
    const void *pc;             // who issued it, for the probes
    barrier *tells;             // NULL: it has landed
} tile_copy;

typedef struct turn {
    int threads, arrived;
    unsigned passed;
} turn;

typedef struct block_state {
    unsigned serial, barriers, events;  // events: changes that a waiter may hope for
    barrier barrier[BARRIERS];
    tile_copy copy[COPIES];
    turn turn[NUMBERS];
} block_state;

static block_state *state_of(dls_simt_worker *w)
{
    if (!w->hopper && !(w->hopper = calloc(1, sizeof(block_state))))
        dls_fault_as(w, cudaErrorMemoryAllocation, "no memory for barriers");
    w->free_hopper = free;
    block_state *s = w->hopper;
    if (s->serial != dls_simt_here.serial) {
        memset(s, 0, sizeof *s);
        s->serial = dls_simt_here.serial;
    }
    return s;
}

/* find a barrier */
static int is_shared(const dls_simt_worker *w, const void *p, size_t bytes)
{
    const char *c = p;
    return c >= w->arena.base && c + bytes <= w->arena.end;
}

static barrier *barrier_at(dls_simt_worker *w, uint64_t *bar, const char *file, int line)
{
    block_state *s = state_of(w);
    uint64_t number = is_shared(w, bar, 8) ? *bar - MARK : BARRIERS;
    if (number >= s->barriers || s->barrier[number].word != bar)
        dls_fault(w, "%s:%d: no mbarrier was initialised at %p in this block", file, line,
                  (void *)bar);
    return &s->barrier[number];
}

void dls_simt_mbarrier_init(uint64_t *bar, unsigned count, const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    block_state *s = state_of(w);
    if (!is_shared(w, bar, 8) || (uintptr_t)bar % 8)
        dls_fault(w, "%s:%d: an mbarrier is 8 aligned bytes of shared memory", file,
                  line);
    if (s->barriers == BARRIERS || count == 0)
        dls_fault(w, "%s:%d: mbarrier %u with %u arrivals: the emulator has %d, for at "
                  "least one arrival", file, line, s->barriers, count, BARRIERS);
    s->barrier[s->barriers] = (barrier){.word = bar, .count = count, .left = count};
    *bar = MARK + s->barriers++;
}

/* land a tile */
/* Elements x ... x + 7 of row (y, z, w, v) of the tensor. */
static void fetch_piece(const dls_tensor_map *map, const int64_t at[5], uint16_t piece[8])
{
    const char *row = map->base;
    int inside = 1;
    for (int i = 1; i < map->rank; i++) {
        inside &= at[i] >= 0 && (uint64_t)at[i] < map->size[i];
        row += at[i] * (int64_t)map->step[i];
    }
    memset(piece, 0, 16);
    for (int e = 0; e < 8 && inside; e++)
        if (at[0] + e >= 0 && (uint64_t)(at[0] + e) < map->size[0])
            memcpy(&piece[e], row + 2 * (at[0] + e), 2);
}

/* Calls `each` for the pieces of a box in the order of the tile. */
typedef void piece_visit(const tile_copy *c, const int64_t at[5], int row, int p);

static void walk_box(const tile_copy *c, piece_visit *each)
{
    const uint32_t *box = c->map.box;
    int rows = (int)(box[1] * box[2] * box[3] * box[4]);
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < 8; p++) {
            uint32_t rest = (uint32_t)r;
            int64_t at[5] = {c->at[0] + 8 * p};
            for (int i = 1; i < 5; i++) {
                at[i] = c->at[i] + (int64_t)(rest % box[i]);
                rest /= box[i];
            }
            each(c, at, r, p);
        }
}

static void land_piece(const tile_copy *c, const int64_t at[5], int row, int p)
{
    uint16_t piece[8];
    fetch_piece(&c->map, at, piece);
    memcpy(c->to + 128 * row + 16 * (p ^ (row & 7)), piece, 16);
}

/* end a phase */
static int try_to_end(dls_simt_worker *w, barrier *b)
{
    block_state *s = w->hopper;
    if (b->left || b->announced != b->flying)
        return 0;
    for (int i = 0; i < COPIES; i++)
        if (s->copy[i].tells == b) {
            walk_box(&s->copy[i], land_piece);
            s->copy[i].tells = NULL;
        }
    b->phase++;
    b->left = b->count;
    b->announced = b->flying = 0;
    s->events++;
    return 1;
}

/* arrive at a barrier */
void dls_simt_mbarrier_arrive(uint64_t *bar, unsigned bytes, const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    barrier *b = barrier_at(w, bar, file, line);
    if (!b->left && !try_to_end(w, b))
        dls_fault(w, "%s:%d: arrival %u of %u at an mbarrier: %u bytes of %u are on "
                  "their way", file, line, b->count + 1, b->count, b->flying,
                  b->announced);
    b->left--;
    b->announced += bytes;
    state_of(w)->events++;
}

/* wait for a phase */
/* Lets others run; `*seen` and `*turns` are the waiter's. 0: there is no hope. */
static int hope(dls_simt_worker *w, unsigned *seen, unsigned *turns)
{
    block_state *s = state_of(w);
    *turns = s->events == *seen ? *turns + 1 : 0;
    *seen = s->events;
    dls_simt_yield();
    return *turns < PATIENCE;
}

void dls_simt_mbarrier_wait(uint64_t *bar, unsigned parity, const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    barrier *b = barrier_at(w, bar, file, line);
    unsigned seen = 0, turns = 0;
    if (parity > 1)
        dls_fault(w, "%s:%d: an mbarrier's parity is 0 or 1, not %u", file, line, parity);
    while ((b->phase & 1) == parity && !try_to_end(w, b))
        if (!hope(w, &seen, &turns))
            dls_fault(w, "%s:%d: thread %u waits for ever for phase %u of an mbarrier: "
                      "%u of %u arrivals are missing, %u bytes of %u announced ones are "
                      "on their way", file, line, threadIdx.linear, b->phase, b->left,
                      b->count, b->flying, b->announced);
}

/* take turns at a number */
void dls_simt_named_barrier(int id, int threads, int wait, const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    if (id < 1 || id >= NUMBERS || threads <= 0 || threads % DLS_SIMT_WARP)
        dls_fault(w, "%s:%d: barrier %d for %d threads: expected 1 to 15, and whole "
                  "warps", file, line, id, threads);
    turn *t = &state_of(w)->turn[id];
    if (t->arrived && t->threads != threads)
        dls_fault(w, "%s:%d: barrier %d for %d threads, and others came for %d", file,
                  line, id, threads, t->threads);
    unsigned own = t->passed, seen = 0, turns = 0;
    t->threads = threads;
    state_of(w)->events++;
    if (++t->arrived == threads) {
        t->arrived = 0;
        t->passed++;
    }
    while (wait && t->passed == own)
        if (!hope(w, &seen, &turns))
            dls_fault(w, "%s:%d: thread %u waits for ever at barrier %d: %d of %d "
                      "threads have come", file, line, threadIdx.linear, id, t->arrived,
                      threads);
}

/* issue a tile copy */
dls_status dls_tensor_map_16bit(dls_tensor_map *map, const void *base, int rank,
                                const uint64_t *size, const uint64_t *step,
                                const uint32_t *box)
{
    int good = rank >= 1 && rank <= 5 && (uintptr_t)base % 16 == 0 && box[0] == 64;
    *map = (dls_tensor_map){.base = base, .rank = rank};
    for (int i = 0; i < 5; i++) {
        map->size[i] = i < rank ? size[i] : 1;
        map->step[i] = i && i < rank ? step[i] : 0;
        map->box[i] = i < rank ? box[i] : 1;
        good &= map->box[i] >= 1 && map->box[i] <= 256 && map->step[i] % 16 == 0 &&
                map->size[i] >= 1 && map->size[i] <= (uint64_t)1 << 32;
    }
    return good ? DLS_OK
                : DLS_FAIL(DLS_ERR_STATE, "cuTensorMapEncodeTiled: error 1 (a size of 0, "
                           "a box, or an address that is not a multiple of 16)");
}

unsigned dls_simt_shared_offset(const void *p)
{
    return (unsigned)((const char *)p - dls_me->arena.dynamic);
}

/* Tells the probes which bytes of the tensor the copy reads. */
static void tell_piece(const tile_copy *c, const int64_t at[5], int row, int p)
{
    int64_t offset = 2 * at[0];
    (void)row, (void)p;
    for (int i = 0; i < 5; i++) {
        if (at[i] < 0 || (uint64_t)at[i] >= c->map.size[i])
            return;
        offset += i ? at[i] * (int64_t)c->map.step[i] : 0;
    }
    dls_simt_probes->access(c->map.base + offset, 16, 0, c->pc);
}

void dls_simt_tma_load(void *tile, const dls_tensor_map *map, uint64_t *bar,
                       const int at[5], const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    barrier *b = barrier_at(w, bar, file, line);
    block_state *s = state_of(w);
    unsigned bytes = 128 * map->box[1] * map->box[2] * map->box[3] * map->box[4];
    char *to = tile;
    int i = 0;
    if (!is_shared(w, to, bytes) || to < w->arena.dynamic ||
        dls_simt_shared_offset(to) % 1024 || (uintptr_t)w->arena.dynamic % 1024)
        dls_fault_as(w, cudaErrorMisalignedAddress, "%s:%d: a swizzled tile of %u bytes "
                     "lies in dynamic shared memory at a multiple of 1024, and that "
                     "array is a multiple of 1024 long", file, line, bytes);
    while (i < COPIES && s->copy[i].tells)
        i++;
    if (i == COPIES)
        dls_fault(w, "%s:%d: more than %d tile copies under way", file, line, COPIES);
    s->copy[i] = (tile_copy){.map = *map, .to = to, .tells = b,
                             .pc = __builtin_return_address(0)};
    memcpy(s->copy[i].at, at, sizeof s->copy[i].at);
    b->flying += bytes;
    s->events++;
    if (dls_simt_probes)
        walk_box(&s->copy[i], tell_piece);
}
