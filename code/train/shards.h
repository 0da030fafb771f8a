/* code/train/shards.h: from chapters/04-data-parallelism-zero-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * A checkpoint in as many files as ranks: ranges of the flat model, keyed by index, so
 * that any number of ranks in any mode can read them. Whole or not at all.
 */
#ifndef DLS_TRAIN_SHARDS_H
#define DLS_TRAIN_SHARDS_H
#include <limits.h>

#include "comm/comm.h"
#include "parallel/data/zero.h"
#include "train/checkpoint.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define sharded checkpoints */
/* Arrays of a rank's slices, host, accumulator type: slice i at slices[i].at of each. */
typedef struct dls_shard_state {
    const dls_zero_slice *slices;   /* [n] */
    int n;
    void *values, *m, *v;
    const void *extra;              /* what else this rank keeps: */
    size_t extra_bytes;             /*   of a communication hook */
} dls_shard_state;

typedef struct dls_shard_file { uint64_t bytes, head, hash; } dls_shard_file;

/* A sharded checkpoint that was opened. */
typedef struct dls_shards {
    dls_checkpoint about;           /* all but values, m, v */
    int files;
    dls_shard_file *file;           /* [files] whole bytes; of the head, and its hash */
    char path[PATH_MAX];            /* its directory */
    uint64_t bytes_read;            /* of its files, so far */
} dls_shards;

/* declare sharded checkpoints */
/* Collective. `about` gives step, dtype, elements, settings and layout. Ranks without
 * slices give n = 0. Keeps the newest two. An error on one rank is one on all. */
dls_status dls_shards_save(const char *directory, dls_comm *comm,
                           const dls_checkpoint *about, const dls_shard_state *mine);

/* Reads and verifies a manifest; a file's parts are verified when they are read. */
dls_status dls_shards_open(const char *path, dls_shards *out);

/* The newest of a directory before step `before` whose manifest and heads are good and
 * whose files have their lengths; files is 0 if there is none. */
dls_status dls_shards_find(const char *directory, int64_t before, dls_shards *out);

/* Fills the arrays of `mine`, reading heads and the ranges that it shares. DLS_ERR_INPUT:
 * something of it missing or damaged, or elements that no file has. */
dls_status dls_shards_read(dls_shards *s, const dls_shard_state *mine);

/* What else file i keeps, malloc'ed; NULL and 0 bytes: nothing. */
dls_status dls_shards_extra(dls_shards *s, int i, char **data, size_t *bytes);

void dls_shards_close(dls_shards *s);

/* Removes all but the newest `keep`. */
dls_status dls_shards_prune(const char *directory, int keep);

/* The path of a step's directory. */
void dls_shards_path(char *path, size_t size, const char *directory, int64_t step);
#ifdef __cplusplus
}
#endif
#endif
