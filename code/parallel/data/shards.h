/* code/parallel/data/shards.h: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Which rank owns which elements of a model: a pure function of the parameters.
 *
 *   unit u      | slice 0 | slice 1 | ... | slice N-1 .|   N slices, the last ones padded
 *   rank r's shard   | slice r of unit 0 | slice r of unit 1 | ... |                   */
#ifndef DLS_PARALLEL_DATA_SHARDS_H
#define DLS_PARALLEL_DATA_SHARDS_H

#include "layers/param.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the shards */
typedef struct dls_shard_unit {
    int param, params;   // parameters param ... param + params - 1
    size_t first, count; // elements of the flat model
    int expert, ways;    // 1: of experts; ranks that share it
    size_t slice;        // elements of each rank: count / ways, rounded up
    size_t at, whole;    // of the slice in a rank's shard; of it all in a padded model
    int held;            // 1: another unit reads one of its parameters (tied weights)
} dls_shard_unit;

/* Fills units (room for n) by the parameters' unit numbers. expert_ways: over so many
 * ranks units of experts are cut; 0: over `ways`, too. DLS_ERR_INPUT: no parameters, or
 * units that are not stretches in ascending order. */
dls_status dls_shard_plan(const dls_param *params, int n, int ways, int expert_ways,
                          dls_shard_unit *units, int *count);

/* The elements of one rank's shard, and of the whole model, padding included. */
size_t dls_shard_elements(const dls_shard_unit *units, int count);
size_t dls_shard_whole(const dls_shard_unit *units, int count);

/* Numbers units anew so that experts are in units of their own. first[u], if not NULL:
 * the new number of what was unit u, which is now first[u] ... first[u + 1] - 1; room for
 * n + 2. */
void dls_shard_part_experts(dls_param *params, int n, int *first);

/* The slice of a rank as elements of the flat model, without padding. */
void dls_shard_slice(const dls_shard_unit *u, int rank, size_t *first, size_t *count);

#ifdef __cplusplus
}
#endif
#endif
