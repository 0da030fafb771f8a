/* code/data/sampler.h: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* A stateless sampler: which windows of a corpus a step trains on.
 *
 *   position P = step * batch + i     epoch e = P / windows     place = P % windows
 *   window   = permutation(seed, e)(place)
 *   offset   = begin + shift(seed, e) + window * length
 *
 * Everything is a function of (seed, step, i): no list, no generator, nothing to save.
 * Tried: a shuffled array per epoch. It is 8 bytes per window per rank, and resuming in
 * epoch 3 means shuffling three times. */
#ifndef DLS_DATA_SAMPLER_H
#define DLS_DATA_SAMPLER_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the sampler */
typedef struct dls_sampler {
    uint64_t seed;
    uint64_t begin, end;  // the bytes of the corpus to draw from
    int length;           // T: inputs of a window; it reads one byte more
    int batch;            // G: windows of a step, over all ranks
    uint64_t windows;     // W, of an epoch
} dls_sampler;

/* Fills *s. DLS_ERR_INPUT: bytes [begin, end) too few for one window, or length or batch
 * below 1. */
dls_status dls_sampler_init(dls_sampler *s, uint64_t seed, uint64_t begin, uint64_t end,
                            int length, int batch);

/* offsets (n) := where windows first, ..., first + n - 1 of step `step` (from 0) begin in
 * the corpus. DLS_ERR_INPUT when they are not within the batch. */
dls_status dls_sampler_windows(const dls_sampler *s, int64_t step, int first, int n,
                               uint64_t *offsets);

/* The share of rank `rank` of `world`: *n windows of each step, from *first on. */
void dls_sampler_share(const dls_sampler *s, int rank, int world, int *first, int *n);

#ifdef __cplusplus
}
#endif
#endif
