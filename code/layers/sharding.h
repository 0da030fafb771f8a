/* code/layers/sharding.h: from chapters/06-tensor-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* How a model is cut over ranks, and the communicators between its parts. */
#ifndef DLS_LAYERS_SHARDING_H
#define DLS_LAYERS_SHARDING_H
#include "comm/comm.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define a sharding */
/* How ranks of the context axis get at each other's keys and values. */
typedef enum dls_context_way {
    DLS_CONTEXT_RING, DLS_CONTEXT_ULYSSES, DLS_CONTEXT_GATHER
} dls_context_way;

/* Which tokens of a sequence a rank of the context axis has. */
typedef enum dls_token_order {
    DLS_TOKENS_ZIGZAG, DLS_TOKENS_CONTIGUOUS, DLS_TOKENS_STRIPED
} dls_token_order;

/* How rows get to the experts: all-to-all over all ranks; over the nodes, then within
 * them; or written by the sender to where they belong. */
typedef enum dls_dispatch_way {
    DLS_DISPATCH_FLAT, DLS_DISPATCH_NODES, DLS_DISPATCH_ONE_SIDED
} dls_dispatch_way;

/* The type of the model, bf16, or fp8 with a scale for every 128 columns. */
typedef enum dls_row_type { DLS_ROWS_SAME, DLS_ROWS_BF16, DLS_ROWS_FP8 } dls_row_type;

/* How a model's layers are cut over the ranks of three axes. Zeroed: one device. */
typedef struct dls_sharding {
    int tensor, tensor_rank;    /* ranks of the tensor axis, 0: 1; this one's number */
    int sequence;               /* 1: rows between the cut products are cut as well */
    int chunks;                 /* in which communication and product overlap; 0: 1 */
    int context, context_rank;  /* ranks that share the tokens of each sequence, 0: 1 */
    dls_context_way way;
    dls_token_order order;
    int ulysses;                /* ranks of an all-to-all group within the ring; 0: 1 */
    int expert, expert_rank;    /* ranks that share the experts, 0: 1 */
    int expert_tensor, expert_tensor_rank;  /* ranks that share each of them, 0: 1 */
    dls_row_type wire;          /* of rows on their way to experts and back */
    dls_dispatch_way dispatch;
} dls_sharding;

/* 1: rows of a pass travel between ranks, so that its memory must be shared memory. */
static inline int dls_sharding_travels(const dls_sharding *s)
{
    return s->tensor > 1 || s->context > 1 || s->expert > 1 || s->expert_tensor > 1;
}

/* Into how many slices the rows between cut products are cut. */
static inline int dls_sharding_slices(const dls_sharding *s)
{
    return s->sequence && s->tensor > 1 ? s->tensor : 1;
}

/* define the axes */
enum { DLS_AXES_PIECES = 8, DLS_AXES_MOVES = 4 };

/* A pass with rows under way to experts or back; the event stands behind the last. */
typedef struct dls_axes_move { const void *pass; cudaEvent_t done; } dls_axes_move;

/* What ranks write to in a one-sided dispatch: opened by the first that counts its rows. */
typedef struct dls_axes_window {
    struct dls_window *window;
    int slots;
    size_t bytes;
} dls_axes_window;

/* The communicators of a cut model; NULL: a group of one, whose collectives vanish. */
typedef struct dls_axes {
    dls_sharding sharding;
    dls_comm *tensor, *context; /* the caller's */
    dls_comm *kv;               /* of tensor: who has the same keys and values */
    dls_comm *ring, *ulysses;   /* of context */
    dls_comm *expert, *expert_tensor;   /* the caller's: who has the other experts; who
                                           has the rest of the same ones */
    dls_comm *rows;             /* the caller's: tp, cp and dp: who has the other rows of
                                   the same micro-batch */
    dls_comm *data, *expert_data;   /* the caller's: who has the same parameters; who has
                                   the same experts. apart 1: these are other ranks */
    int apart;
    dls_comm *node, *across;    /* of expert: those of the same node; those with the same
                                   place in the others */
    dls_comm *counts, *shares;  /* expert and expert_tensor once more, for numbers that
                                   do not wait behind rows */
    dls_axes_move *moves;       /* [DLS_AXES_MOVES]; NULL: no experts over ranks */
    dls_axes_window *window;    /* NULL: dispatch is not one-sided */
    cudaStream_t stream;        /* for communication beside the products */
    cudaEvent_t ready, arrived; /* between it and the context's stream */
    cudaEvent_t piece[DLS_AXES_PIECES]; /* for pieces of a slice (layers/overlap.h) */
} dls_axes;

/* declare the axes */
/* Splits what the axes need from the groups of tensor and context (NULL: a group of one).
 * kv_heads: those of the whole model. Collective over both. DLS_ERR_INPUT: a group of
 * another size than the sharding's, or another rank. */
dls_status dls_axes_open(dls_axes *out, const dls_sharding *sharding, int kv_heads,
                         dls_comm *tensor, dls_comm *context);
void dls_axes_close(dls_axes *axes);    /* after the streams are synchronised */

/* Adds the groups of experts to axes that are open (NULL: a group of one): layers/moe.h.
 * Collective over expert and expert_tensor. DLS_ERR_INPUT: as above. */
dls_status dls_axes_add_experts(dls_axes *axes, dls_comm *expert,
                                dls_comm *expert_tensor, dls_comm *rows);
void dls_axes_drop_experts(dls_axes *axes);    /* called by dls_axes_close */
#ifdef __cplusplus
}
#endif
#endif
