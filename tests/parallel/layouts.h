/* tests/parallel/layouts.h: from chapters/04-data-parallelism-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* Holding a layout (who has which part of the training state) against one device. */
#ifndef DLS_TESTS_PARALLEL_LAYOUTS_H
#define DLS_TESTS_PARALLEL_LAYOUTS_H

#include "../comm/world.h"

#include "model/transformer.h"
#include "train/optimizer.h"

/* define the rows of a rank */
typedef struct layout_rows {
    dls_transformer *model;
    const int *tokens, *targets;    // (rows, T) device
    int rows, micro, T;             // micro: rows of a pass
    int passes;                     // the same on every rank
    double loss_scale;
    char *losses;                   // (rows, T) device, accumulator type
} layout_rows;

/* How many rows pass i (0 ... passes - 1) has: 0 when this rank has no more. */
int layout_pass_rows(const layout_rows *r, int i);

/* Forward and backward of pass i; without rows nothing is enqueued. hook may be NULL. */
dls_status layout_pass(const layout_rows *r, int i, const dls_grad_hook *hook);

/* define a layout */
/* A piece of the state: elements first ... first + count - 1 of the flat model, device or
 * host, of the accumulator type: the gradients of the whole batch, before clipping, and
 * the updated parameters. Either may be NULL: not held in this piece. */
typedef dls_status layout_see(void *to, size_t first, size_t count, const void *grads,
                              const void *values);

typedef struct layout {
    const char *name;
    int unplaced;        // 1: takes the memory of parameters and gradients itself
    const void *options; // its own
    /* values (elements) host, accumulator type: what every rank begins with */
    dls_status (*open)(void **self, const struct layout *l, dls_transformer *model,
                       dls_comm *comm, const void *values,
                       const dls_adamw_options *adamw);
    dls_status (*step)(void *self, const layout_rows *rows, double lr, int64_t step);
    dls_status (*visit)(void *self, layout_see *see, void *to);
    void (*close)(void *self);
} layout;

/* define a proof */
typedef struct layout_proof {
    const layout *layout;
    int exact;          // 1: the exact model in f32, bit for bit; 0: the real one in f64
    int rows, micro;    // of the whole batch; of a pass
    int steps;          // the exact model has exact gradients in the first only
    double clip;        // largest gradient norm, 0: none
    int untied, llama;  // real model: a head of its own; the other family
    int pipeline;       // ranks that work on the same rows, one after the other; 0: 1
    int layers;         // 0: three
} layout_proof;

/* The configuration of the proof's model. */
dls_transformer_config layout_config(const layout_proof *p);

/* A rank's part, for dls_run_ranks: the layout against one device, step after step. */
dls_status layout_prove(int rank, void *proof);

/* The same in a world that is open already, where there are several proofs. */
dls_status layout_prove_in(dls_comm *comm, const layout_proof *p);

#define expect_layout(n, ...)                                          \
    do {                                                               \
        layout_proof proof_ = {__VA_ARGS__};                           \
        expect_ranks(n, layout_prove, &proof_);                        \
    } while (0)

#endif
