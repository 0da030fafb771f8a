/* code/kernels/router.h: from chapters/08-router-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* From scores to who goes where, and back. Five operations:
 *
 *   choose    scores -> index, weight; how many rows of each sequence chose each expert
 *   place     index -> the row of each choice among the rows sorted by expert
 *   backward  gradient of the weights, auxiliary losses -> gradient of the scores
 *   tally     what a report wants to know, added up over passes
 *   bias      the step of the bias of the choice
 *
 * All rows of a pass have a number, and this rank has N of them from `first` on. */
#ifndef DLS_KERNELS_ROUTER_H
#define DLS_KERNELS_ROUTER_H

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the router */
/* From a token's E scores to probabilities. Identity: the scores themselves, for proofs
 * with whole numbers. */
typedef enum dls_gate { DLS_GATE_SOFTMAX, DLS_GATE_SIGMOID, DLS_GATE_IDENTITY } dls_gate;

enum { DLS_ROUTER_EXPERTS = 1024, DLS_ROUTER_GROUPS = 32 }; // at most

typedef struct dls_router {
    int E, k;                // experts; those of a token
    dls_gate gate;
    int normalised;          // 1: the weights of a token are divided by their sum
    double scale;            // a factor of all weights
    int groups, group_limit; // experts in so many equal groups, of which a token may use
                             // so many; 0: no limit
    int balanced;            // 1: row i, choice j goes to expert (i k + j) mod E
    int capacity;            // rows that an expert keeps of a sequence; 0: all
    int padded;              // 1: and always as many
    int N, first, B, T;      // rows of this rank, from which on; sequences, their tokens
} dls_router;
/* declare the router choice */
/* DLS_ERR_INPUT, with the field's name, for a router that can not be. */
dls_status dls_router_check(const dls_router *r);

/* The k experts of each row, best first, and their weights. Chosen by score; with a bias
 * by probability + bias; of equals the expert with the lower number. The weights never
 * contain the bias. chosen[B E] becomes 0, or N - i for the first row i with a score that
 * is no finite number. */
dls_status dls_router_choose(dls_ctx *ctx, const dls_router *r,
                             int *index,         // (N, k)
                             void *weight,       // (N, k) acc
                             int *chosen,        // (B E + 1): rows of a sequence that
                                                 // chose an expert; see above
                             const void *scores, // (N, E) acc
                             const void *bias);  // (E) acc; NULL: none
/* declare the places */
/* place: the row of each choice in the order by expert, then token; -1: the expert had
 * its capacity of the sequence already. counts: rows of each expert, those of padding
 * included; but counts[0] is -1 - (first + i) if a score of row i is no finite number.
 * before: `chosen` of `earlier` ranks whose rows of the same sequences come first. */
dls_status dls_router_place(dls_ctx *ctx, const dls_router *r,
                            int *place,         // (N, k)
                            int *counts,        // (E)
                            const int *index,   // (N, k)
                            const int *chosen,  // (B E + 1)
                            const int *before,  // (earlier, B E + 1)
                            int earlier);

/* How many of a sequence's `chosen` rows an expert keeps when `before` came earlier. */
#ifdef __CUDACC__
__host__ __device__
#endif
static inline int dls_router_kept(int capacity, int before, int chosen)
{
    int left = capacity - before;
    return capacity == 0 || left >= chosen ? chosen : left > 0 ? left : 0;
}
/* declare the way back */
/* out (E) := the rows of all B sequences of chosen (B, E). */
dls_status dls_router_gather(dls_ctx *ctx, int *out, const int *chosen, int B, int E);

/* The auxiliary losses of a row: coefficients, 0: none, and the counts they need. */
typedef struct dls_router_aux {
    double batch, sequence, z;
    const int *in_batch;    // (E) device: rows of the micro-batch, all ranks
    const int *in_sequence; // (B, E) device: rows of a sequence, all ranks
    int tokens;             // of a sequence, all ranks
} dls_router_aux;

/* dscores := what the weights' gradient and scale * (the auxiliary losses of the rows)
 * give. A choice without a place has no gradient, whatever dweight says. */
dls_status dls_router_backward(dls_ctx *ctx, const dls_router *r,
                               const dls_router_aux *aux, double scale,
                               void *dscores,       // (N, E)
                               const void *dweight, // (N, k) acc
                               const void *scores,  // (N, E) acc
                               const int *index,    // (N, k)
                               const int *place);   // (N, k)
/* declare the tally */
/* Behind the E rows chosen and the E rows dropped of a tally stand sums over tokens. */
enum {
    DLS_TALLY_TOKENS, DLS_TALLY_BATCH, DLS_TALLY_SEQUENCE, DLS_TALLY_Z,
    DLS_TALLY_ENTROPY, DLS_TALLY_SUMS = 8
};

/* Adds these rows to the tally. The losses are without their coefficients. */
dls_status dls_router_tally(dls_ctx *ctx, const dls_router *r, const dls_router_aux *aux,
                            void *tally,        // (2 E + DLS_TALLY_SUMS) acc; added to
                            void *values,       // (N, DLS_TALLY_SUMS) acc; scratch
                            const void *scores, // (N, E) acc
                            const int *chosen, const int *before, int earlier);

/* bias += rate * sign(mean - load), load being the tally's rows chosen. */
dls_status dls_router_bias(dls_ctx *ctx,
                           void *bias,        // (E) acc
                           const void *tally, // (2 E + DLS_TALLY_SUMS) acc
                           int E, double rate);

#ifdef __cplusplus
}
#endif
#endif
