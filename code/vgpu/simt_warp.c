/* code/vgpu/simt_warp.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* Warp operations: a rendezvous of exactly the lanes named in a mask.
 *
 * Each lane that arrives leaves its value in its fiber; the one that completes the set
 * computes everybody's result, so that no lane can overwrite what another has not read.
 * The first lane to arrive leads: its fiber holds the set of lanes that have come.
 * Turning these operations into barriers of the whole block (as others did) pairs the
 * halves of a diverged warp with each other and hangs when one warp loops once more.
 */
#include "vgpu/simt_internal.h"

/* name the warp operations */
static const char *const NAMES[] = {
    "__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync",
    "__any_sync", "__all_sync", "__ballot_sync", "__match_any_sync", "__match_all_sync",
    "__reduce_add_sync", "__reduce_and_sync", "__reduce_or_sync", "__reduce_xor_sync",
    "__reduce_min_sync", "__reduce_max_sync", "__reduce_min_sync", "__reduce_max_sync"};

static unsigned lane_of(const dls_fiber *f)
{
    return f->index.linear % DLS_SIMT_WARP;
}
/* compute a shuffle */
/* The lane from which f's shuffle reads. */
static unsigned source_lane(const dls_fiber *f)
{
    unsigned lane = lane_of(f), width = (unsigned)f->width;
    unsigned first = lane & ~(width - 1), last = first + width - 1;
    unsigned by = (unsigned)f->argument;
    switch (f->operation) {
    case DLS_WARP_SHFL:
        return first | (by & (width - 1));
    case DLS_WARP_UP:
        return by > lane - first ? lane : lane - by;
    case DLS_WARP_DOWN:
        return by > last - lane ? lane : lane + by;
    default:
        return (lane ^ by) > last ? lane : lane ^ by;
    }
}

static unsigned long long shuffled(const dls_warp *warp, unsigned arrived,
                                   const dls_fiber *f)
{
    unsigned from = source_lane(f) % DLS_SIMT_WARP;
    if (arrived >> from & 1)
        return warp->lane[from]->value;
    const dls_simt_stop at = dls_stop_of(f);
    if (dls_simt_probes)
        dls_simt_probes->source_lane(&at, from);
    return (unsigned long long)DLS_SIMT_POISON << 32 | DLS_SIMT_POISON;
}
/* compute a vote or reduction */
static unsigned matching(const dls_warp *warp, unsigned arrived, unsigned long long value)
{
    unsigned same = 0;
    for (unsigned rest = arrived; rest; rest &= rest - 1) {
        unsigned lane = (unsigned)__builtin_ctz(rest);
        same |= (unsigned)(warp->lane[lane]->value == value) << lane;
    }
    return same;
}

static unsigned ballot(const dls_warp *warp, unsigned arrived)
{
    return arrived & ~matching(warp, arrived, 0);
}

static unsigned combine(int op, unsigned a, unsigned b)
{
    switch (op) {
    case DLS_WARP_ADD: return a + b;
    case DLS_WARP_AND: return a & b;
    case DLS_WARP_OR: return a | b;
    case DLS_WARP_BITXOR: return a ^ b;
    case DLS_WARP_MIN: return (int)a < (int)b ? a : b;
    case DLS_WARP_MAX: return (int)a > (int)b ? a : b;
    case DLS_WARP_MIN_U: return a < b ? a : b;
    default: return a > b ? a : b;
    }
}

static unsigned long long common_result(const dls_warp *warp, unsigned arrived, int op)
{
    unsigned first = (unsigned)__builtin_ctz(arrived);
    unsigned result = (unsigned)warp->lane[first]->value;
    switch (op) {
    case DLS_WARP_SYNC:
        return 0;
    case DLS_WARP_ANY:
        return ballot(warp, arrived) != 0;
    case DLS_WARP_ALL:
        return ballot(warp, arrived) == arrived;
    case DLS_WARP_BALLOT:
        return ballot(warp, arrived);
    case DLS_WARP_MATCH_ALL:
        return matching(warp, arrived, warp->lane[first]->value) == arrived ? arrived : 0;
    default:
        for (unsigned rest = arrived & (arrived - 1); rest; rest &= rest - 1) {
            const dls_fiber *f = warp->lane[__builtin_ctz(rest)];
            result = combine(op, result, (unsigned)f->value);
        }
        return result;
    }
}
/* meet with payloads */
static void complete_meeting(dls_simt_worker *w, const dls_warp *warp, unsigned arrived)
{
    dls_simt_meeting *lane[DLS_SIMT_WARP];
    const dls_fiber *first = warp->lane[__builtin_ctz(arrived)];
    if (arrived != ~0u)
        dls_fault(w, "%s at %s:%d needs all 32 lanes of warp %u, and only 0x%08x are "
                  "left", first->waits_for, first->file, first->line,
                  first->index.linear / DLS_SIMT_WARP, arrived);
    for (int i = 0; i < DLS_SIMT_WARP; i++) {
        const dls_fiber *f = warp->lane[i];
        lane[i] = (dls_simt_meeting *)(uintptr_t)f->value;
        if (lane[i]->name != lane[0]->name)
            dls_fault(w, "lanes of one warp meet in different instructions: %s at %s:%d "
                      "and %s at %s:%d", lane[0]->name, warp->lane[0]->file,
                      warp->lane[0]->line, lane[i]->name, f->file, f->line);
    }
    lane[0]->complete(lane);
}
/* complete a rendezvous */
/* All lanes of the rendezvous led by `leader` are there: all but `self` become ready. */
static void complete(dls_simt_worker *w, dls_warp *warp, dls_fiber *leader,
                     dls_fiber *self)
{
    unsigned arrived = leader->arrived;
    int op = leader->operation;
    int own = (op >= DLS_WARP_SHFL && op <= DLS_WARP_XOR) || op == DLS_WARP_MATCH_ANY;
    unsigned long long common = 0;
    if (op == DLS_WARP_MEET)
        complete_meeting(w, warp, arrived);
    else if (!own)
        common = common_result(warp, arrived, op);
    warp->leaders &= ~(1u << lane_of(leader));
    if (__builtin_expect(dls_simt_probes != NULL, 0))
        dls_simt_probes->met((unsigned)(warp - w->warp), arrived, (dls_warp_op)op);
    for (unsigned rest = arrived; rest; rest &= rest - 1) {
        dls_fiber *f = warp->lane[__builtin_ctz(rest)];
        if (!own)
            f->result = common;
        else if (op == DLS_WARP_MATCH_ANY)
            f->result = matching(warp, arrived, f->value);
        else
            f->result = shuffled(warp, arrived, f);
        if (f != self)
            dls_list_push(&w->ready, f);
    }
}

static int is_complete(const dls_warp *warp, const dls_fiber *leader)
{
    return (leader->mask & ~warp->gone) == leader->arrived;
}

void dls_warp_recheck(dls_simt_worker *w, dls_warp *warp)
{
    for (unsigned rest = warp->leaders; rest; rest &= rest - 1) {
        dls_fiber *leader = warp->lane[__builtin_ctz(rest)];
        if (is_complete(warp, leader))
            complete(w, warp, leader, NULL);
    }
}
/* check the mask of a warp operation */
static void check_against_leader(dls_simt_worker *w, const dls_warp *warp,
                                 const dls_fiber *leader, const dls_fiber *self)
{
    if (leader->mask == self->mask) {
        if (leader->operation != self->operation)
            dls_fault(w, "lanes of one warp meet with mask 0x%08x in different "
                      "operations: %s at %s:%d and %s at %s:%d", self->mask,
                      leader->waits_for, leader->file, leader->line, self->waits_for,
                      self->file, self->line);
        return;
    }
    unsigned common = leader->arrived & self->mask;
    if (common && (leader->mask >> lane_of(self) & 1))
        dls_fault(w, "lanes of warp %u disagree on the mask: lane %d waits in %s with "
                  "0x%08x at %s:%d, lane %u came with 0x%08x at %s:%d",
                  self->index.linear / DLS_SIMT_WARP, __builtin_ctz(common),
                  warp->lane[__builtin_ctz(common)]->waits_for, leader->mask,
                  leader->file, leader->line, lane_of(self), self->mask, self->file,
                  self->line);
}

static void check_call(dls_simt_worker *w, const dls_fiber *self)
{
    if (!(self->mask >> lane_of(self) & 1))
        dls_fault(w, "thread (%u,%u,%u), lane %u, called %s at %s:%d with mask 0x%08x, "
                  "in which it is not", self->index.x, self->index.y, self->index.z,
                  lane_of(self), self->waits_for, self->file, self->line, self->mask);
    if (self->width < 1 || self->width > 32 || (self->width & (self->width - 1)))
        dls_fault(w, "%s at %s:%d has width %d: expected a power of two up to 32",
                  self->waits_for, self->file, self->line, self->width);
}
/* arrive at a rendezvous */
/* The fiber that leads the rendezvous with self's mask: an open one, or self. */
static dls_fiber *join(dls_simt_worker *w, dls_warp *warp, dls_fiber *self)
{
    dls_fiber *found = NULL;
    for (unsigned rest = warp->leaders; rest; rest &= rest - 1) {
        dls_fiber *leader = warp->lane[__builtin_ctz(rest)];
        check_against_leader(w, warp, leader, self);
        if (leader->mask == self->mask)
            found = leader;
    }
    unsigned bit = 1u << lane_of(self);
    warp->lane[lane_of(self)] = self;
    if (found) {
        found->arrived |= bit;
        return found;
    }
    warp->leaders |= bit;
    self->arrived = bit;
    return self;
}

static inline unsigned long long arrive(dls_simt_worker *w, dls_fiber *self,
                                        const void *pc)
{
    if (!w->tracked)
        dls_block_track(w);
    check_call(w, self);
    if (__builtin_expect(dls_simt_probes != NULL, 0))
        dls_simt_probes->arrived(threadIdx.linear, pc);
    dls_warp *warp = &w->warp[threadIdx.linear / DLS_SIMT_WARP];
    dls_fiber *leader = join(w, warp, self);
    if (is_complete(warp, leader))
        complete(w, warp, leader, self);
    else
        dls_block_dispatch(w, self);
    return self->result;
}


unsigned long long dls_simt_warp(dls_warp_op op, unsigned mask, unsigned long long value,
                                 int argument, int width, const char *file, int line)
{
    dls_fiber *self = dls_me->running;
    self->operation = op;
    self->waits_for = NAMES[op];
    self->mask = mask;
    self->value = value;
    self->argument = argument;
    self->width = width;
    self->file = file;
    self->line = line;
    return arrive(dls_me, self, __builtin_return_address(0));
}

void dls_simt_meet(dls_simt_meeting *own, const char *file, int line)
{
    dls_fiber *self = dls_me->running;
    self->operation = DLS_WARP_MEET;
    self->waits_for = own->name;
    self->mask = ~0u;
    self->value = (uintptr_t)own;
    self->width = DLS_SIMT_WARP;
    self->file = file;
    self->line = line;
    arrive(dls_me, self, own->caller);
}
