/* code/parallel/context/laws.h: from chapters/06-context-parallelism-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* What context parallelism costs by the formulas: efficiency, bytes. */
#ifndef DLS_PARALLEL_CONTEXT_LAWS_H
#define DLS_PARALLEL_CONTEXT_LAWS_H

#include "layers/sharding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the laws of the context */
/* The share of all ranks' time in which a causal attention computes, when no rank waits
 * for a message: contiguous n / (2 n - 1), the others 1. */
double dls_context_law_efficiency(dls_token_order order, int n);

/* What is attended to, for the bytes. */
typedef struct dls_context_sizes {
    double tokens;              /* of all sequences, on all ranks */
    int heads, kv_heads, head_size;
    double element, accumulator;        /* bytes */
} dls_context_sizes;

/* Bytes that a rank sends in one pass, if all have equally many tokens. */
double dls_context_law_sent(const dls_sharding *by, const dls_context_sizes *s,
                            int backward);

#ifdef __cplusplus
}
#endif
#endif
