/* code/vgpu/probe_requests.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* From the logs of 32 lanes to the requests of a warp.
 *
 * As a rule the lanes have done the same: their codes agree from the first note to the
 * last, and note p of every log belongs to request p. Otherwise the logs are merged as a
 * warp executes: of the places where its lanes stand, the first in the program runs, for
 * all the lanes that stand there. That brings lanes together again behind an if, at the
 * end of a loop, and behind a loop that some have left early.
 */
#include "vgpu/probe_internal.h"

#include <stdlib.h>
#include <string.h>

enum { LANES = DLS_SIMT_WARP, AHEAD = 8 };

typedef uint64_t four __attribute__((vector_size(32)));

typedef dls_probe_view view;

/* decode a note */
static const unsigned char KIND[] = {
    0, 0, 0, 0, 0, 1, 1, 1, 1, 1, DLS_PROBE_READ, DLS_PROBE_WRITE, DLS_PROBE_ATOMIC_READ,
    DLS_PROBE_ATOMIC_WRITE, DLS_PROBE_ATOMIC_UPDATE, DLS_PROBE_LANDING, DLS_PROBE_BLOCK,
    DLS_PROBE_FLOPS, DLS_PROBE_SPECIAL, DLS_PROBE_SYNC};
static const unsigned char SIZE[] = {1, 2, 4, 8, 16, 1, 2, 4, 8, 16};
/* keep the sites */
enum { SITE_SLOTS = 1 << 12, SITES_PER_BLOCK = 256, SITE_BLOCKS = 1024 };

static dls_probe_shape *slots[SITE_SLOTS];       // the last site found, by hash
static dls_probe_shape *blocks[SITE_BLOCKS];     // all of them, 256 at a time
static dls_probe_shape **table;                  // open addressing
static unsigned site_count, table_size;

static unsigned hash(uint32_t code)
{
    return (code * 2654435761u) >> 7;
}

static void insert(dls_probe_shape *s)
{
    unsigned i = hash(s->site.code) & (table_size - 1);
    while (table[i])
        i = (i + 1) & (table_size - 1);
    table[i] = s;
}

static void grow(void)
{
    table_size = table_size ? 2 * table_size : 1024;
    free(table);
    table = calloc(table_size, sizeof *table);
    for (unsigned i = 0; table && i < site_count; i++)
        insert(dls_probe_shape_of(dls_probe_site_at(i)));
}
/* make a site */
static dls_probe_shape *make_site(uint32_t code)
{
    unsigned what = code & ((1u << NOTE_BITS) - 1);
    unsigned block = site_count / SITES_PER_BLOCK, i = site_count % SITES_PER_BLOCK;
    if (2 * site_count >= table_size)
        grow();
    if (block >= SITE_BLOCKS || !table)
        return NULL;
    if (!blocks[block])
        blocks[block] = calloc(SITES_PER_BLOCK, sizeof **blocks);
    if (!blocks[block])
        return NULL;
    dls_probe_shape *s = &blocks[block][i];
    s->site = (dls_probe_site){.code = code, .id = site_count++};
    s->site.kind = (dls_probe_kind)KIND[what];
    s->site.size = what < NOTE_READ_RANGE ? SIZE[what] : 0;
    s->site.pc = (uintptr_t)__executable_start + (code >> NOTE_BITS);
    insert(s);
    return s;
}

static dls_probe_shape *find_site(uint32_t code)
{
    dls_probe_shape **slot = &slots[hash(code) & (SITE_SLOTS - 1)];
    if (__builtin_expect(*slot && (*slot)->site.code == code, 1))
        return *slot;
    for (unsigned i = hash(code); table_size; i++) {
        dls_probe_shape *s = table[i & (table_size - 1)];
        if (!s)
            break;
        if (s->site.code == code)
            return *slot = s;
    }
    return *slot = make_site(code);
}

dls_probe_site *dls_probe_find_site(uint32_t code)
{
    dls_probe_shape *s = find_site(code);
    return s ? &s->site : NULL;
}

unsigned dls_probe_site_count(void) { return site_count; }

dls_probe_site *dls_probe_site_at(unsigned id)
{
    return &blocks[id / SITES_PER_BLOCK][id % SITES_PER_BLOCK].site;
}

void dls_probe_forget_shapes(void)
{
    for (unsigned i = 0; i < site_count; i++)
        dls_probe_shape_of(dls_probe_site_at(i))->mask = 0;
}
/* tell memory apart */
static int in(uint64_t address, uintptr_t start, uintptr_t size)
{
    return address - start < size;
}

/* The space of an address, or -1 for what belongs to the emulator or to one lane. */
static int space_of(uint64_t address)
{
    if (in(address, dls_probe.shared, dls_probe.shared_size))
        return DLS_PROBE_SHARED;
    if (in(address, dls_probe.tls, dls_probe.tls_size) ||
        in(address, dls_probe.stacks, dls_probe.stacks_size) ||
        in(address, dls_probe.closure, dls_probe.closure_size))
        return -1;
    return DLS_PROBE_GLOBAL;
}
/* compare with the last request */
/* Is the request like the site's last, but shifted? Remembers it if not. */
static int same_shape(dls_probe_shape *s, dls_probe_request *r)
{
    uint64_t first = r->address[__builtin_ctz(r->mask)], differs = 0;
    for (int i = 0; i < LANES; i++)
        differs |= (r->address[i] - first) ^ s->rest[i];
    int64_t shift = (int64_t)(first - s->first);
    s->first = first;
    if (__builtin_expect(!differs && s->mask == r->mask && s->space == r->space, 1)) {
        r->shift = shift;
        return 1;
    }
    for (int i = 0; i < LANES; i++)
        s->rest[i] = r->address[i] - first;
    s->mask = r->mask;
    s->space = r->space;
    return 0;
}
/* hand a request over */
static void hand_over(dls_probe_shape *s, dls_probe_request *r)
{
    r->same = 0;
    r->shift = 0;
    r->same = r->kind < DLS_PROBE_BLOCK && same_shape(s, r);
    for (int i = 0; i < DLS_PROBE_CONSUMERS; i++)
        if (dls_probe.consumer[i] && dls_probe.consumer[i]->request)
            dls_probe.consumer[i]->request(r);
}

static void count_meeting(const view *v, const dls_probe_request *r)
{
    unsigned *met = (unsigned *)v->met;
    for (uint32_t rest = r->mask; rest; rest &= rest - 1)
        met[__builtin_ctz(rest)]++;
}
/* cut a range into requests */
/* An access of a type that is not aligned to its size: a GPU makes one request for each
 * part that is, of 4, 2 or 1 bytes. */
static void hand_over_range(dls_probe_shape *s, dls_probe_request *r, uint64_t *address)
{
    uint64_t any = 0, mask = ((uint64_t)1 << NOTE_SIZE_SHIFT) - 1;
    unsigned size = (unsigned)(address[__builtin_ctz(r->mask)] >> NOTE_SIZE_SHIFT);
    uint32_t all = r->mask, mine = 0;
    for (int i = 0; i < LANES; i++)
        mine |= (uint32_t)(address[i] >> NOTE_SIZE_SHIFT == size) << i;
    uint64_t at[LANES], part[LANES];
    for (int i = 0; i < LANES; i++) {
        at[i] = mine >> i & 1 ? address[i] & mask : address[__builtin_ctz(all)] & mask;
        any |= at[i];
    }
    any |= size;
    r->mask = all & mine;
    r->size = any & 1 ? 1 : any & 2 ? 2 : 4;
    r->address = part;
    for (unsigned done = 0; done < size; done += r->size) {
        for (int i = 0; i < LANES; i++)
            part[i] = at[i] + done;
        hand_over(s, r);
    }
    if (all & ~mine) {
        r->mask = all & ~mine;
        hand_over_range(s, r, address);
    }
}
/* make a request */
void dls_probe_request_of(const view *v, uint32_t code, uint32_t mask,
                          uint64_t *address)
{
    unsigned what = code & ((1u << NOTE_BITS) - 1);
    dls_probe_shape *s = find_site(code);
    if (!s)
        return;
    dls_probe_request r = {.site = &s->site, .kind = s->site.kind, .size = s->site.size,
                           .mask = mask, .warp = v->number, .block = dls_probe.block,
                           .epoch = dls_probe.epoch, .met = v->met, .address = address};
    if (what < NOTE_BLOCK) {
        uint64_t first = address[__builtin_ctz(mask)];
        int space = space_of(what < NOTE_READ_RANGE ? first
                             : first & (((uint64_t)1 << NOTE_SIZE_SHIFT) - 1));
        if (space < 0)
            return;
        r.space = (dls_probe_space)space;
        if (what == NOTE_READ_RANGE || what == NOTE_WRITE_RANGE) {
            hand_over_range(s, &r, address);
            return;
        }
        if (what > NOTE_WRITE_RANGE) {
            r.size = (unsigned)(first >> NOTE_SIZE_SHIFT);
            for (int i = 0; i < LANES; i++)
                address[i] &= ((uint64_t)1 << NOTE_SIZE_SHIFT) - 1;
        }
    }
    hand_over(s, &r);
    if (what == NOTE_SYNC)
        count_meeting(v, &r);
}
/* turn a square of addresses */
/* to[p][lane] = from lane's note p, for four lanes and four notes. */
static inline void turn(uint64_t (*to)[LANES], const uint64_t *const *from)
{
    typedef int64_t places __attribute__((vector_size(32)));
    four a = *(const four *)from[0], b = *(const four *)from[1],
         c = *(const four *)from[2], d = *(const four *)from[3];
    four ab0 = __builtin_shuffle(a, b, (places){0, 4, 2, 6});
    four ab1 = __builtin_shuffle(a, b, (places){1, 5, 3, 7});
    four cd0 = __builtin_shuffle(c, d, (places){0, 4, 2, 6});
    four cd1 = __builtin_shuffle(c, d, (places){1, 5, 3, 7});
    *(four *)to[0] = __builtin_shuffle(ab0, cd0, (places){0, 1, 4, 5});
    *(four *)to[1] = __builtin_shuffle(ab1, cd1, (places){0, 1, 4, 5});
    *(four *)to[2] = __builtin_shuffle(ab0, cd0, (places){2, 3, 6, 7});
    *(four *)to[3] = __builtin_shuffle(ab1, cd1, (places){2, 3, 6, 7});
}
/* consume equal logs */
static void consume_equal(const view *v, uint32_t mask)
{
    _Alignas(64) uint64_t address[AHEAD][LANES];
    const dls_probe_lane *first = v->lane[__builtin_ctz(mask)];
    const uint64_t *from[LANES];
    uint32_t count = dls_probe_count(first);
    for (unsigned p = 0; p < count; p += AHEAD) {
        unsigned n = count - p < AHEAD ? count - p : AHEAD;
        for (int i = 0; i < LANES; i++)
            from[i] = (mask >> i & 1 ? v->lane[i] : first)->address + p;
        for (int i = 0; i < LANES; i += 4) {
            uint64_t(*to)[LANES] = (uint64_t(*)[LANES])&address[0][i];
            turn(to, from + i);
            for (int k = i; k < i + 4; k++)
                from[k] += 4;
            turn(to + 4, from + i);
        }
        for (unsigned k = 0; k < n; k++)
            dls_probe_request_of(v, dls_probe_offset(first->code[p + k]), mask,
                                 address[k]);
    }
}
/* consume diverged logs */
static uint64_t word_at(const view *v, const uint32_t *at, int lane)
{
    return v->lane[lane]->address[at[lane]];
}

/* A meeting comes after all that its lanes did before: it waits until they are there. */
static void hold_back_meetings(const view *v, const uint32_t *at, uint32_t *head)
{
    uint32_t here = 0, held = 0, some = 0;
    for (int i = 0; i < LANES; i++) {
        some |= (uint32_t)(head[i] != ~0u) << i;
        here |= (uint32_t)(head[i] != ~0u && (head[i] & 31) == NOTE_SYNC) << i;
    }
    for (uint32_t rest = here; rest; rest &= rest - 1) {
        int i = __builtin_ctz(rest);
        for (uint32_t others = (uint32_t)(word_at(v, at, i) >> 32) & some; others;
             others &= others - 1) {
            int k = __builtin_ctz(others);
            if (!(here >> k & 1) || word_at(v, at, k) != word_at(v, at, i))
                held |= 1u << i;
        }
    }
    for (uint32_t rest = held == some ? 0 : held; rest; rest &= rest - 1)
        head[__builtin_ctz(rest)] = ~0u;
}

/* Until all are empty, or one that is in `open` is. at[i]: how far lane i was read. */
static void consume_diverged(const view *v, uint32_t open, uint32_t *at)
{
    _Alignas(64) uint64_t address[LANES];
    _Alignas(64) uint32_t head[LANES];
    for (;;) {
        uint32_t least = ~0u, mask = 0;
        for (int i = 0; i < LANES; i++) {
            int some = at[i] < dls_probe_count(v->lane[i]);
            head[i] = some ? dls_probe_offset(v->lane[i]->code[at[i]]) : ~0u;
            if (!some && (open >> i & 1))
                return;
        }
        hold_back_meetings(v, at, head);
        for (int i = 0; i < LANES; i++)
            least = head[i] < least ? head[i] : least;
        if (least == ~0u)
            return;
        for (int i = 0; i < LANES; i++)
            mask |= (uint32_t)(head[i] == least) << i;
        unsigned first = (unsigned)__builtin_ctz(mask);
        for (unsigned i = 0; i < LANES; i++) {
            unsigned from = mask >> i & 1 ? i : first;
            address[i] = v->lane[from]->address[at[from]];
        }
        for (int i = 0; i < LANES; i++)
            at[i] += mask >> i & 1;
        dls_probe_request_of(v, least, mask, address);
    }
}
/* consume the logs of a warp */
/* Have all lanes of the mask noted the same codes? */
static int are_equal(const view *v, uint32_t mask)
{
    const dls_probe_lane *first = v->lane[__builtin_ctz(mask)];
    for (uint32_t rest = mask & (mask - 1); rest; rest &= rest - 1) {
        const dls_probe_lane *l = v->lane[__builtin_ctz(rest)];
        if (l->end != first->end ||
            memcmp(l->code, first->code, dls_probe_count(first) * sizeof *l->code) != 0)
            return 0;
    }
    return 1;
}

static void keep_rest(dls_probe_lane *l, uint32_t read)
{
    uint32_t left = dls_probe_count(l) - read;
    dls_probe_set_count(l, left);
    memmove(l->code, l->code + read, left * sizeof *l->code);
    memmove(l->address, l->address + read, left * sizeof *l->address);
}
/* Returns the lanes that have notes left. */
static uint32_t consume(const view *v, uint32_t mask, uint32_t open)
{
    uint32_t at[LANES] = {0}, left = 0;
    if (!mask || (open & ~mask))
        return mask;
    int played = dls_probe_play(v, mask);
    if (played || are_equal(v, mask)) {
        if (!played) {
            dls_probe_learn(v, mask);
            consume_equal(v, mask);
        }
        for (uint32_t rest = mask; rest; rest &= rest - 1)
            dls_probe_set_count(v->lane[__builtin_ctz(rest)], 0);
        return 0;
    }
    consume_diverged(v, open, at);
    for (int i = 0; i < LANES; i++) {
        if (at[i])
            keep_rest(v->lane[i], at[i]);
        left |= (uint32_t)(dls_probe_count(v->lane[i]) > 0) << i;
    }
    return left;
}
/* The lanes that have noted something, of those that have a log. Loops over the bits of a
 * mask are left alone by the vectoriser, whose gathers are slow here. */
static uint32_t open_view(view *v, dls_probe_lane *const *lane, uint32_t logs)
{
    static dls_probe_lane nothing = {.end = -PROBE_FULL};
    uint32_t mask = 0;
    for (uint32_t rest = ~logs; rest; rest &= rest - 1)
        v->lane[__builtin_ctz(rest)] = &nothing;
    for (uint32_t rest = logs; rest; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctz(rest);
        v->lane[i] = lane[i];
        mask |= (uint32_t)(dls_probe_count(lane[i]) > 0) << i;
    }
    return mask;
}
/* Those of `lanes`. The next to ask gets the one that was used last. */
static void hand_back(unsigned warp, uint32_t lanes)
{
    dls_probe_lane **lane = &dls_probe.lane[warp * LANES];
    unsigned spares = dls_probe.spares;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctz(rest);
        dls_probe.spare[spares++] = lane[i];
        lane[i] = NULL;
    }
    dls_probe.spares = spares;
    dls_probe.logs[warp] &= ~lanes;
}

void dls_probe_consume(unsigned warp, uint32_t open)
{
    dls_probe_lane *now = dls_probe_now, **lane = &dls_probe.lane[warp * LANES];
    uint32_t logs = dls_probe.logs[warp], runs = 1u << now->thread % LANES;
    view v;
    if (!logs)
        return;
    v.number = warp;
    v.met = dls_probe.met + warp * LANES;
    uint32_t mask = open_view(&v, lane, logs);
    dls_probe_now = &dls_probe_nobody;  // a consumer's own accesses are nobody's
    uint32_t left = consume(&v, mask, open);
    dls_probe_now = now;
    if (lane[now->thread % LANES] != now)
        runs = 0;
    hand_back(warp, logs & ~left & ~runs);
}
