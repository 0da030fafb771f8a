/* code/vgpu/check_access.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* Requests of kernels, ranges of copies, accesses of the host: against the shadow. */
#include "vgpu/check_look.h"

#include <stdlib.h>
#include <string.h>

/* decide whether an access is ordered */
/* Did the access of the record happen before `thread` of the running block (or the
 * running operation, or the host) came here? */
int dls_check_ordered(dls_record r, unsigned thread)
{
    const dls_check_state *c = &dls_checker;
    uint32_t time = dls_time_of(r);
    unsigned other = dls_thread_of(r), warp = thread / 32;
    if (c->op && (time < c->floor || time < c->launch_floor))
        return 1;
    if (c->op && time >= c->first && time < c->bar && c->block != DLS_NO_BLOCK)
        return 1;
    dls_check_owner owner = dls_check_owner_of(time);
    if (owner.op != c->op || c->block == DLS_NO_BLOCK || owner.block == DLS_NO_BLOCK)
        return dls_check_op_known(owner.op, time);
    if (owner.block == c->block) {
        if (other == thread || time < c->bar)
            return 1;
        if (other / 32 == warp &&
            (time < c->full[warp] ||
             (c->partial[warp] && time < c->met[warp][thread % 32][other % 32])))
            return 1;
    }
    return dls_check_known(owner.block, other, time, thread);
}
/* look at a read */
static int conflicts(const look *l, dls_record r)
{
    if (r == 0 || is_safe(l, r) || (is_atomic(r) && is_atomic(l->mine)))
        return 0;
    if (l->access.space == DLS_PROBE_SHARED && dls_time_of(r) < dls_checker.first)
        return 0; // of an earlier block
    return !dls_check_ordered(r, l->access.thread);
}

/* Keeps two readers, of different threads if possible: a writer is only one of them. */
static inline int is_another(const look *l, dls_record r)
{
    return dls_thread_of(r) != l->access.thread || dls_time_of(r) < l->first;
}

static inline void keep_reader(const look *l, dls_record r[2])
{
    int at = 0;
    if (!is_old(l, r[0]) && is_another(l, r[0])) {
        at = 1;
        if (!is_old(l, r[1]) && is_another(l, r[1]))
            return;
    }
    r[at] = l->mine;
}

static inline int nobody_wrote(const look *l, dls_record w)
{
    return w == 0 || (l->access.space == DLS_PROBE_SHARED &&
                      dls_time_of(w) < dls_checker.first); // left by an earlier block
}

static inline void look_at_read(const look *l, dls_record w, dls_record r[2])
{
    if (__builtin_expect(!is_safe(l, w), 0)) {
        if (nobody_wrote(l, w))
            dls_check_found_bad(DLS_CHECK_UNINITIALISED, &l->access);
        else if (conflicts(l, w))
            dls_check_found_race(&l->access, w, 1);
    }
    if (!r)
        return;
    if (r[1] & DLS_RECORD_KEPT) {
        if (conflicts(l, r[1]))
            dls_check_found_race(&l->access, r[1], 1);
        r[0] = l->mine;
    } else {
        keep_reader(l, r);
    }
}
/* look at a write */
static inline void look_at_write(const look *l, dls_record *w, dls_record r[2])
{
    if (__builtin_expect(!is_safe(l, *w), 0)) {
        if (l->access.write == 2 && nobody_wrote(l, *w)) // an update reads, too
            dls_check_found_bad(DLS_CHECK_UNINITIALISED, &l->access);
        else if (conflicts(l, *w))
            dls_check_found_race(&l->access, *w, 1);
    }
    if (r) {
        if (conflicts(l, r[0]))
            dls_check_found_race(&l->access, r[0], 0);
        else if (conflicts(l, r[1]))
            dls_check_found_race(&l->access, r[1], (r[1] & DLS_RECORD_KEPT) != 0);
        r[0] = 0;
        if (!is_atomic(l->mine))
            r[1] = 0;
        else if (*w && !is_atomic(*w))
            r[1] = *w | DLS_RECORD_KEPT;
    }
    *w = l->mine;
}
/* walk over the units of an access */
/* How many bytes a unit can have so that this access covers units entirely. */
static inline unsigned shift_for(uint64_t address, unsigned size)
{
    unsigned shift = (unsigned)__builtin_ctzll(address | size | DLS_CHUNK);
    return shift > 3 ? 3 : shift;
}

/* One lane's access, inside one chunk. */
static inline void look_at_units(const look *l, dls_chunk *c)
{
    uint64_t address = l->access.address;
    unsigned size = l->access.size, shift = shift_for(address, size);
    if (__builtin_expect(!c->shaped, 0))
        dls_check_shape(c, shift < 2 ? shift : 2);
    else if (__builtin_expect(shift < c->shift, 0))
        dls_check_split(c, shift);
    if (__builtin_expect(c->w == NULL || c->r == NULL, 0)) {
        dls_check_shape(c, c->shift);
        if (c->w == NULL || c->r == NULL)
            return; // out of memory
    }
    unsigned i = (unsigned)(address % DLS_CHUNK) >> c->shift;
    unsigned n = size >> c->shift;
    for (; n--; i++) {
        if (l->access.write)
            look_at_write(l, &c->w[i], c->r[i]);
        else
            look_at_read(l, c->w[i], c->r[i]);
    }
}
/* find the shared array of an access */
enum { ARRAYS = 256 };
static dls_check_array arrays[ARRAYS];
static unsigned array_count;

void dls_check_shared_array(const char *name, void *array, size_t bytes,
                            const char *file, int line)
{
    uint64_t start = (uint64_t)(uintptr_t)array;
    unsigned i = 0;
    while (i < array_count && arrays[i].start != start)
        i++;
    if (i == ARRAYS)
        return;
    array_count += i == array_count;
    arrays[i] = (dls_check_array){start, bytes, name, file, line, dls_checker.first};
}

/* The array that the access lies in, or the nearest below it; NULL: none. */
const dls_check_array *dls_check_array_at(uint64_t address)
{
    const dls_check_array *best = NULL;
    for (unsigned i = 0; i < array_count; i++)
        if (arrays[i].start <= address && (!best || arrays[i].start > best->start) &&
            arrays[i].since == dls_checker.first)
            best = &arrays[i];
    return best;
}
/* look at the lanes of a request */
static int in_bounds(const look *l)
{
    uint64_t address = l->access.address;
    if (l->access.space == DLS_PROBE_SHARED) {
        static const dls_check_array *a;
        if (!a || a->since != dls_checker.first || address - a->start >= a->bytes)
            a = dls_check_array_at(address);
        return a && address - a->start + l->access.size <= a->bytes;
    }
    const dls_chunk *c = dls_check_chunk(address);
    return c && address % DLS_CHUNK + l->access.size <= c->valid;
}

static void look_at_lane(look *l)
{
    uint64_t address = l->access.address;
    int global = l->access.space == DLS_PROBE_GLOBAL;
    if (address & (l->access.size - 1) && !(l->access.size & (l->access.size - 1))) {
        dls_check_found_bad(DLS_CHECK_MISALIGNED, &l->access);
        return;
    }
    if (__builtin_expect(!in_bounds(l), 0)) {
        if (!global || dls_check_is_wrong(address))
            dls_check_found_bad(global ? DLS_CHECK_GLOBAL_BOUNDS
                                       : DLS_CHECK_SHARED_BOUNDS, &l->access);
        return;
    }
    look_at_units(l, global ? dls_check_chunk(address) : dls_check_shared_chunk(address));
}
/* look at a request */
static void begin_look(look *l, dls_probe_space space)
{
    const dls_check_state *c = &dls_checker;
    *l = (look){.access = {.space = space}, .low = 1, .floor = c->floor,
                .first = c->first, .bar = c->bar};
    if (space == DLS_PROBE_SHARED)
        l->low = l->floor = c->first;
    if (c->launch_floor > l->floor && space == DLS_PROBE_GLOBAL)
        l->floor = c->launch_floor;
}

/* Several meetings may stand in one request: parts of a warp met at the same line. */
static void look_at_meetings(const dls_probe_request *q)
{
    uint32_t rest = q->mask;
    while (rest) {
        uint64_t word = q->address[__builtin_ctz(rest)];
        dls_check_lanes_met(q->warp, (uint32_t)(word >> 32));
        for (uint32_t others = rest; others; others &= others - 1)
            if (q->address[__builtin_ctz(others)] == word)
                rest &= ~(1u << __builtin_ctz(others));
    }
}

/* NULL: out of memory, and the request is not checked. */
static dls_check_site *site_of(const dls_probe_request *q)
{
    dls_check_site **slot = (dls_check_site **)&q->site->slot[dls_checker.slot];
    if (!*slot) {
        *slot = calloc(1, sizeof **slot);
        if (!*slot)
            return NULL;
        (*slot)->place = dls_check_place(q->site->pc);
    }
    if (!q->same)
        (*slot)->known = 0;
    return *slot;
}

void dls_check_request(const dls_probe_request *q)
{
    look l;
    if (q->kind == DLS_PROBE_SYNC) {
        look_at_meetings(q);
        return;
    }
    if (q->kind > DLS_PROBE_LANDING)
        return;
    if (q->space == DLS_PROBE_SHARED)
        dls_check_shared_request(q);
    dls_check_site *s = site_of(q);
    if (!s)
        return;
    begin_look(&l, q->space);
    l.access.place = s->place;
    l.access.size = q->size;
    int landing = q->kind == DLS_PROBE_LANDING;  // a write, once more, by the same thread
    l.access.write = q->kind == DLS_PROBE_WRITE || q->kind == DLS_PROBE_ATOMIC_WRITE ? 1
                     : q->kind == DLS_PROBE_ATOMIC_UPDATE ? 2 : landing;
    uint64_t flags = q->kind >= DLS_PROBE_ATOMIC_READ && !landing ? DLS_RECORD_ATOMIC : 0;
    uint32_t rest = q->mask;
    if (q->kind <= DLS_PROBE_WRITE && q->size >= 4)
        rest = dls_check_look_quickly(q, &l, s);
    for (; rest; rest &= rest - 1) {
        unsigned lane = (unsigned)__builtin_ctz(rest);
        l.access.thread = q->warp * 32 + lane;
        l.access.address = q->address[lane];
        l.mine = dls_record_of(dls_checker.now, l.access.thread, l.access.place) | flags;
        look_at_lane(&l);
    }
}
/* look at a range */
/* One chunk's part of a range that an operation touches. */
static void look_at_part(look *l, dls_chunk *c)
{
    unsigned size = l->access.size;
    if (l->access.write && size >= c->valid) { // all that is valid
        int quiet = c->w == NULL && c->r == NULL &&
                    (c->uniform == 0 || is_safe(l, c->uniform));
        if (!quiet)
            look_at_units(l, c);
        free(c->w);
        free(c->r);
        c->w = NULL;
        c->r = NULL;
        c->uniform = l->mine;
        return;
    }
    look_at_units(l, c);
}

void dls_check_touched(int write, const void *start, size_t bytes, size_t pitch,
                       size_t rows)
{
    look l;
    dls_check_op *op = dls_check_op_number(dls_checker.op);
    op->seen = 1;
    begin_look(&l, DLS_PROBE_GLOBAL);
    l.first = l.bar = 0;
    l.mine = dls_record_of(dls_checker.now, 0, DLS_PLACE_OPERATION);
    l.access.place = DLS_PLACE_OPERATION;
    l.access.write = write;
    for (size_t i = 0; i < rows; i++) {
        uint64_t at = (uint64_t)(uintptr_t)start + i * pitch, end = at + bytes;
        while (at < end) {
            uint64_t next = (at / DLS_CHUNK + 1) * DLS_CHUNK;
            dls_chunk *c = dls_check_chunk(at);
            l.access.address = at;
            l.access.size = (unsigned)((next < end ? next : end) - at);
            if (c && at % DLS_CHUNK + l.access.size <= c->valid)
                look_at_part(&l, c);
            else if (c && dls_check_block_at(at))
                dls_check_found_bad(DLS_CHECK_GLOBAL_BOUNDS, &l.access);
            at = next;
        }
    }
}
/* look at the host */
/* The host itself, or a host function in a stream. An operation of the library that
 * stands for a kernel and is written in C++ is the device's code. */
static int is_the_hosts_code(void)
{
    return dls_checker.op == 0 ||
           !strcmp(dls_check_op_number(dls_checker.op)->name, "host function");
}

void dls_check_host(uintptr_t pc, const void *address, size_t size, int write)
{
    uint64_t at = (uint64_t)(uintptr_t)address;
    const dls_check_block *b = dls_check_block_at(at);
    if (b == NULL)
        return; // the program's own memory
    look l;
    dls_check_own(dls_checker.op, DLS_NO_BLOCK);
    begin_look(&l, DLS_PROBE_GLOBAL);
    l.first = l.bar = 0;
    if (dls_checker.op == 0)
        l.floor = l.low;
    l.access.place = dls_check_place(pc);
    l.access.write = write;
    l.access.size = (unsigned)size;
    l.access.address = at;
    if (b->device >= 0 && !b->managed && is_the_hosts_code()) {
        dls_check_found_bad(DLS_CHECK_HOST_ACCESS, &l.access);
        return;
    }
    l.mine = dls_record_of(dls_checker.now, 0, l.access.place);
    if (dls_checker.op == 0)
        dls_checker.host_access = dls_checker.now;
    dls_chunk *c = dls_check_chunk(at);
    if (at % DLS_CHUNK + size > c->valid)
        dls_check_found_bad(b->freed ? DLS_CHECK_AFTER_FREE : DLS_CHECK_GLOBAL_BOUNDS,
                            &l.access);
    else
        look_at_units(&l, c);
}
