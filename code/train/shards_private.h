/* code/train/shards_private.h: from chapters/04-data-parallelism-zero-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/* What is in a file of a sharded checkpoint; shared by its writer and its reader.
 *
 *     head | values, range after range | first moments | second moments | extra
 */
#ifndef DLS_TRAIN_SHARDS_PRIVATE_H
#define DLS_TRAIN_SHARDS_PRIVATE_H
#include "train/shards.h"

/* define the head of a shard */
typedef struct shard_range { uint64_t first, count, hash[3]; } shard_range;

typedef struct shard_head {
    uint64_t n, extra_bytes, extra_hash;
    shard_range range[];        /* [n] */
} shard_head;

enum { SHARD_PATH = PATH_MAX + 64 };

void shards_file_path(char path[SHARD_PATH], const char *directory, int rank);
#endif
