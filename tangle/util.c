/*
 * util.c - memory, text, files, a map, and the edit distance.
 *
 * The arena: regions of at least 1 MiB chained together, given back by the end of the
 * process. A run lasts milliseconds and touches every text once; a smarter scheme would
 * only cost time.
 */
#include "tangle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

struct region {
    struct region *next;
    size_t used, size;
};
static struct region *regions;

static void out_of_memory(void)
{
    fputs("tangle: out of memory\n", stderr);
    exit(CLASS_IO);
}

void *keep(size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (!regions || regions->size - regions->used < size) {
        size_t room = size > (1u << 20) ? size : (1u << 20);
        struct region *r = calloc(1, sizeof *r + room + 16);
        if (!r)
            out_of_memory();
        r->size = room;
        r->next = regions;
        regions = r;
    }
    uintptr_t start = ((uintptr_t)(regions + 1) + 15) & ~(uintptr_t)15;
    void *p = (char *)start + regions->used;
    regions->used += size;
    return p;
}

char *keepf(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    char *made = NULL;
    if (vasprintf(&made, format, ap) < 0)
        out_of_memory();
    va_end(ap);
    char *kept = keep_text(slice_of(made));
    free(made);
    return kept;
}

char *keep_text(slice s)
{
    char *p = keep(s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    return p;
}

void *vec_room(void *at, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return at;
    *cap = *cap ? *cap * 2 : 8;
    void *grown = keep(*cap * size);
    if (n)
        memcpy(grown, at, n * size);
    return grown;
}

slice slice_of(const char *terminated)
{
    return (slice){terminated, strlen(terminated)};
}

bool same(slice a, slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool is(slice a, const char *literal)
{
    return same(a, slice_of(literal));
}

bool starts(slice a, const char *prefix)
{
    size_t n = strlen(prefix);
    return a.n >= n && memcmp(a.p, prefix, n) == 0;
}

slice trim(slice s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t' || s.p[s.n - 1] == '\r'))
        s.n--;
    return s;
}

int characters(const char *p, size_t n)
{
    int count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)p[i] & 0xc0) != 0x80;
    return count;
}

size_t utf8_length(const unsigned char *p, size_t n)
{
    static const struct {
        unsigned char low, high;
        size_t length;
    } lead[] = {{0x00, 0x7f, 1}, {0xc2, 0xdf, 2}, {0xe0, 0xef, 3}, {0xf0, 0xf4, 4}};
    size_t length = 0;
    for (size_t i = 0; i < 4; i++)
        if (p[0] >= lead[i].low && p[0] <= lead[i].high)
            length = lead[i].length;
    if (length == 0 || length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return length;
}

void add(text *t, const char *p, size_t n)
{
    if (t->n + n > t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 4096;
        while (cap < t->n + n)
            cap *= 2;
        char *grown = keep(cap);
        if (t->n)
            memcpy(grown, t->p, t->n);
        t->p = grown;
        t->cap = cap;
    }
    if (n)
        memcpy(t->p + t->n, p, n);
    t->n += n;
}

void addf(text *t, const char *format, ...)
{
    char small[512];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(small, sizeof small, format, ap);
    va_end(ap);
    if (n < (int)sizeof small) {
        add(t, small, n > 0 ? (size_t)n : 0);
        return;
    }
    char *large = keep((size_t)n + 1);
    va_start(ap, format);
    vsnprintf(large, (size_t)n + 1, format, ap);
    va_end(ap);
    add(t, large, (size_t)n);
}

slice text_slice(const text *t)
{
    return (slice){t->p ? t->p : "", t->n};
}

uint64_t hash_of(slice s)
{
    return XXH3_64bits(s.p, s.n);
}

/* Reads what the descriptor holds; a file that grows while we read is read up to its new
 * end. */
static int slurp_fd(int fd, size_t size, slice *out)
{
    char *p = keep(size + 1);
    size_t n = 0;
    for (;;) {
        ssize_t got = read(fd, p + n, size + 1 - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        n += (size_t)got;
        if (got == 0)
            break;
        if (n == size + 1) {
            char *grown = keep(2 * size + 2);
            memcpy(grown, p, n);
            p = grown;
            size = 2 * size + 1;
        }
    }
    *out = (slice){p, n};
    return 0;
}

int slurp(const char *path, slice *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno;
    struct stat st;
    int err = fstat(fd, &st) ? errno : 0;
    if (!err && !S_ISREG(st.st_mode))
        err = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    if (!err)
        err = slurp_fd(fd, (size_t)st.st_size, out);
    close(fd);
    return err;
}

slice *cut_lines(slice whole, int *count)
{
    size_t n = 0;
    const char *end = whole.p + whole.n;
    for (const char *p = whole.p; p < end; n++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        p = newline ? newline + 1 : end;
    }
    slice *line = keep((n + 1) * sizeof *line);
    size_t i = 0;
    for (const char *p = whole.p; p < end; i++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *stop = newline ? newline : end;
        line[i] = (slice){p, (size_t)(stop - p)};
        p = newline ? newline + 1 : end;
    }
    *count = (int)n;
    return line;
}

static struct map_slot *map_find(const map *m, slice key)
{
    size_t i = hash_of(key) & (m->cap - 1);
    while (m->slot[i].key.p && !same(m->slot[i].key, key))
        i = (i + 1) & (m->cap - 1);
    return &m->slot[i];
}

void *map_get(const map *m, slice key)
{
    return m->n ? map_find(m, key)->value : NULL;
}

void map_put(map *m, slice key, void *value)
{
    if (2 * m->n >= m->cap) {
        map grown = {keep((m->cap ? m->cap * 2 : 64) * sizeof *m->slot), m->n,
                     m->cap ? m->cap * 2 : 64};
        for (size_t i = 0; i < m->cap; i++)
            if (m->slot[i].key.p)
                *map_find(&grown, m->slot[i].key) = m->slot[i];
        *m = grown;
    }
    struct map_slot *s = map_find(m, key);
    m->n += !s->key.p;
    *s = (struct map_slot){key, value};
}

enum { LONGEST_WORD = 80 };

/* Damerau's distance in its restricted form: three rows of the table are enough. */
int edit_distance(slice a, slice b)
{
    if (a.n > LONGEST_WORD || b.n > LONGEST_WORD)
        return LONGEST_WORD;
    int row[3][LONGEST_WORD + 1];
    int *before = row[0], *last = row[1], *now = row[2];
    for (size_t j = 0; j <= b.n; j++)
        last[j] = (int)j;
    for (size_t i = 1; i <= a.n; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= b.n; j++) {
            int best = last[j - 1] + (a.p[i - 1] != b.p[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        int *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[b.n];
}

guess guess_for(slice word)
{
    int limit = (int)word.n / 3;
    return (guess){word, {NULL, 0}, (limit < 1 ? 1 : limit) + 1};
}

void guess_try(guess *g, slice candidate)
{
    size_t longer =
        g->word.n > candidate.n ? g->word.n - candidate.n : candidate.n - g->word.n;
    if ((int)longer >= g->distance)
        return;
    int d = edit_distance(g->word, candidate);
    if (d > 0 && d < g->distance) {
        g->distance = d;
        g->best = candidate;
    }
}
