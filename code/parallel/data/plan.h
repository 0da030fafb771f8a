/* code/parallel/data/plan.h: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* The bucket plan: which gradients travel together. A pure function of the parameters.
 *
 *   flat gradients  | p0 | p1 | p2 |  p3  | p4 | p5 |     backward fills  <----
 *   buckets         |   bucket 2   | bucket 1  | 0  |     0 is sent first  */
#ifndef DLS_PARALLEL_DATA_PLAN_H
#define DLS_PARALLEL_DATA_PLAN_H

#include "layers/param.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the bucket plan */
typedef struct dls_bucket {
    size_t first, count;  // elements of the flat gradient buffer
    int param, params;    // parameters param, ..., param + params - 1
} dls_bucket;

/* Fills buckets (n) in the order in which they are sent. A bucket is closed as soon as it
 * has reached its size: first_bytes for the first, bytes for the others; in front of a
 * frozen parameter, which is in none; and where experts begin or end.
 * DLS_ERR_INPUT: no parameters, or offsets that do not ascend without overlap. */
dls_status dls_bucket_plan(const dls_param *params, int n, size_t element_bytes,
                           size_t first_bytes, size_t bytes, dls_bucket *buckets,
                           int *count);

/* Depends on everything that must agree between ranks: names, places, type, buckets and
 * the order (count) in which they are sent; NULL: as they come. */
uint64_t dls_bucket_hash(const dls_param *params, int n, dls_dtype dtype,
                         const dls_bucket *buckets, int count, const int *order);

#ifdef __cplusplus
}
#endif
#endif
