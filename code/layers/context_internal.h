/* code/layers/context_internal.h: from chapters/06-context-parallelism-ring.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared by the sources of context parallelism, and by nobody else. */
#ifndef DLS_LAYERS_CONTEXT_INTERNAL_H
#define DLS_LAYERS_CONTEXT_INTERNAL_H

#include "kernels/merge.h"
#include "layers/context.h"
#include "layers/token_order.h"

/* define a member of the ring */
/* One member's view of an attention: its heads, its rows, its arrays' strides. */
typedef struct dls_member {
    const dls_context *c;
    const dls_axes *axes;
    const dls_context_functions *functions;
    dls_attention_shape shape;  /* heads of this member, strides of its arrays */
    int members, member;        /* of the ring */
    int ranks, group;           /* of the context axis; of a member */
    dls_token_order order;
    size_t size, wide;          /* bytes of an element, and of its accumulator */
    int most;                   /* rows of the longest member */
} dls_member;

/* Rows of member s: of all sequences, and of sequence b. */
int dls_member_rows(const dls_member *r, int s);
int dls_member_tokens(const dls_member *r, int s, int b);

/* define a block */

/* What this member's queries see of member s's keys. */
typedef struct dls_context_block {
    dls_attention_shape shape;
    dls_merge_rows queries, keys;       /* their rows among those of their members */
    size_t first;                       /* first query: rows to skip in front of it */
    int empty;
} dls_context_block;

/* kv_row: elements between the rows of keys, and of values. */
dls_context_block dls_context_block_of(const dls_member *r, int s, size_t kv_row,
                                       size_t o_row);

/* declare the parts of the context */

/* Ranks of an all-to-all group; those of a member of the ring. */
int dls_context_group(const dls_sharding *by);
int dls_context_documents_count(const dls_context_documents *d);
int dls_context_document_length(const dls_context_documents *d, int b);

/* Fills in a member's view for arrays with these strides and heads. */
dls_member dls_member_of(const dls_context *c, dls_dtype dtype,
                         const dls_attention_shape *shape, int members, int member,
                         int group);

/* Memory of a call, cut from one piece; see lay_out in context_ring.c. */
typedef struct dls_context_buffers {
    char *kv[2];        /* blocks of keys and values (rows, 2, Hk, D) */
    char *dkv[2];       /* their gradients, of the accumulator type */
    char *home;         /* those of the own keys */
    char *sum;          /* of outputs, or of the gradients of queries: accumulators */
    char *block;        /* (rows, H, D) of one block; or dk, dv: (rows, 2, Hk, D) */
    char *lse;          /* (B, H, queries) of one block */
    char *temporary;    /* of the kernels */
    size_t bytes;
} dls_context_buffers;

/* The arguments of a pass over the blocks, on one member. */
typedef struct dls_context_pass {
    dls_ctx *ctx;
    dls_member r;
    dls_context_buffers at;
    const char *q, *dout, *out;
    char *kept;         /* totals (rows, H) */
    char *dq;
    int travelling;     /* 1: sums and blocks are under way while a kernel runs */
} dls_context_pass;

dls_status dls_context_attend(const dls_context_pass *p, int s, const char *kv);
dls_status dls_context_walk_back(const dls_context_pass *p, int s, const char *kv,
                                 char *dkv);

/* from (sent rows) to the right, to (got rows) from the left, beside what is computed. */
typedef struct dls_context_parcel { const char *from; char *to; int sent, got; }
    dls_context_parcel;
dls_status dls_context_pass_on(const dls_context_pass *p, dls_context_parcel parcel,
                               int columns, int dtype);
dls_status dls_context_ready(const dls_context_pass *p);    /* compute, then messages */
dls_status dls_context_arrived(const dls_context_pass *p);  /* messages, then compute */

/* Cuts the buffers of a ring or of a gather from `memory` (NULL: only counts). */
dls_context_buffers dls_context_lay_out(const dls_member *r, dls_dtype dtype,
                                        char *memory, int gather, int backward);

/* to (rows, 2, Hk, D) = keys and values of the member's rows. */
dls_status dls_context_pack(const dls_context_pass *p, char *to, const char *k,
                            const char *v);
/* And back: dk, dv = the sums (rows, 2, Hk, D); dq = p->at.sum. */
dls_status dls_context_unpack(const dls_context_pass *p, char *dk, char *dv,
                              const char *sums);

dls_status dls_context_ring_forward(const dls_context_pass *p, char *out, const char *k,
                                    const char *v);
dls_status dls_context_ring_backward(const dls_context_pass *p, char *dk, char *dv,
                                     const char *k, const char *v);

dls_status dls_context_gather_forward(const dls_context_pass *p, char *out, const char *k,
                                      const char *v);
dls_status dls_context_gather_backward(const dls_context_pass *p, char *dk, char *dv,
                                       const char *k, const char *v);

/* Between groups: a ring, a gather, or nothing for a single member. */
dls_status dls_context_inner_forward(const dls_context_pass *p, char *out, const char *k,
                                     const char *v);
dls_status dls_context_inner_backward(const dls_context_pass *p, char *dk, char *dv,
                                      const char *k, const char *v);
size_t dls_context_inner_kept(const dls_member *r);

/* With groups of more than one rank. */
size_t dls_context_ulysses_bytes(const dls_context *c, dls_dtype dtype, int backward,
                                 size_t *kept);
dls_status dls_context_ulysses_forward(dls_ctx *ctx, const dls_context *c, char *out,
                                       char *kept, char *temporary, const char *q,
                                       const char *k, const char *v);
dls_status dls_context_ulysses_backward(dls_ctx *ctx, const dls_context *c, char *dq,
                                        char *dk, char *dv, char *temporary,
                                        const char *dout, char *kept);
#endif
