/* code/parallel/tensor/activation_laws.h: from chapters/06-sequence-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* What a block keeps from its forward pass for its backward pass, array by array: by the
 * rules of Korthikanti and others 2023, section 4, and by this library's own. */
#ifndef DLS_PARALLEL_TENSOR_ACTIVATION_LAWS_H
#define DLS_PARALLEL_TENSOR_ACTIVATION_LAWS_H

#include "model/config.h"
#include "parallel/data/laws.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a kept array */
/* A micro-batch: sequences, tokens of each on this rank, and the type of activations. */
typedef struct dls_kept_case {
    size_t B, T;
    dls_dtype dtype;
} dls_kept_case;

/* One array. */
typedef struct dls_kept {
    const char *what, *why;     /* why the accounts differ; NULL: they do not */
    double paper;               /* bytes by the paper's rules; 0: not kept */
    size_t rows, width, size;   /* ours: rows of `width` elements of `size` bytes */
    size_t bytes;               /* rounded up as a plan does; 0: not kept */
} dls_kept;

enum { DLS_KEPT_ARRAYS = 16 };

/* declare the activation laws */
/* The arrays of a block of `c`, as c->recompute and c->sharding say. The paper's column
 * takes channels, heads, B and T from them, and nothing else: its elements have two bytes
 * and its MLP 4 C columns, whatever the model has. */
void dls_kept_by_block(const dls_transformer_config *c, const dls_kept_case *at,
                       dls_kept out[DLS_KEPT_ARRAYS]);

/* Sums over the arrays: our bytes of a block, and the paper's. */
size_t dls_kept_bytes(const dls_transformer_config *c, const dls_kept_case *at);
double dls_kept_paper(const dls_transformer_config *c, const dls_kept_case *at);

/* Table 2 of the paper: bytes of a layer with s tokens, b sequences, h channels, a heads
 * over t ranks. */
double dls_law_activations(dls_recompute recompute, double t, int sequence, double s,
                           double b, double h, double a);

/* What Megatron keeps of a parameter, for dls_law_memory: stage 0 without, 1 with its
 * distributed optimizer. 0: all in fp16; 1: bf16, gradients in f32; 2: f32. */
enum { DLS_MEGATRON_TYPES = 3 };
dls_parameter_bytes dls_bytes_megatron(int type);

#ifdef __cplusplus
}
#endif
#endif
