/* code/train/shards.c: from chapters/04-data-parallelism-zero-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Writing: each rank its file, rank 0 the manifest, then one rename. See
 * shards_private.h for what is in a file; the manifest is text that ends with its own
 * checksum. Reading: shards_read.c.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "train/shards_private.h"

/* name the shards */
void dls_shards_path(char *path, size_t size, const char *directory, int64_t step)
{
    snprintf(path, size, "%s/checkpoint-%08lld.shards", directory, (long long)step);
}

enum { PART_ROOM = PATH_MAX + 8 };

void shards_file_path(char path[SHARD_PATH], const char *directory, int rank)
{
    snprintf(path, SHARD_PATH, "%s/rank-%04d.dls", directory, rank);
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

/* The checksums of array k of the ranges, which lies packed at `from`. */
static void hash_ranges(shard_head *h, int k, const char *from, size_t size)
{
    for (uint64_t i = 0; i < h->n; i++) {
        h->range[i].hash[k] = dls_hash64(from, h->range[i].count * size);
        from += h->range[i].count * size;
    }
}

static void fill_head(shard_head *h, const dls_shard_state *s)
{
    h->n = (uint64_t)s->n;
    h->extra_bytes = s->extra_bytes;
    h->extra_hash = dls_hash64(s->extra, s->extra_bytes);
    for (int i = 0; i < s->n; i++) {
        h->range[i].first = s->slices[i].first;
        h->range[i].count = s->slices[i].count;
    }
}

/* The file's content, malloc'ed; NULL: no memory. */
static char *pack(const dls_shard_state *s, size_t size, dls_shard_file *is)
{
    const void *arrays[] = {s->values, s->m, s->v};
    is->head = sizeof(shard_head) + (size_t)s->n * sizeof(shard_range);
    is->bytes = is->head + 3 * elements_of(s) * size + s->extra_bytes;
    char *data = malloc(is->bytes), *to = data + is->head;
    shard_head *h = (shard_head *)data;
    if (!data)
        return NULL;
    fill_head(h, s);
    for (int k = 0; k < 3; k++) {
        char *from = to;
        to = pack_array(to, s, arrays[k], size);
        hash_ranges(h, k, from, size);
    }
    if (s->extra_bytes)
        memcpy(to, s->extra, s->extra_bytes);
    is->hash = dls_hash64(h, is->head);
    return data;
}

/* write the manifest */
static dls_status write_manifest(const char *directory, const dls_checkpoint *c,
                                 const dls_shard_file *files, int n)
{
    char path[SHARD_PATH], *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a manifest");
    fprintf(f, "dls shards 2\nstep %lld\ndtype %s\nelements %zu\nfiles %d\n",
            (long long)c->step, dls_dtype_name(c->dtype), c->elements, n);
    for (int i = 0; i < n; i++)
        fprintf(f, "file %llu %llu %016llx\n", (unsigned long long)files[i].bytes,
                (unsigned long long)files[i].head, (unsigned long long)files[i].hash);
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
    char path[SHARD_PATH];
    char *data = pack(mine, size, file);
    if (!data)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for a shard");
    shards_file_path(path, part, rank);
    dls_status s = dls_file_write(path, data, file->bytes);
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

/* prune the shards */
dls_status dls_shards_prune(const char *directory, int keep)
{
    char path[PATH_MAX];
    int64_t *steps;
    int n;
    dls_status s = dls_checkpoint_steps(directory, "shards", &steps, &n);
    for (int i = keep; s == DLS_OK && i < n; i++) {
        dls_shards_path(path, sizeof path, directory, steps[i]);
        s = remove_directory(path);
    }
    free(steps);
    return s;
}
