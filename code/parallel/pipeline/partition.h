/* code/parallel/pipeline/partition.h: from chapters/05-pipeline-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Where the stages of a model begin: stage s has units first[s] ... first[s + 1] - 1 of
 * a transformer (0 embedding, 1 ... L blocks, L + 1 norm and head).
 */
#ifndef DLS_PARALLEL_PIPELINE_PARTITION_H
#define DLS_PARALLEL_PIPELINE_PARTITION_H

#include "model/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the partition */
/* As many blocks in each stage as in any other, or one more or less; the embedding comes
 * with the first, the head with the last. first[stages + 1]. With fewer blocks than
 * stages the ends get stages of their own. DLS_ERR_INPUT: fewer units than stages. */
dls_status dls_partition_by_count(int layers, int stages, int *first);

/* The costs of the stages as equal as can be: no contiguous partition has a cheaper most
 * expensive stage. cost[layers + 2], not negative, in any unit. */
dls_status dls_partition_by_cost(const int64_t *cost, int layers, int stages, int *first);

/* units[stages] in each stage. DLS_ERR_INPUT: not all, or not one each. */
dls_status dls_partition_by_hand(const int64_t *units, int layers, int stages,
                                 int *first);

/* The operations per token of each unit's forward pass: cost[layers + 2]. */
void dls_partition_flops(const dls_transformer_config *c, int T, int64_t *cost);

/* The cost of the most expensive stage. */
int64_t dls_partition_largest(const int64_t *cost, int stages, const int *first);

#ifdef __cplusplus
}
#endif
#endif
