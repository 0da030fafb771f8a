/* code/train/shards.c: from chapters/04-data-parallelism-zero-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Writing: each rank its file, rank 0 the manifest, then one rename. A file is
 *
 *     number of ranges | (first, count) of each | values | first moments | second moments
 *
 * and the manifest is text that ends with its own checksum.
 */
#include "train/shards.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"

/* name the shards */
void dls_shards_path(char *path, size_t size, const char *directory, int64_t step)
{
    snprintf(path, size, "%s/checkpoint-%08lld.shards", directory, (long long)step);
}

enum { PART_ROOM = PATH_MAX + 8, PATH_ROOM = PATH_MAX + 64 };

static void file_path(char path[PATH_ROOM], const char *directory, int rank)
{
    snprintf(path, PATH_ROOM, "%s/rank-%04d.dls", directory, rank);
}

/* remove a directory of shards */
static dls_status remove_directory(const char *path)
{
    DIR *d = opendir(path);
    if (!d && errno == ENOENT)
        return DLS_OK;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        char file[PATH_MAX + 300];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.' && unlink(file) != 0 && errno != ENOENT) {
            closedir(d);
            return DLS_FAIL(DLS_ERR_IO, "%s: %s", file, strerror(errno));
        }
    }
    if (d)
        closedir(d);
    if (rmdir(path) != 0 && errno != ENOENT)
        return DLS_FAIL(DLS_ERR_IO, "%s: %s", path, strerror(errno));
    return DLS_OK;
}

/* pack a shard */
static size_t elements_of(const dls_shard_state *s)
{
    size_t n = 0;
    for (int i = 0; i < s->n; i++)
        n += s->slices[i].count;
    return n;
}

static char *pack_array(char *to, const dls_shard_state *s, const void *from, size_t size)
{
    for (int i = 0; i < s->n; i++) {
        size_t bytes = s->slices[i].count * size;
        memcpy(to, (const char *)from + s->slices[i].at * size, bytes);
        to += bytes;
    }
    return to;
}

/* The file's content, malloc'ed; NULL: no memory. */
static char *pack(const dls_shard_state *s, size_t size, size_t *bytes)
{
    uint64_t head[1 + 2 * (size_t)s->n];
    *bytes = sizeof head + 3 * elements_of(s) * size;
    char *data = malloc(*bytes), *to = data;
    if (!data)
        return NULL;
    head[0] = (uint64_t)s->n;
    for (int i = 0; i < s->n; i++) {
        head[1 + 2 * i] = s->slices[i].first;
        head[2 + 2 * i] = s->slices[i].count;
    }
    memcpy(to, head, sizeof head);
    to = pack_array(to + sizeof head, s, s->values, size);
    to = pack_array(to, s, s->m, size);
    pack_array(to, s, s->v, size);
    return data;
}

/* write the manifest */
static dls_status write_manifest(const char *directory, const dls_checkpoint *c,
                                 const dls_shard_file *files, int n)
{
    char path[PATH_ROOM], *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a manifest");
    fprintf(f, "dls shards 1\nstep %lld\ndtype %s\nelements %zu\nfiles %d\n",
            (long long)c->step, dls_dtype_name(c->dtype), c->elements, n);
    for (int i = 0; i < n; i++)
        fprintf(f, "file %llu %016llx\n", (unsigned long long)files[i].bytes,
                (unsigned long long)files[i].hash);
    fprintf(f, "settings %zu\n%s\nlayout %zu\n%s\n", strlen(c->settings), c->settings,
            strlen(c->layout), c->layout);
    fflush(f);
    fprintf(f, "hash %016llx\n", (unsigned long long)dls_hash64(text, size));
    snprintf(path, sizeof path, "%s/manifest", directory);
    dls_status s = fclose(f) == 0 ? dls_file_write(path, text, size)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for a manifest");
    free(text);
    return s;
}

/* put the shards in place */
static dls_status move(const char *from, const char *to)
{
    return rename(from, to) == 0 || errno == ENOENT ? DLS_OK
        : DLS_FAIL(DLS_ERR_IO, "%s: %s", to, strerror(errno));
}

static dls_status put_in_place(const char *part, const char *path)
{
    char old[PART_ROOM];
    snprintf(old, sizeof old, "%s.old", path);
    DLS_TRY(remove_directory(old));
    DLS_TRY(move(path, old));
    DLS_TRY(move(part, path));
    return remove_directory(old);
}

/* save the shards */
typedef struct outcome { dls_shard_file file; int64_t status; } outcome;

static dls_status write_shard(const char *part, int rank, const dls_shard_state *mine,
                              size_t size, dls_shard_file *file)
{
    char path[PATH_ROOM];
    size_t bytes;
    char *data = pack(mine, size, &bytes);
    if (!data)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for a shard");
    file_path(path, part, rank);
    *file = (dls_shard_file){bytes, dls_hash64(data, bytes)};
    dls_status s = dls_file_write(path, data, bytes);
    free(data);
    return s;
}

/* The same status on all ranks: the first that failed. */
static dls_status agree_on(dls_comm *comm, const outcome *mine, outcome *all)
{
    DLS_TRY(dls_comm_all_gather_host(comm, mine, sizeof *mine, all));
    for (int r = 0; r < dls_comm_size(comm); r++) {
        if (all[r].status != DLS_OK && r == dls_comm_rank(comm))
            return (dls_status)mine->status;    // its message is this rank's own
        if (all[r].status != DLS_OK)
            return DLS_FAIL((dls_status)all[r].status, "rank %d could not write its "
                            "part of a checkpoint", r);
    }
    return DLS_OK;
}

static dls_status finish_saving(const char *directory, const char *part,
                                const char *path, const dls_checkpoint *about,
                                const outcome *all, int world)
{
    dls_shard_file files[world];
    for (int r = 0; r < world; r++)
        files[r] = all[r].file;
    DLS_TRY(write_manifest(part, about, files, world));
    DLS_TRY(put_in_place(part, path));
    return dls_shards_prune(directory, 2);
}

dls_status dls_shards_save(const char *directory, dls_comm *comm,
                           const dls_checkpoint *about, const dls_shard_state *mine)
{
    int rank = dls_comm_rank(comm), world = dls_comm_size(comm);
    size_t size = dls_dtype_size(dls_dtype_accumulator(about->dtype));
    char path[PATH_MAX], part[PART_ROOM];
    outcome here = {0}, all[world];
    dls_shards_path(path, sizeof path, directory, about->step);
    snprintf(part, sizeof part, "%s.part", path);
    if (rank == 0) {
        here.status = remove_directory(part);
        if (here.status == DLS_OK)
            here.status = dls_file_mkdirs(part);
    }
    DLS_TRY(agree_on(comm, &here, all));
    here.status = write_shard(part, rank, mine, size, &here.file);
    DLS_TRY(agree_on(comm, &here, all));
    if (rank == 0)
        here.status = finish_saving(directory, part, path, about, all, world);
    return agree_on(comm, &here, all);
}

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
        unsigned long long bytes, hash;
        int used = 0;
        if (sscanf(at, "file %llu %llx\n%n", &bytes, &hash, &used) != 2 || used == 0)
            return NULL;
        s->file[i] = (dls_shard_file){bytes, hash};
        at += used;
    }
    return at;
}

static dls_status parse_manifest(dls_shards *s)
{
    long long step;
    char dtype[8], *at = s->about.file;
    int used = 0;
    if (sscanf(at, "dls shards 1\nstep %lld\ndtype %7s\nelements %zu\nfiles %d\n%n",
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
    char name[PATH_ROOM];
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

/* read the shards */
static dls_status load_file(const dls_shards *s, int i, char **data)
{
    char path[PATH_ROOM];
    size_t size;
    file_path(path, s->path, i);
    DLS_TRY(dls_file_read(path, data, &size));
    const char *why = size != s->file[i].bytes
        ? "has another length than its manifest says"
        : dls_hash64(*data, size) != s->file[i].hash
        ? "damaged: it does not match its checksum" : NULL;
    if (!why)
        return DLS_OK;
    free(*data);
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %s", path, why);
}

/* Copies what a range of a file, `count` elements from `first` at `from`, shares with
 * the slices. stride: bytes from one array of the file to the next. */
static size_t take_range(const dls_shard_state *mine, size_t first, size_t count,
                         const char *from, size_t stride, size_t size)
{
    void *to[] = {mine->values, mine->m, mine->v};
    size_t taken = 0;
    for (int i = 0; i < mine->n; i++) {
        const dls_zero_slice *s = &mine->slices[i];
        size_t a = first > s->first ? first : s->first;
        size_t b = first + count < s->first + s->count ? first + count
                                                       : s->first + s->count;
        for (int k = 0; k < 3 && a < b; k++)
            memcpy((char *)to[k] + (s->at + a - s->first) * size,
                   from + (size_t)k * stride + (a - first) * size, (b - a) * size);
        taken += a < b ? b - a : 0;
    }
    return taken;
}

static dls_status take_file(const dls_shards *s, int i, const char *data,
                            const dls_shard_state *mine, size_t *taken)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(s->about.dtype)), total = 0;
    const uint64_t *head = (const uint64_t *)data;
    size_t bytes = s->file[i].bytes, n = bytes >= 8 ? head[0] : SIZE_MAX;
    int fits = n <= (bytes - 8) / 16;
    for (size_t k = 0; fits && k < n; k++) {
        total += head[2 + 2 * k];
        fits = head[2 + 2 * k] <= bytes && total <= bytes;
    }
    if (!fits || 8 + 16 * n + 3 * total * size != bytes)
        return DLS_FAIL(DLS_ERR_INPUT, "%s/rank-%04d.dls: contradicts itself", s->path,
                        i);
    const char *from = data + 8 + 16 * n;
    for (size_t k = 0; k < n; k++) {
        *taken += take_range(mine, head[1 + 2 * k], head[2 + 2 * k], from, total * size,
                             size);
        from += head[2 + 2 * k] * size;
    }
    return DLS_OK;
}

dls_status dls_shards_read(const dls_shards *s, const dls_shard_state *mine)
{
    size_t taken = 0;
    for (int i = 0; i < s->files; i++) {
        char *data;
        DLS_TRY(load_file(s, i, &data));
        dls_status status = take_file(s, i, data, mine, &taken);
        free(data);
        DLS_TRY(status);
    }
    if (taken == elements_of(mine))
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %zu of the %zu elements of this rank are in its "
                    "files", s->path, taken, elements_of(mine));
}

/* look after the shards */
static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static int step_of_name(const char *name, int64_t *step)
{
    char again[64];
    long long n;
    if (sscanf(name, "checkpoint-%lld.shards", &n) != 1 || n < 0)
        return 0;
    snprintf(again, sizeof again, "checkpoint-%08lld.shards", n);
    *step = n;
    return strcmp(again, name) == 0;
}

/* The steps that have a directory, newest first; the caller frees. */
static dls_status list_steps(const char *directory, int64_t **steps, int *n)
{
    enum { MOST = 4096 };
    DIR *d = opendir(directory);
    *n = 0;
    *steps = malloc(MOST * sizeof **steps);
    if (!*steps && d)
        closedir(d);
    if (!*steps)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to list checkpoints");
    for (struct dirent *e; d && *n < MOST && (e = readdir(d)) != NULL;)
        *n += step_of_name(e->d_name, &(*steps)[*n]);
    if (d)
        closedir(d);
    if (*n > 1)
        qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return DLS_OK;
}

static dls_status verify(const char *path, dls_shards *out)
{
    DLS_TRY(dls_shards_open(path, out));
    dls_status s = dls_shards_read(out, &(dls_shard_state){0});
    if (s != DLS_OK)
        dls_shards_close(out);
    return s;
}

dls_status dls_shards_find(const char *directory, dls_shards *out)
{
    char path[PATH_MAX];
    int64_t *steps;
    int n, i;
    *out = (dls_shards){0};
    DLS_TRY(list_steps(directory, &steps, &n));
    for (i = 0; i < n; i++) {
        dls_shards_path(path, sizeof path, directory, steps[i]);
        if (verify(path, out) == DLS_OK)
            break;
        dls_log(DLS_LOG_WARN, "%s; %s", dls_status_message(),
                i + 1 < n ? "using the one before" : "there is no other");
    }
    free(steps);
    if (n > 0 && i == n)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: none of its %d sharded checkpoints is good",
                        directory, n);
    return DLS_OK;
}

dls_status dls_shards_prune(const char *directory, int keep)
{
    char path[PATH_MAX];
    int64_t *steps;
    int n;
    dls_status s = list_steps(directory, &steps, &n);
    for (int i = keep; s == DLS_OK && i < n; i++) {
        dls_shards_path(path, sizeof path, directory, steps[i]);
        s = remove_directory(path);
    }
    free(steps);
    return s;
}
