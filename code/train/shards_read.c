/* code/train/shards_read.c: from chapters/04-data-parallelism-zero-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/* Reading sharded checkpoints: the manifest, heads, and of the rest what is wanted. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "train/shards_private.h"

/* open a sharded checkpoint */
static dls_status bad_manifest(const char *path, const char *why)
{
    return DLS_FAIL(DLS_ERR_INPUT, "%s/manifest: %s", path, why);
}

static dls_status check_manifest(const char *path, const char *text, size_t size)
{
    enum { LAST = sizeof "hash 0123456789abcdef\n" - 1 };
    unsigned long long hash;
    if (size < LAST || sscanf(text + size - LAST, "hash %16llx\n", &hash) != 1)
        return bad_manifest(path, "cut short");
    if (hash != dls_hash64(text, size - LAST))
        return bad_manifest(path, "damaged: it does not match its checksum");
    return DLS_OK;
}

/* A text of "NAME LENGTH\n", then so many bytes and a newline; returns what follows. */
static char *take_text(char *at, const char *format, const char **text)
{
    size_t n;
    int used = 0;
    if (!at || sscanf(at, format, &n, &used) != 1 || used == 0 || n > strlen(at + used))
        return NULL;
    *text = at + used;
    at += (size_t)used + n;
    if (*at != '\n')
        return NULL;
    *at = 0;
    return at + 1;
}

static char *take_files(char *at, dls_shards *s)
{
    for (int i = 0; at && i < s->files; i++) {
        unsigned long long bytes, head, hash;
        int used = 0;
        if (sscanf(at, "file %llu %llu %llx\n%n", &bytes, &head, &hash, &used) != 3
            || used == 0)
            return NULL;
        s->file[i] = (dls_shard_file){bytes, head, hash};
        at += used;
    }
    return at;
}

static dls_status parse_manifest(dls_shards *s)
{
    long long step;
    char dtype[8], *at = s->about.file;
    int used = 0;
    if (sscanf(at, "dls shards 2\nstep %lld\ndtype %7s\nelements %zu\nfiles %d\n%n",
               &step, dtype, &s->about.elements, &s->files, &used) != 4 || used == 0
        || s->files < 1 || s->files > 1 << 20)
        return bad_manifest(s->path, "not a manifest of this version");
    s->about.step = step;
    DLS_TRY(dls_dtype_parse(dtype, &s->about.dtype));
    s->file = calloc((size_t)s->files, sizeof *s->file);
    if (!s->file)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a list of %d files", s->files);
    at = take_files(at + used, s);
    at = take_text(at, "settings %zu\n%n", &s->about.settings);
    at = take_text(at, "layout %zu\n%n", &s->about.layout);
    if (!at)
        return bad_manifest(s->path, "contradicts itself");
    return dls_transformer_config_parse(&s->about.model, s->path, s->about.settings);
}

dls_status dls_shards_open(const char *path, dls_shards *out)
{
    char name[SHARD_PATH];
    size_t size;
    *out = (dls_shards){0};
    snprintf(out->path, sizeof out->path, "%s", path);
    snprintf(name, sizeof name, "%s/manifest", path);
    DLS_TRY(dls_file_read(name, &out->about.file, &size));
    dls_status s = check_manifest(path, out->about.file, size);
    if (s == DLS_OK)
        s = parse_manifest(out);
    if (s != DLS_OK)
        dls_shards_close(out);
    return s;
}

void dls_shards_close(dls_shards *s)
{
    dls_checkpoint_free(&s->about);
    free(s->file);
    *s = (dls_shards){0};
}

/* read the head of a shard */
typedef struct part {
    char path[SHARD_PATH];
    int fd;
    shard_head *head;
    uint64_t elements;          // in each of the three arrays
} part;

static dls_status bad_part(const part *p, const char *why)
{
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %s", p->path, why);
}

static dls_status read_at(dls_shards *s, const part *p, uint64_t at, void *to,
                          size_t bytes)
{
    for (size_t got = 0; got < bytes;) {
        ssize_t n = pread(p->fd, (char *)to + got, bytes - got, (off_t)(at + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return DLS_FAIL(DLS_ERR_IO, "%s: cannot read: %s", p->path,
                            n ? strerror(errno) : "it ends too early");
        got += (size_t)n;
    }
    s->bytes_read += bytes;
    return DLS_OK;
}

static int head_fits(part *p, const dls_shard_file *f, size_t size)
{
    const shard_head *h = p->head;
    uint64_t room = f->bytes / (3 * size);
    int fits = f->head == sizeof *h + h->n * sizeof *h->range
        && h->n <= f->head / sizeof *h->range && h->extra_bytes <= f->bytes;
    p->elements = 0;
    for (uint64_t k = 0; fits && k < h->n; k++) {
        fits = h->range[k].count <= room - p->elements;
        p->elements += fits ? h->range[k].count : 0;
    }
    return fits && f->head + 3 * p->elements * size + h->extra_bytes == f->bytes;
}

static dls_status read_head(dls_shards *s, const dls_shard_file *f, part *p)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(s->about.dtype));
    struct stat is;
    if (fstat(p->fd, &is) != 0 || (uint64_t)is.st_size != f->bytes)
        return bad_part(p, "has another length than its manifest says");
    if (f->head < sizeof *p->head || f->head > f->bytes)
        return bad_part(p, "contradicts its manifest");
    p->head = malloc(f->head);
    if (!p->head)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the head of %s", p->path);
    DLS_TRY(read_at(s, p, 0, p->head, f->head));
    if (dls_hash64(p->head, f->head) != f->hash)
        return bad_part(p, "damaged: its head does not match its checksum");
    return head_fits(p, f, size) ? DLS_OK : bad_part(p, "contradicts itself");
}

static void close_part(part *p)
{
    if (p->fd >= 0)
        close(p->fd);
    free(p->head);
}

/* Closed again after an error. */
static dls_status open_part(dls_shards *s, int i, part *p)
{
    *p = (part){.fd = -1};
    shards_file_path(p->path, s->path, i);
    p->fd = open(p->path, O_RDONLY | O_CLOEXEC);
    dls_status status = p->fd >= 0 ? read_head(s, &s->file[i], p)
        : DLS_FAIL(DLS_ERR_INPUT, "%s: %s", p->path, strerror(errno));
    if (status != DLS_OK)
        close_part(p);
    return status;
}

/* read the shards */
/* The slices by their places in the model: a range meets neighbours only. */
typedef struct sorted_slices {
    const dls_shard_state *mine;
    int *order;                 /* [n] */
    size_t *reach;              /* [n] where this one and all before it end: copies of a
                                   tied table overlap */
} sorted_slices;

static int by_place(const void *a, const void *b, void *slices)
{
    const dls_zero_slice *s = slices;
    size_t x = s[*(const int *)a].first, y = s[*(const int *)b].first;
    return (x > y) - (x < y);
}

static dls_status sort_slices(const dls_shard_state *mine, sorted_slices *out)
{
    size_t n = (size_t)mine->n, reach = 0;
    *out = (sorted_slices){mine, malloc((n + 1) * sizeof(int)),
                           malloc((n + 1) * sizeof(size_t))};
    if (!out->order || !out->reach)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to sort %zu slices", n);
    for (size_t i = 0; i < n; i++)
        out->order[i] = (int)i;
    qsort_r(out->order, n, sizeof(int), by_place, (void *)mine->slices);
    for (size_t i = 0; i < n; i++) {
        const dls_zero_slice *s = &mine->slices[out->order[i]];
        reach = s->first + s->count > reach ? s->first + s->count : reach;
        out->reach[i] = reach;
    }
    return DLS_OK;
}

/* All slices before this one, in this order, end at `at` or earlier. */
static int first_behind(const sorted_slices *q, size_t at)
{
    int low = 0, high = q->mine->n;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (q->reach[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Copies what a range, whose elements lie at `from`, shares with the slices; returns how
 * many elements that are. NULL: only counts. */
static size_t take_range(const sorted_slices *q, const shard_range *r, void *to,
                         const char *from, size_t size)
{
    size_t taken = 0, end = r->first + r->count;
    for (int i = first_behind(q, r->first); i < q->mine->n; i++) {
        const dls_zero_slice *s = &q->mine->slices[q->order[i]];
        size_t a = r->first > s->first ? r->first : s->first;
        size_t b = end < s->first + s->count ? end : s->first + s->count;
        if (s->first >= end)
            break;
        if (from && a < b)
            memcpy((char *)to + (s->at + a - s->first) * size,
                   from + (a - r->first) * size, (b - a) * size);
        taken += a < b ? b - a : 0;
    }
    return taken;
}

/* Range k of the part, `at` elements into each array. */
static dls_status read_range(dls_shards *s, const part *p, uint64_t k, uint64_t at,
                             const sorted_slices *q, char *buffer)
{
    const shard_range *r = &p->head->range[k];
    size_t size = dls_dtype_size(dls_dtype_accumulator(s->about.dtype));
    size_t bytes = r->count * size, head = sizeof *p->head + p->head->n * sizeof *r;
    void *to[] = {q->mine->values, q->mine->m, q->mine->v};
    for (uint64_t a = 0; a < 3; a++) {
        DLS_TRY(read_at(s, p, head + (a * p->elements + at) * size, buffer, bytes));
        if (dls_hash64(buffer, bytes) != r->hash[a])
            return bad_part(p, "damaged: a range does not match its checksum");
        take_range(q, r, to[a], buffer, size);
    }
    return DLS_OK;
}

static dls_status read_part(dls_shards *s, const part *p, const sorted_slices *q,
                            size_t *taken)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(s->about.dtype));
    dls_status status = DLS_OK;
    uint64_t at = 0;
    char *buffer = malloc(p->elements * size + 1);
    if (!buffer)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to read %s", p->path);
    for (uint64_t k = 0; status == DLS_OK && k < p->head->n; k++) {
        size_t shared = take_range(q, &p->head->range[k], NULL, NULL, size);
        if (shared > 0)
            status = read_range(s, p, k, at, q, buffer);
        at += p->head->range[k].count;
        *taken += shared;
    }
    free(buffer);
    return status;
}

static dls_status read_parts(dls_shards *s, const sorted_slices *q, size_t *taken)
{
    part p;
    for (int i = 0; i < s->files; i++) {
        DLS_TRY(open_part(s, i, &p));
        dls_status status = read_part(s, &p, q, taken);
        close_part(&p);
        DLS_TRY(status);
    }
    return DLS_OK;
}

dls_status dls_shards_read(dls_shards *s, const dls_shard_state *mine)
{
    size_t taken = 0, wanted = 0;
    sorted_slices q;
    dls_status status = sort_slices(mine, &q);
    if (status == DLS_OK)
        status = read_parts(s, &q, &taken);
    free(q.order);
    free(q.reach);
    DLS_TRY(status);
    for (int i = 0; i < mine->n; i++)
        wanted += mine->slices[i].count;
    if (taken == wanted)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %zu of the %zu elements of this rank are in its "
                    "files", s->path, taken, wanted);
}

dls_status dls_shards_extra(dls_shards *s, int i, char **data, size_t *bytes)
{
    part p;
    *data = NULL;
    DLS_TRY(open_part(s, i, &p));
    dls_status status = DLS_OK;
    *bytes = p.head->extra_bytes;
    if (*bytes && !(*data = malloc(*bytes)))
        status = DLS_FAIL(DLS_ERR_MEMORY, "no memory to read %s", p.path);
    if (status == DLS_OK && *bytes)
        status = read_at(s, &p, s->file[i].bytes - *bytes, *data, *bytes);
    if (status == DLS_OK && dls_hash64(*data, *bytes) != p.head->extra_hash)
        status = bad_part(&p, "damaged: the state of its hook does not match its "
                          "checksum");
    close_part(&p);
    return status;
}

/* look after the shards */
static dls_status verify(const char *path, dls_shards *out)
{
    part p;
    DLS_TRY(dls_shards_open(path, out));
    dls_status s = DLS_OK;
    for (int i = 0; s == DLS_OK && i < out->files; i++) {
        s = open_part(out, i, &p);
        if (s == DLS_OK)
            close_part(&p);
    }
    if (s != DLS_OK)
        dls_shards_close(out);
    out->bytes_read = 0;
    return s;
}

dls_status dls_shards_find(const char *directory, int64_t before, dls_shards *out)
{
    char path[PATH_MAX];
    int64_t *steps;
    int n, i, found = 0;
    *out = (dls_shards){0};
    DLS_TRY(dls_checkpoint_steps(directory, "shards", &steps, &n));
    for (i = 0; i < n && !found; i++) {
        dls_shards_path(path, sizeof path, directory, steps[i]);
        if (steps[i] < before)
            found = verify(path, out) == DLS_OK;
        if (steps[i] < before && !found)
            dls_log(DLS_LOG_WARN, "%s; %s", dls_status_message(),
                    i + 1 < n ? "using the one before" : "there is no other");
    }
    free(steps);
    if (n > 0 && !found)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: none of its %d sharded checkpoints is good",
                        directory, n);
    return DLS_OK;
}
