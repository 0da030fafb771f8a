/* code/vgpu/profile_count.c: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* From requests to counts: sectors, wavefronts, bytes behind the cache.
 *
 * Most requests have the shape of the site's last one. A shape has its bank conflicts
 * wherever it lies, and its sectors too if it moved by whole sectors, so that both are
 * found once and remembered.
 */
#include "vgpu/profile_internal.h"

#include <stdlib.h>
#include <string.h>

enum { LANES = 32, SECTOR = 32, BANKS = 32, WORD = 4 };

int dls_profile_number = -1;

static dls_probe_site **touched;
static unsigned touched_count, touched_room;
static unsigned long long launch;

/* find the counters of a site */
void dls_profile_new_launch(unsigned long long number)
{
    launch = number + 1;
    touched_count = 0;
}

unsigned dls_profile_touched(dls_probe_site ***sites)
{
    *sites = touched;
    return touched_count;
}

static __attribute__((noinline)) dls_profile_site *first_touch(dls_probe_site *site)
{
    dls_profile_site *s = site->slot[dls_profile_number];
    if (!s && !(s = site->slot[dls_profile_number] = calloc(1, sizeof *s)))
        return NULL;
    if (touched_count == touched_room) {
        unsigned room = 2 * touched_room + 256;
        dls_probe_site **more = realloc(touched, room * sizeof(dls_probe_site *));
        if (!more)
            return NULL;
        touched = more;
        touched_room = room;
    }
    touched[touched_count++] = site;
    s->launch = launch;
    s->c = (dls_profile_counters){0};
    return s;
}

static inline dls_profile_site *find_counters(dls_probe_site *site)
{
    dls_profile_site *s = site->slot[dls_profile_number];
    return __builtin_expect(s && s->launch == launch, 1) ? s : first_touch(site);
}
/* count the sectors of a request */
/* Puts the distinct numbers of what[i] for the lanes of the mask into out. */
static unsigned distinct(const uint64_t *what, uint32_t mask, uint64_t *out)
{
    unsigned n = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        uint64_t x = what[__builtin_ctz(rest)];
        unsigned k = n;
        while (k > 0 && out[k - 1] != x)
            k--;
        if (k == 0)
            out[n++] = x;
    }
    return n;
}

static void find_sectors(dls_profile_site *s, const dls_probe_request *r)
{
    uint64_t first[LANES], last[LANES], some[LANES];
    for (int i = 0; i < LANES; i++) {
        first[i] = r->address[i] / SECTOR;
        last[i] = (r->address[i] + r->size - 1) / SECTOR;
    }
    s->sectors = distinct(first, r->mask, s->sector);
    for (uint32_t rest = r->mask; rest; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctz(rest), k = s->sectors;
        while (last[i] != first[i] && k > 0 && s->sector[k - 1] != last[i])
            k--;
        if (last[i] != first[i] && k == 0)
            s->sector[s->sectors++] = last[i];
    }
    s->ideal_sectors = (distinct(r->address, r->mask, some) * r->size + SECTOR - 1) /
                       SECTOR;
}
/* count a request to global memory */
/* Hands the sectors to the cache, those of one line of 128 bytes together. */
static void touch_cache(const dls_profile_site *s, int write, dls_profile_counters *c)
{
    for (unsigned i = 0; i < s->sectors;) {
        uint64_t line = s->sector[i] / 4;
        unsigned bits = 0;
        for (; i < s->sectors && s->sector[i] / 4 == line; i++)
            bits |= 1u << s->sector[i] % 4;
        dls_profile_cache_touch(line, bits, write, c);
    }
}

static void count_global(dls_profile_site *s, const dls_probe_request *r)
{
    if (r->same && r->shift % SECTOR == 0) {
        uint64_t by = (uint64_t)(r->shift / SECTOR);
        for (unsigned i = 0; by && i < s->sectors; i++)
            s->sector[i] += by;
    } else {
        find_sectors(s, r);
    }
    int reads = r->kind != DLS_PROBE_WRITE && r->kind != DLS_PROBE_ATOMIC_WRITE;
    int writes = r->kind != DLS_PROBE_READ && r->kind != DLS_PROBE_ATOMIC_READ;
    s->c.requests++;
    s->c.sectors += s->sectors;
    s->c.ideal_sectors += s->ideal_sectors;
    s->c.bytes += (uint64_t)__builtin_popcount(r->mask) * r->size;
    if (reads)
        touch_cache(s, 0, &s->c);
    if (writes)
        touch_cache(s, 1, &s->c);
}
/* count the wavefronts of some lanes */
/* The lanes of `mask` are served together: as many passes as the busiest bank has words
 * to give. Lanes that want the same word share it, unless each must change it. */
static unsigned passes(const dls_probe_request *r, uint32_t mask)
{
    uint64_t word[4 * LANES];
    unsigned char busy[BANKS] = {0};
    unsigned n = 0, most = 0, each = (r->size + WORD - 1) / WORD;
    int share = r->kind != DLS_PROBE_ATOMIC_UPDATE;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        uint64_t first = r->address[__builtin_ctz(rest)] / WORD;
        for (uint64_t w = first; w < first + each; w++) {
            unsigned k = n;
            while (share && k > 0 && word[k - 1] != w)
                k--;
            if (share && k > 0)
                continue;
            word[n++] = w;
            unsigned b = ++busy[w % BANKS];
            most = b > most ? b : most;
        }
    }
    return most;
}
/* count a request to shared memory */
/* 8 bytes a lane are served half a warp at a time, 16 bytes a quarter. */
static void find_wavefronts(dls_profile_site *s, const dls_probe_request *r)
{
    unsigned together = r->size <= 4 ? 32 : r->size == 8 ? 16 : 8;
    s->wavefronts = s->ideal_wavefronts = 0;
    for (unsigned i = 0; i < LANES; i += together) {
        uint32_t mask = r->mask & (uint32_t)(((1ull << together) - 1) << i);
        s->wavefronts += passes(r, mask);
        s->ideal_wavefronts += mask != 0;
    }
}

static void count_shared(dls_profile_site *s, const dls_probe_request *r)
{
    if (!r->same || r->shift % WORD != 0)
        find_wavefronts(s, r);
    s->c.shared_requests++;
    s->c.wavefronts += s->wavefronts;
    s->c.ideal_wavefronts += s->ideal_wavefronts;
    s->c.shared_bytes += (uint64_t)__builtin_popcount(r->mask) * r->size;
}
/* count a request */
static void count_flops(dls_profile_site *s, const dls_probe_request *r)
{
    for (uint32_t rest = r->mask; rest; rest &= rest - 1)
        s->c.tensor_flops += r->address[__builtin_ctz(rest)];
}

void dls_profile_count(const dls_probe_request *r)
{
    dls_profile_site *s = find_counters(r->site);
    if (!s)
        return;
    switch (r->kind) {
    case DLS_PROBE_BLOCK:
        s->c.blocks++;
        s->c.lanes += (unsigned)__builtin_popcount(r->mask);
        return;
    case DLS_PROBE_SPECIAL:
        s->c.specials += (unsigned)__builtin_popcount(r->mask);
        return;
    case DLS_PROBE_FLOPS:
        count_flops(s, r);
        return;
    case DLS_PROBE_SYNC:
    case DLS_PROBE_LANDING:  // was counted as a write at its issue
        return;
    default:
        s->c.atomics += r->kind >= DLS_PROBE_ATOMIC_READ;
        if (r->space == DLS_PROBE_SHARED)
            count_shared(s, r);
        else
            count_global(s, r);
    }
}
/* count a phrase */
/* What a quiet request adds each time. */
typedef struct gain {
    dls_probe_site *site;
    dls_profile_counters c;
} gain;

static gain gain_of(const dls_probe_request *r)
{
    gain g = {.site = r->site};
    dls_profile_site *s = r->site->slot[dls_profile_number];
    dls_profile_counters before = s->c;
    s->c = g.c;
    dls_profile_count(r);
    g.c = s->c;
    s->c = before;
    return g;
}

void dls_profile_repeated(dls_probe_phrase *f, unsigned long long times)
{
    _Alignas(64) uint64_t address[LANES];
    dls_probe_request r;
    gain *gains = f->slot[dls_profile_number];
    int known = gains != NULL;
    if (!known && !(gains = malloc(f->quiet * sizeof *gains)))
        return;
    f->slot[dls_profile_number] = gains;
    for (unsigned i = 0; i < f->quiet; i++) {
        if (!known)
            dls_probe_quiet(f, i, &r, address);
        dls_probe_site *site = known ? gains[i].site : r.site;
        dls_profile_site *s = find_counters(site);
        if (!known && s)
            gains[i] = gain_of(&r);
        if (s)
            dls_profile_add_times(&s->c, &gains[i].c, times);
    }
}
/* add counters */
void dls_profile_add_times(dls_profile_counters *to, const dls_profile_counters *from,
                           uint64_t times)
{
    uint64_t *a = (uint64_t *)to;
    const uint64_t *b = (const uint64_t *)from;
    for (size_t i = 0; i < sizeof *to / sizeof *a; i++)
        a[i] += times * b[i];
}

void dls_profile_add(dls_profile_counters *to, const dls_profile_counters *from)
{
    dls_profile_add_times(to, from, 1);
}
