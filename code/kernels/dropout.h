/* code/kernels/dropout.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Dropout (Srivastava et al. 2014), inverted: a kept element is divided by 1 - p.
 *
 * The mask is a function of (seed, stream, global index) alone. Nothing else enters: not
 * the launch, not the sharding, not the layout in memory. So the backward pass and a
 * recomputation draw the mask again instead of keeping it, and every layout gets the
 * same one. The inline functions are for kernels, on the device and on the host.
 */
#ifndef DLS_KERNELS_DROPOUT_H
#define DLS_KERNELS_DROPOUT_H

#include <stddef.h>

#include "base/rng.h"
#include "base/status.h"
#include "tensor/tensor.h"

/* define the gate */
typedef struct dls_dropout_gate {
    uint64_t seed, stream;
    uint64_t least;  // a word below this drops: 2^32 p, from 0 to 2^32
    double scale;    // of what is kept: 1 / (1 - p), and 0 for p = 1
} dls_dropout_gate;

/* p from 0 to 1; see dls_dropout_check. */
DLS_HD dls_dropout_gate dls_dropout_gate_of(double p, uint64_t seed, uint64_t stream)
{
    dls_dropout_gate gate = {seed, stream, (uint64_t)(p * 4294967296.0 + 0.5),
                             p < 1 ? 1 / (1 - p) : 0};
    return gate;
}

/* ask the gate */
/* 1 when the element with this global index is kept. */
DLS_HD int dls_dropout_keeps(const dls_dropout_gate *gate, uint64_t index)
{
    return dls_rng_u32(gate->seed, gate->stream, index) >= gate->least;
}

/* Four at once: bit i tells whether element 4 * quad + i is kept. */
DLS_HD unsigned dls_dropout_keeps4(const dls_dropout_gate *gate, uint64_t quad)
{
    uint32_t key[2] = {(uint32_t)gate->seed, (uint32_t)(gate->seed >> 32)};
    uint32_t counter[4] = {(uint32_t)quad, (uint32_t)(quad >> 32),
                           (uint32_t)gate->stream, (uint32_t)(gate->stream >> 32)};
    uint32_t word[4];
    dls_philox(key, counter, word);
    return (unsigned)(word[0] >= gate->least) | (unsigned)(word[1] >= gate->least) << 1
         | (unsigned)(word[2] >= gate->least) << 2
         | (unsigned)(word[3] >= gate->least) << 3;
}

/* key the gate */
/* The seed of a training step's masks. */
DLS_HD uint64_t dls_dropout_seed(uint64_t seed, uint64_t step)
{
    return (uint64_t)dls_rng_u32(seed, ~(uint64_t)0, 4 * step) << 32
         | dls_rng_u32(seed, ~(uint64_t)0, 4 * step + 1);
}

/* The gate of one head of one sequence, both numbered globally. */
DLS_HD dls_dropout_gate dls_dropout_of_head(dls_dropout_gate gate, uint32_t sequence,
                                            uint32_t head)
{
    uint32_t key[2] = {(uint32_t)gate.seed, (uint32_t)(gate.seed >> 32)};
    uint32_t counter[4] = {sequence, head, (uint32_t)gate.stream,
                           (uint32_t)(gate.stream >> 32)};
    uint32_t word[4];
    dls_philox(key, counter, word);
    gate.stream = (uint64_t)word[0] << 32 | word[1];
    return gate;
}

/* The index of an attention weight; four consecutive keys from a multiple of four share
 * a quad, dls_dropout_pair(query, key) / 4. */
DLS_HD uint64_t dls_dropout_pair(uint32_t query, uint32_t key)
{
    return (uint64_t)query << 32 | key;
}

#ifdef __cplusplus
extern "C" {
#endif

/* declare the dropout */
typedef struct dls_dropout {
    double p;               // probability of dropping, from 0 to 1
    uint64_t seed, stream;  // of the step; of the place in the network
    uint64_t first;         // global index of the first element at hand
    uint64_t row;           // global elements from one row to the next; 0: C
} dls_dropout;

/* DLS_ERR_INPUT unless 0 <= p <= 1. */
dls_status dls_dropout_check(double p);

/* out = x with elements dropped and the others scaled; the same call with the gradients
 * is the backward pass. p = 0 copies; p = 1 gives zeros, whatever x is. out may be x. */
dls_status dls_dropout_apply(dls_ctx *ctx,
                             void *out,      // (N, C)
                             const void *x,  // (N, C)
                             int N, int C, const dls_dropout *dropout);

#ifdef __cplusplus
}
#endif
#endif
