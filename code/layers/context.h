/* code/layers/context.h: from chapters/06-context-parallelism-ring.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention over sequences whose tokens are spread over ranks: context parallelism.
 *
 *   ring      keys and values go round, a block is attended to while the next one comes
 *             (Liu et al. 2023; zig-zag: Zhu 2024; striped: Brandon et al. 2023)
 *   gather    all keys and values are gathered first (Llama 3: Dubey et al. 2024, 3.3.2)
 *   Ulysses   heads for tokens: each rank gets all tokens of some heads (Jacobs et al.
 *             2023); within a ring of groups also in two dimensions (Fang and Zhao 2024)
 *
 * All ranks of axes->context call the same functions in the same order. A rank's rows are
 * (B, t): its t = dls_token_count tokens of each sequence, in ascending order; of packed
 * documents, document by document. */
#ifndef DLS_LAYERS_CONTEXT_H
#define DLS_LAYERS_CONTEXT_H

#include "kernels/attention.h"
#include "layers/sharding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the local attention */
/* The operations on one block; see kernels/attention.h for their arguments. */
typedef struct dls_context_functions {
    dls_status (*forward)(dls_ctx *ctx, const dls_attention_shape *s, void *out,
                          void *lse, const void *q, const void *k, const void *v);
    dls_status (*backward)(dls_ctx *ctx, const dls_attention_shape *s, void *dq, void *dk,
                           void *dv, void *temporary, const void *dout, const void *q,
                           const void *k, const void *v, const void *out,
                           const void *lse);
    size_t (*temporary)(const dls_attention_shape *s, dls_dtype dtype);
    int weighted;   /* 1: outputs are means, merged by lse; 0: sums, and lse is NULL */
} dls_context_functions;

extern const dls_context_functions dls_context_kernels;

/* define a context attention */

/* Packed documents, each cut over the ranks by itself. */
typedef struct dls_context_documents dls_context_documents;

typedef struct dls_context {
    const dls_axes *axes;       /* NULL: one rank */
    dls_attention_shape shape;  /* Tq = Tk: tokens of a sequence on all ranks; no starts.
                                   B, Tq are not looked at with documents */
    const dls_context_documents *documents;     /* NULL: B sequences of Tq tokens */
    const dls_context_functions *functions;     /* NULL: dls_context_kernels */
} dls_context;

/* declare the context attention */

/* Whether ranks, heads and lengths fit together; DLS_ERR_INPUT says which value would. */
dls_status dls_context_check(const dls_context *c);

/* Bytes that go from forward to backward, and those that one call needs meanwhile. The
 * latter are from dls_gpu_alloc_shared. `backward` 0: enough for forward alone. */
size_t dls_context_kept(const dls_context *c, dls_dtype dtype);
size_t dls_context_temporary(const dls_context *c, dls_dtype dtype, int backward);

/* out (rows, H, D) for this rank's queries; the arrays and their strides are those of
 * dls_attention_forward and _backward, with this rank's rows. */
dls_status dls_context_forward(dls_ctx *ctx, const dls_context *c, void *out, void *kept,
                               void *temporary, const void *q, const void *k,
                               const void *v);
dls_status dls_context_backward(dls_ctx *ctx, const dls_context *c, void *dq, void *dk,
                                void *dv, void *temporary, const void *dout,
                                const void *q, const void *k, const void *v,
                                const void *out, const void *kept);

/* lengths (n, host): tokens of each document on all ranks together. */
dls_status dls_context_documents_open(dls_context_documents **out, const dls_axes *axes,
                                      int causal, const int *lengths, int n);
void dls_context_documents_close(dls_context_documents *d);     /* NULL is fine */

/* Rows of this rank: all together, and the first of document b; for b = n all. */
int dls_context_rows(const dls_context *c);
int dls_context_document_row(const dls_context_documents *d, int b);

#ifdef __cplusplus
}
#endif
#endif
