/* code/vgpu/check_words.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* The short path of the checker: aligned reads and writes of whole words. */
#include "vgpu/check_look.h"

#include <string.h>

/* open a window */
/* The units that the lanes of a request may touch without a second look. */
typedef struct window {
    uint64_t start, bytes;  // valid addresses, inside of one chunk
    dls_record *w, (*r)[2];
} window;

static const dls_check_array *find_array(dls_check_site *s, uint64_t address)
{
    const dls_check_array *a = s->array;
    if (!a || a->since != dls_checker.first || address - a->start >= a->bytes)
        s->array = a = dls_check_array_at(address);
    return a && address - a->start < a->bytes ? a : NULL;
}

static int open_window(window *v, int shared, dls_check_site *s, uint64_t address)
{
    uint64_t base = address & ~(uint64_t)(DLS_CHUNK - 1), end = base + DLS_CHUNK;
    const dls_chunk *c = shared ? dls_check_shared_chunk(address)
                                : dls_check_chunk(address);
    v->start = base;
    if (!c || !c->w || !c->r || c->shift != 2)
        return 0;
    if (shared) {
        const dls_check_array *a = find_array(s, address);
        if (!a)
            return 0;
        v->start = a->start > base ? a->start : base;
        end = a->start + a->bytes < end ? a->start + a->bytes : end;
    } else {
        end = base + c->valid;
    }
    v->bytes = end - v->start;
    v->w = c->w + (v->start - base) / 4;
    v->r = c->r + (v->start - base) / 4;
    return v->start % 4 == 0 && address < end;
}
/* list the words of a shape */
/* The first two lanes that touch each word; 0: the words are not a shape for a list. */
static int find_readers(dls_check_site *s, const dls_probe_request *q,
                        uint8_t lanes[][2], uint8_t *readers)
{
    uint64_t first = q->address[__builtin_ctz(q->mask)], low = first, high = first;
    for (uint32_t rest = q->mask; rest; rest &= rest - 1) {
        uint64_t address = q->address[__builtin_ctz(rest)];
        low = address < low ? address : low;
        high = address > high ? address : high;
    }
    if (high - low > 4 * DLS_WORDS_SPAN - q->size)
        return 0;
    s->low = low - first;
    s->span = (unsigned)(high - low + q->size) / 4;
    for (uint32_t rest = q->mask; rest; rest &= rest - 1) {
        uint8_t lane = (uint8_t)__builtin_ctz(rest);
        unsigned at = (unsigned)(q->address[lane] - low);
        if (at % q->size)
            return 0;
        for (unsigned w = at / 4; w < (at + q->size) / 4; w++)
            if (readers[w] < 2)
                lanes[w][readers[w]++] = lane;
    }
    return 1;
}

static void list_words(dls_check_site *s, const dls_probe_request *q)
{
    uint8_t lanes[DLS_WORDS_SPAN][2], readers[DLS_WORDS_SPAN] = {0};
    s->known = 1;
    s->size = q->size;
    s->count = s->runs = s->common = 0;
    if (!find_readers(s, q, lanes, readers))
        return;
    for (unsigned w = 0; w < s->span; w++) {
        if (!readers[w])
            continue;
        if (w == 0 || !readers[w - 1])
            s->run[s->runs++] = (struct dls_check_run){(uint8_t)w, 0};
        s->run[s->runs - 1].words++;
        s->who[s->count][0] = (uint64_t)lanes[w][0] << 32;
        s->who[s->count++][1] = (uint64_t)lanes[w][readers[w] - 1] << 32;
        s->common += readers[w] > 1;
    }
}
/* compare a run of words */
enum { UNSAFE = 1, NEWS = 2 };

/* UNSAFE: the last write is not certainly in order, or atomic. NEWS: a reader is old, and
 * makes room for a new one. */
typedef uint64_t eight __attribute__((vector_size(64), aligned(8), may_alias));

static inline eight before(eight r, uint64_t from, uint64_t to)
{
    return (eight)(((r - from) & 0xffffffff) < ((to - from) & 0xffffffff));
}

static inline eight compare_eight(const look *l, const dls_record *w, const dls_record *r,
                                  int write)
{
    eight a = *(const eight *)w, b = *(const eight *)r, c = *(const eight *)(r + 8);
    eight safe = before(a, write ? 0 : l->low, l->floor) | before(a, l->first, l->bar);
    eight one = before(b, 0, l->floor) | before(b, l->first, l->bar);
    eight two = before(c, 0, l->floor) | before(c, l->first, l->bar);
    if (write)
        return ~(safe & one & two) & UNSAFE;
    return ((~safe | a >> 62) & UNSAFE) | ((one | two) & NEWS);
}

static inline uint64_t compare_one(const look *l, dls_record w, const dls_record r[2],
                                   int write)
{
    int one = is_old(l, r[0]), two = is_old(l, r[1]);
    if (write)
        return is_old(l, w) & one & two ? 0 : UNSAFE;
    return (is_safe(l, w) & !is_atomic(w) ? 0 : UNSAFE) | (one | two ? NEWS : 0);
}

static inline uint64_t compare(const look *l, const dls_record *w,
                               const dls_record (*r)[2], unsigned n, int write)
{
    eight all = {0};
    uint64_t found = 0;
    if (n < 8) {
        for (unsigned i = 0; i < n; i++)
            found |= compare_one(l, w[i], r[i], write);
        return found;
    }
    for (unsigned i = 0; i < n; i += 8) {
        unsigned at = i < n - 8 ? i : n - 8;
        all |= compare_eight(l, w + at, r[at], write);
    }
    for (int i = 0; i < 8; i++)
        found |= all[i];
    return found;
}
/* touch the words of a shape */
static inline void note_reader(const look *l, dls_record r[2], dls_record mine)
{
    if (is_old(l, r[0]))
        r[0] = mine;
    else if (is_old(l, r[1]) && dls_thread_of(r[0]) != dls_thread_of(mine))
        r[1] = mine;
    else if (is_old(l, r[1]))
        r[0] = mine;
}

/* Four words with one reader each: the same choice as above, in vectors. */
static inline void note_four_readers(const look *l, dls_record *r, const uint64_t *who,
                                     dls_record mine)
{
    typedef int64_t places __attribute__((vector_size(64)));
    const places one = {0, 0, 2, 2, 4, 4, 6, 6}, two = {1, 1, 3, 3, 5, 5, 7, 7};
    const places first = {-1, 0, -1, 0, -1, 0, -1, 0};
    eight records = *(eight *)r, readers = mine + *(const eight *)who;
    places old = (places)(before(records, 0, l->floor) |
                          before(records, l->first, l->bar));
    places old1 = __builtin_shuffle(old, one), old2 = __builtin_shuffle(old, two);
    eight threads = __builtin_shuffle(records, one) ^ readers;
    places same = (threads >> 32 & 1023) == 0;
    places change = (first & (old1 | (old2 & same))) | (~first & ~old1 & old2 & ~same);
    *(eight *)r = (readers & (eight)change) | (records & ~(eight)change);
}
static inline void note_readers(const look *l, const dls_check_site *s,
                                dls_record (*r)[2], dls_record mine)
{
    for (unsigned k = 0, i = 0; k < s->runs; k++) {
        unsigned at = s->run[k].word, end = at + s->run[k].words;
        for (; !s->common && at + 4 <= end; at += 4, i += 4)
            note_four_readers(l, r[at], s->who[i], mine);
        for (; at < end; at++, i++) {
            note_reader(l, r[at], mine + s->who[i][0]);
            note_reader(l, r[at], mine + s->who[i][1]);
        }
    }
}

static inline void note_writers(const dls_check_site *s, dls_record *w,
                                dls_record (*r)[2], dls_record mine)
{
    for (unsigned k = 0, i = 0; k < s->runs; k++) {
        unsigned from = s->run[k].word, n = s->run[k].words;
        for (unsigned j = 0; j < n; j++, i++)
            w[from + j] = mine + s->who[i][0];
        memset(r[from], 0, n * sizeof r[0]);
    }
}
/* 1: all words are in order, and noted. 0: nothing was done. */
static inline int touch_shape(const look *l, const window *v, const dls_check_site *s,
                              uint64_t first, dls_record mine)
{
    uint64_t low = first + s->low, at = low - v->start, found = 0;
    int write = l->access.write;
    if (low & (s->size - 1) || at >= v->bytes || 4 * s->span > v->bytes - at)
        return 0;
    dls_record *w = v->w + at / 4, (*r)[2] = v->r + at / 4;
    for (unsigned i = 0; i < s->runs; i++) {
        unsigned from = s->run[i].word, n = s->run[i].words;
        found |= write ? compare(l, w + from, r + from, n, 1)
                       : compare(l, w + from, r + from, n, 0);
    }
    if (found & UNSAFE || (write && s->common))
        return 0;
    if (write)
        note_writers(s, w, r, mine);
    else if (found & NEWS)
        note_readers(l, s, r, mine);
    return 1;
}
/* read and write lane by lane */
/* 1: the read of unit i is in order, and noted if it has to be. */
static inline int quick_read(const look *l, const window *v, uint64_t i, dls_record mine)
{
    if (!is_safe(l, v->w[i]) || is_atomic(v->w[i]))
        return 0;
    note_reader(l, v->r[i], mine);
    return 1;
}

static inline int quick_write(const look *l, const window *v, uint64_t i, dls_record mine)
{
    dls_record *r = v->r[i];
    if (!is_old(l, v->w[i]) || !is_old(l, r[0]) || !is_old(l, r[1]))
        return 0;
    v->w[i] = mine;
    r[0] = r[1] = 0;
    return 1;
}

static uint32_t look_at_lanes(const dls_probe_request *q, const look *l, const window *v,
                              dls_record mine)
{
    uint32_t left = 0;
    unsigned size = q->size, words = size / 4;
    for (uint32_t rest = q->mask; rest; rest &= rest - 1) {
        unsigned lane = (unsigned)__builtin_ctz(rest);
        uint64_t at = q->address[lane] - v->start, i = at / 4;
        int good = at + size <= v->bytes && at < v->bytes &&
                   (q->address[lane] & (size - 1)) == 0;
        dls_record record = mine + ((uint64_t)lane << 32);
        for (unsigned k = 0; k < words && good; k++)
            good = l->access.write ? quick_write(l, v, i + k, record)
                                   : quick_read(l, v, i + k, record);
        left |= (uint32_t)!good << lane;
    }
    return left;
}
/* look quickly at whole words */
uint32_t dls_check_look_quickly(const dls_probe_request *q, const look *l,
                                dls_check_site *s)
{
    window v;
    uint64_t first = q->address[__builtin_ctz(q->mask)];
    dls_record mine = dls_record_of(dls_checker.now, q->warp * 32, l->access.place);
    if (!open_window(&v, q->space == DLS_PROBE_SHARED, s, first))
        return q->mask;
    if (q->same) {
        if (!s->known || s->size != q->size)
            list_words(s, q);
        if (s->runs && touch_shape(l, &v, s, first, mine))
            return 0;
    }
    return look_at_lanes(q, l, &v, mine);
}
