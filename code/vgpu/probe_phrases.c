/* code/vgpu/probe_phrases.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* Phrases: what a warp notes again and again between two stops.
 *
 *   log of a lane:   B  g  S  r  r  r  r  r  r  r  r     at the stop
 *   phrase:          B        r  r  r  r  r  r  r  r     quiet: known, at known addresses
 *                       g  S                             loud: handed over each time
 *
 * A table, by a hash of the first lane's log, leads to the phrase. Whether the log of
 * every lane is that phrase is then compared, note by note, in vectors.
 */
#include "vgpu/probe_internal.h"

#include <stdlib.h>
#include <string.h>

enum { LANES = DLS_SIMT_WARP, SLOTS = 1 << 12, LEAST = 4, TRIES = 4 };
enum { MANY = 64 << 20 };   // bytes of phrases: learn no more

/* define a phrase */
typedef uint64_t eight __attribute__((vector_size(64), may_alias));
typedef uint32_t eight_codes
    __attribute__((vector_size(32), aligned(4), may_alias));

typedef struct phrase {
    dls_probe_phrase head;        // first: what consumers see
    struct phrase *next;          // of all
    unsigned long long times;     // played in this launch
    unsigned padded, loud;        // count, rounded up to 8; notes that are loud
    uint16_t *order;              // (count): the loud notes, then the quiet ones
    uint32_t *code, *is_code;     // (padded); ~0, and 0 behind the end
    uint64_t *is_quiet;           // (padded); ~0: the address has to be this one
    uint64_t *above;              // (padded): the upper half of the addresses
    uint32_t *address;            // (padded / 8, LANES, 8): the lower halves
} phrase;

static struct slot {
    uint64_t hash;                // of a log seen once
    phrase *phrase;
    unsigned tries;
} slots[SLOTS];

static phrase *all;
static size_t bytes;
/* find the slot of a phrase */
static int is_shared(uint64_t word)
{
    return (word & (((uint64_t)1 << NOTE_SIZE_SHIFT) - 1)) - dls_probe.shared <
           dls_probe.shared_size;
}

static uint64_t hash_of(const dls_probe_view *v, uint32_t mask)
{
    const dls_probe_lane *l = v->lane[__builtin_ctz(mask)];
    uint32_t count = dls_probe_count(l);
    uint64_t h = ((uint64_t)v->number << 32 | mask) * 0x9E3779B97F4A7C15u + count;
    for (unsigned p = 0; p < count; p++) {
        uint64_t at = l->address[p] - dls_probe.shared;
        at = (at < dls_probe.shared_size ? at : 0) + ((uint64_t)l->code[p] << 24);
        h += at * (0xC2B2AE3D27D4EB4Fu * (2 * p + 1));
    }
    return h ^ h >> 32;
}
/* compare logs with a phrase */
static uint32_t *lower_half(const phrase *f, unsigned lane, unsigned p)
{
    return &f->address[(p / 8 * LANES + lane) * 8 + p % 8];
}

/* Where the logs differ from the phrase, in any of its notes: all zero if nowhere. */
typedef struct difference {
    eight word;
    eight_codes code;
} difference;

/* Adds eight notes of `n` lanes. */
static inline void compare(const phrase *f, const dls_probe_lane *const *lane,
                           const unsigned char *number, unsigned n, unsigned p,
                           difference *d)
{
    const eight_codes *address = (const eight_codes *)&f->address[p * LANES];
    eight above = *(const eight *)&f->above[p], other = {0};
    eight_codes code = *(const eight_codes *)&f->code[p], others = {0};
    for (unsigned i = 0; i < n; i++) {
        other |= *(const eight *)&lane[i]->address[p] ^ above ^
                 __builtin_convertvector(address[number[i]], eight);
        others |= *(const eight_codes *)&lane[i]->code[p] ^ code;
    }
    d->word |= other & *(const eight *)&f->is_quiet[p];
    d->code |= others & *(const eight_codes *)&f->is_code[p];
}

static int differ(const phrase *f, const dls_probe_lane *const *lane,
                  const unsigned char *number, unsigned n)
{
    difference d = {{0}, {0}};
    uint64_t any = 0;
    for (unsigned p = 0; p < f->padded; p += 8)
        compare(f, lane, number, n, p, &d);
    for (int i = 0; i < 8; i++)
        any |= d.word[i] | d.code[i];
    return any != 0;
}

static int is_phrase(const phrase *f, const dls_probe_view *v, uint32_t mask)
{
    const dls_probe_lane *first = v->lane[__builtin_ctz(mask)], *lane[LANES];
    unsigned char number[LANES];
    unsigned n = 0;
    if (f->head.warp != v->number || f->head.mask != mask)
        return 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1, n++) {
        number[n] = (unsigned char)__builtin_ctz(rest);
        lane[n] = v->lane[number[n]];
        if (dls_probe_count(lane[n]) != f->head.count)
            return 0;
    }
    if (differ(f, lane, number, n))
        return 0;
    for (unsigned i = 0; i < f->loud && f->head.shared; i++)
        if (is_shared(first->address[f->order[i]]))
            return 0;
    return 1;
}
/* play a phrase */
/* Does everybody who listens do without the quiet requests? */
static int all_know(dls_probe_phrase *f)
{
    for (int i = 0; i < DLS_PROBE_CONSUMERS; i++) {
        const dls_probe_consumer *c = dls_probe.consumer[i];
        if (c && c->request && (c->again ? !c->again(f) : !c->repeated))
            return 0;
    }
    return 1;
}

int dls_probe_play(const dls_probe_view *v, uint32_t mask)
{
    _Alignas(64) uint64_t address[LANES];
    unsigned first = (unsigned)__builtin_ctz(mask);
    if (dls_probe_count(v->lane[first]) < LEAST)
        return 0;
    uint64_t hash = hash_of(v, mask);
    struct slot *s = &slots[hash % SLOTS];
    phrase *f = s->hash == hash ? s->phrase : NULL;
    if (!f || !is_phrase(f, v, mask) || !all_know(&f->head))
        return 0;
    for (unsigned i = 0; i < f->loud; i++) {
        unsigned p = f->order[i];
        for (unsigned k = 0; k < LANES; k++)
            address[k] = v->lane[mask >> k & 1 ? k : first]->address[p];
        dls_probe_request_of(v, dls_probe_offset(f->code[p]), mask, address);
    }
    f->times++;
    return 1;
}
void dls_probe_tell_repeated(void)
{
    for (phrase *f = all; f; f = f->next) {
        for (int i = 0; i < DLS_PROBE_CONSUMERS && f->times; i++)
            if (dls_probe.consumer[i] && dls_probe.consumer[i]->repeated)
                dls_probe.consumer[i]->repeated(&f->head, f->times);
        f->times = 0;
    }
}
/* tell quiet notes from loud ones */
static unsigned what_of(uint32_t code)
{
    return dls_probe_offset(code) & ((1u << NOTE_BITS) - 1);
}

/* A plain access of one size to shared memory. */
static int is_plain(const dls_probe_lane *l, unsigned p)
{
    return what_of(l->code[p]) < NOTE_READ_RANGE && is_shared(l->address[p]);
}

/* May accesses to shared memory be quiet? Not beside others of it, nor meetings. */
static int may_be_quiet(const dls_probe_lane *l)
{
    for (unsigned p = 0; p < dls_probe_count(l); p++) {
        unsigned what = what_of(l->code[p]);
        if (what == NOTE_SYNC || (what >= NOTE_READ_RANGE && what < NOTE_BLOCK &&
                                  is_shared(l->address[p])))
            return 0;
    }
    return 1;
}

static int is_quiet(const dls_probe_lane *l, unsigned p, int plain)
{
    unsigned what = what_of(l->code[p]);
    return what == NOTE_BLOCK || what == NOTE_SPECIAL || what == NOTE_FLOPS ||
           (plain && is_plain(l, p));
}
/* learn a phrase */
static phrase *make_phrase(unsigned count)
{
    unsigned padded = (count + 7) / 8 * 8;
    size_t head = (sizeof(phrase) + 63) / 64 * 64;
    size_t size = head + padded * (4 * LANES + 8 + 8 + 4 + 4 + sizeof(uint16_t));
    phrase *f = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!f)
        return NULL;
    memset(f, 0, size);
    bytes += size;
    static unsigned made;
    f->head.number = ++made;
    f->head.count = count;
    f->padded = padded;
    f->address = (uint32_t *)((char *)f + head);
    f->is_quiet = (uint64_t *)(f->address + LANES * padded);
    f->above = f->is_quiet + padded;
    f->code = (uint32_t *)(f->above + padded);
    f->is_code = f->code + padded;
    f->order = (uint16_t *)(f->is_code + padded);
    return f;
}
static void sort_notes(phrase *f, const dls_probe_lane *first)
{
    int plain = may_be_quiet(first);
    for (unsigned p = 0; p < f->head.count; p++) {
        int quiet = is_quiet(first, p, plain);
        f->is_quiet[p] = quiet ? ~(uint64_t)0 : 0;
        f->is_code[p] = ~0u;
        f->head.quiet += (unsigned)quiet;
        f->head.shared += quiet && is_plain(first, p);
        f->head.writes += quiet && is_plain(first, p) &&
                          what_of(first->code[p]) >= NOTE_WRITE;
    }
    unsigned at[2] = {0, f->head.count - f->head.quiet};
    f->loud = at[1];
    for (unsigned p = 0; p < f->head.count; p++)
        f->order[at[f->is_quiet[p] != 0]++] = (uint16_t)p;
}
void dls_probe_learn(const dls_probe_view *v, uint32_t mask)
{
    const dls_probe_lane *first = v->lane[__builtin_ctz(mask)];
    uint32_t count = dls_probe_count(first);
    if (count < LEAST || bytes > MANY)
        return;
    uint64_t hash = hash_of(v, mask);
    struct slot *s = &slots[hash % SLOTS];
    if (s->hash != hash) {
        *s = (struct slot){.hash = hash};
        return;
    }
    if (s->tries == TRIES || (s->phrase && is_phrase(s->phrase, v, mask)))
        return;
    s->tries++;
    phrase *f = make_phrase(count);
    if (!f)
        return;
    f->head.warp = v->number;
    f->head.mask = mask;
    memcpy(f->code, first->code, count * sizeof *f->code);
    for (unsigned p = 0; p < count; p++) {
        f->above[p] = first->address[p] >> 32 << 32;
        for (unsigned i = 0; i < LANES; i++)
            *lower_half(f, i, p) = (uint32_t)(mask >> i & 1 ? v->lane[i]
                                                            : first)->address[p];
    }
    sort_notes(f, first);
    f->next = all;
    all = s->phrase = f;
}
void dls_probe_quiet(const dls_probe_phrase *head, unsigned i, dls_probe_request *out,
                     uint64_t *address)
{
    const phrase *f = (const phrase *)head;
    unsigned p = f->order[f->loud + i];
    dls_probe_site *s = dls_probe_find_site(dls_probe_offset(f->code[p]));
    for (unsigned k = 0; k < LANES; k++)
        address[k] = f->above[p] | *lower_half(f, k, p);
    *out = (dls_probe_request){
        .site = s, .kind = s->kind, .size = s->size, .mask = head->mask,
        .warp = head->warp, .address = address, .met = NULL,
        .space = s->kind <= DLS_PROBE_WRITE ? DLS_PROBE_SHARED : DLS_PROBE_GLOBAL};
}
/* forget phrases */
void dls_probe_forget_phrases(int only_if_many)
{
    if (only_if_many && bytes <= MANY)
        return;
    for (phrase *f = all, *next; f; f = next) {
        next = f->next;
        for (int i = 0; i < DLS_PROBE_CONSUMERS; i++)
            free(f->head.slot[i]);
        free(f);
    }
    all = NULL;
    bytes = 0;
    memset(slots, 0, sizeof slots);
}
