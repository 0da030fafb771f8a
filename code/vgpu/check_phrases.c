/* code/vgpu/check_phrases.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* Reads of shared memory that a warp has made before, with the same addresses: looked at
 * all at once, and noted in the shadow only if somebody is going to ask for them.
 */
#include "vgpu/check_internal.h"

#include <stdlib.h>

/* collect the words of a phrase */
enum { LANES = 32, ROOM = 512 << 10 };   // of shared_chunks: see check_memory.c

/* Which words the phrase reads: an address modulo ROOM, / 4. All 0 between two uses. */
static uint8_t is_word[ROOM / 4];

typedef struct words {
    uint64_t low, high;      // all addresses lie in [low, high)
} words;

/* 1: the lane's read lies in an array, and is one that a GPU can make. */
static int collect_lane(words *k, uint64_t address, unsigned size)
{
    const dls_check_array *a = dls_check_array_at(address);
    if (size < 4 || address % size || !a || address - a->start + size > a->bytes)
        return 0;
    for (uint64_t at = address; at < address + size; at += 4)
        is_word[at % ROOM / 4] = 1;
    k->low = address < k->low ? address : k->low;
    k->high = address + size > k->high ? address + size : k->high;
    return 1;
}

static int collect(words *k, const dls_probe_phrase *f)
{
    uint64_t address[LANES];
    dls_probe_request r;
    int good = 1;
    *k = (words){.low = UINT64_MAX};
    for (unsigned i = 0; i < f->quiet; i++) {
        dls_probe_quiet(f, i, &r, address);
        for (uint32_t rest = r.kind <= DLS_PROBE_WRITE ? r.mask : 0; rest && good;
             rest &= rest - 1)
            good = collect_lane(k, address[__builtin_ctz(rest)], r.size);
    }
    return good && k->high - k->low <= ROOM;
}
/* cut the words into runs */
/* Neighbouring words in one array and one chunk. */
typedef struct run {
    uint64_t start;
    unsigned words;
    const dls_check_array *array;
} run;

typedef struct extent {
    unsigned count;          // 0: its accesses are looked at one by one
    run run[];
} extent;

/* Cuts words off from *at on; 0: there are none below `end`. */
static int next_run(uint64_t *at, uint64_t end, run *out)
{
    while (*at < end && !is_word[*at % ROOM / 4])
        *at += 4;
    if (*at >= end)
        return 0;
    const dls_check_array *a = dls_check_array_at(*at);
    *out = (run){.start = *at, .array = a};
    uint64_t limit = (*at / DLS_CHUNK + 1) * DLS_CHUNK;
    if (a->start + a->bytes < limit)
        limit = a->start + a->bytes;
    for (; *at < limit && is_word[*at % ROOM / 4]; *at += 4)
        out->words++;
    return 1;
}
static extent *extent_of(const dls_probe_phrase *f)
{
    words k;
    run one;
    int good = collect(&k, f);
    unsigned n = 0;
    for (uint64_t at = k.low; good && next_run(&at, k.high, &one);)
        n++;
    extent *r = malloc(sizeof *r + n * sizeof r->run[0]);
    if (r) {
        r->count = 0;
        for (uint64_t at = k.low; good && next_run(&at, k.high, &one);)
            r->run[r->count++] = one;
    }
    for (uint64_t at = k.low; at < k.high && at - k.low < ROOM; at += 4)
        is_word[at % ROOM / 4] = 0;
    return r;
}
/* follow an epoch */
enum { MOST = 128, EPOCHS = 64 };

/* The phrases since the last barrier, and what is known of such a sequence. */
static struct epoch {
    unsigned count, number[MOST];
} now, clean[EPOCHS];                       // clean: nothing was found in those
static const dls_probe_phrase *unnoted[MOST]; // the last dls_checker.unnoted of now
static const struct epoch *path;            // a clean one that began like this
static unsigned coming, writes;             // requests of a phrase that is handed over;
static int foreign;                         // writes unnoted; other things happened
static unsigned long findings;

static struct epoch *clean_of(unsigned first) { return &clean[first % EPOCHS]; }

void dls_check_epoch_ended(int at_barrier)
{
    if (at_barrier && now.count && !path && !foreign && findings == dls_checker.findings)
        *clean_of(now.number[0]) = now;
    now.count = dls_checker.unnoted = coming = writes = 0;
    foreign = 0;
    path = NULL;
    findings = dls_checker.findings;
}
/* 1: a clean epoch had the same phrases up to this one. */
static int follow(const dls_probe_phrase *f)
{
    if (now.count == 0 && !foreign)
        path = clean_of(f->number);
    if (path && (now.count >= path->count || path->number[now.count] != f->number))
        path = NULL;
    foreign |= now.count == MOST || coming != 0;
    if (!foreign)
        now.number[now.count++] = f->number;
    return path != NULL;
}

/* A request that no quiet phrase stands for. */
void dls_check_shared_request(const dls_probe_request *q)
{
    (void)q;
    if (coming) {
        coming--;
        return;
    }
    foreign = 1;
    dls_check_note_phrases();
}

void dls_check_ordered_inside(void)
{
    foreign = 1;
    dls_check_note_phrases();
}
/* look at a phrase */
/* Have all words been written, by no atomic operation, and before the last barrier? */
static int is_in_order(const run *r)
{
    const dls_check_array *a = r->array;
    const dls_chunk *c = dls_check_shared_chunk(r->start);
    if (a->since != dls_checker.first || r->start - a->start + 4 * r->words > a->bytes ||
        r->start < a->start || !c->w || !c->r || c->shift != 2)
        return 0;
    const dls_record *w = c->w + r->start % DLS_CHUNK / 4;
    uint32_t first = dls_checker.first, span = dls_checker.bar - first;
    uint64_t bad = 0;
    for (unsigned i = 0; i < r->words; i++)
        bad |= (uint64_t)(((w[i] - first) & 0xffffffff) >= span) |
               (w[i] & DLS_RECORD_ATOMIC);
    return !bad;
}
static int all_in_order(dls_probe_phrase *f)
{
    extent **r = (extent **)&f->slot[dls_checker.slot];
    if (!*r && !(*r = extent_of(f)))
        return 0;
    for (unsigned i = 0; i < (*r)->count; i++)
        if (!is_in_order(&(*r)->run[i]))
            return 0;
    return (*r)->count != 0;
}

int dls_check_again(dls_probe_phrase *f)
{
    if (!f->shared)
        return 1;
    int known = follow(f), alone = f->writes == 0 && writes == 0;
    coming = 0;
    if ((known || alone) && dls_checker.unnoted < MOST && all_in_order(f)) {
        unnoted[dls_checker.unnoted++] = f;
        writes += f->writes;
        return 1;
    }
    path = NULL;
    dls_check_note_phrases();
    coming = f->shared;
    return 0;
}
/* note the accesses of phrases */
void dls_check_note_phrases(void)
{
    uint64_t address[LANES];
    dls_probe_request r;
    unsigned n = dls_checker.unnoted, later = coming;
    dls_checker.unnoted = writes = 0;
    for (unsigned k = 0; k < n; k++)
        for (unsigned i = 0; i < unnoted[k]->quiet; i++) {
            dls_probe_quiet(unnoted[k], i, &r, address);
            coming = 1;
            if (r.kind <= DLS_PROBE_WRITE)
                dls_check_request(&r);
        }
    coming = later;
}
