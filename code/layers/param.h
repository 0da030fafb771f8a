/* code/layers/param.h: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Parameters: one record per learned tensor, two flat device buffers for all.
 *
 *   values  | wte | wpe | block.0.ln1.weight | ... | ln_f.bias |
 *   grads   | the same offsets                                 |
 *             forward order ->            <- backward completes them
 *
 * Every reader (initialiser, optimizer, data parallelism, checkpoint) takes
 * what it needs from the same record, so there is no second list to forget.
 */
#ifndef DLS_LAYERS_PARAM_H
#define DLS_LAYERS_PARAM_H
#include <stddef.h>
#include <stdint.h>
/* include the tensor context */
#include "base/status.h"
#include "tensor/tensor.h"
#ifdef __cplusplus
extern "C" {
#endif
/* name the initialisers */
enum { DLS_PARAM_NAME = 64 };

typedef enum dls_init_kind {
    DLS_INIT_ZERO,
    DLS_INIT_ONE,
    DLS_INIT_NORMAL
} dls_init_kind;

/* define a parameter */
/* A part along the cut dimension: places begin ... begin + count - 1 of the whole.
 * `sharers` ranks have it, and this is number `sharer` of them; sharers 0 counts as 1. */
typedef struct dls_piece {
    size_t begin, count;
    int sharer, sharers;
} dls_piece;

/* One learned tensor: what it is, how it starts, and where it lies. */
typedef struct dls_param {
    char name[DLS_PARAM_NAME];  /* "block.3.mlp.fc.weight": unique in a model */
    int ndim;
    size_t shape[4];            /* the whole tensor's shape, never a shard's */
    int cut, pieces;            /* this rank has `pieces` parts along dimension `cut`; */
    dls_piece piece[3];         /*   pieces 0: the whole */
    size_t count;               /* elements of this rank's part */
    size_t offset;              /* first element in the flat buffers */
    dls_init_kind init;
    double init_scale;          /* standard deviation of DLS_INIT_NORMAL */
    int decay;                  /* 1: weight decay applies */
    int frozen;                 /* 1: stays as it is: not exchanged, not updated */
    int partial;                /* 1: the gradient is a rank's share of a sum */
    int expert;                 /* 1: of an expert: copies are along edp, not dp x cp */
    int uses;                   /* layers that add to its gradient; tied: 2 */
    int overwritten;            /* 1: the first of them is a product */
    int unwritten;              /* 1: the gradient counts as zero, whatever lies there */
    int unit;                   /* of the model: see dls_unit_hook */
    void *value, *grad;         /* device pointers into the flat buffers */
} dls_param;

/* define the parameter set */
/* All parameters of one model, in registration (forward) order. */
typedef struct dls_params {
    dls_param *items;           /* [n] */
    int n, capacity;
    size_t elements;            /* sum of the counts */
    int frozen;                 /* 1: values only, nothing learns */
    int unplaced;               /* 1: others take the memory and point value and grad */
    dls_dtype dtype;            /* of the values */
    void *values;               /* (elements) device */
    void *grads;                /* (elements) device, of the accumulator type */
} dls_params;

/* define the gradient hook */
/* Called when the last addition to a parameter's gradient is on the stream. */
typedef struct dls_grad_hook {
    void *self;
    dls_status (*fn)(void *self, int param_index);
} dls_grad_hook;

/* Called around each unit, a stretch of layers that is used as a whole (a block, say):
   before its first operation of a pass is enqueued, and after its last. */
typedef struct dls_unit_hook {
    void *self;
    dls_status (*before)(void *self, int unit, int backward);
    dls_status (*after)(void *self, int unit, int backward);
} dls_unit_hook;

/* What a pass has just handed to the communication stream, and does not wait for yet. */
typedef enum dls_point { DLS_POINT_DISPATCH, DLS_POINT_COMBINE } dls_point;

typedef struct dls_point_hook {
    void *self;
    dls_status (*fn)(void *self, dls_point point, int backward);
} dls_point_hook;

/* declare the parameter calls */
/* Adds a parameter; `story` gives name, ndim, shape, init, init_scale, decay.
   *index is its place, good for the life of the set. A second parameter of the
   same name is DLS_ERR_INPUT. Call before dls_params_allocate. */
dls_status dls_params_add(dls_params *set, const dls_param *story, int *index);

/* Takes the two flat buffers and points every value and grad into them, if the set is
   not unplaced. */
dls_status dls_params_allocate(dls_params *set, dls_ctx *ctx);

/* Fills the values: a function of (seed, name, index in the whole tensor) alone. */
dls_status dls_params_initialise(dls_params *set, uint64_t seed);

/* The same in two steps. host (elements) has the accumulator type; put rounds it to the
   set's type and copies it to the device. */
void dls_params_fill(const dls_params *set, uint64_t seed, void *host);
dls_status dls_params_put(dls_params *set, const void *host);

/* Sets every gradient to zero, on the context's stream. */
dls_status dls_params_zero_grads(dls_params *set, dls_ctx *ctx);

/* The same before a backward pass, and cheaper: large gradients whose first addition is a
   product are only marked, and that product overwrites what lies there. */
dls_status dls_params_renew_grads(dls_params *set, dls_ctx *ctx);

/* Clears what is still marked: behind a pass every gradient is what it counts as. */
dls_status dls_params_settle_grads(dls_params *set, dls_ctx *ctx);

/* A device buffer that a communicator may touch, entered under `purpose`. */
dls_status dls_flat_buffer(void **p, size_t bytes, dls_memory_purpose purpose);

/* The parameter of that name, or NULL. */
const dls_param *dls_params_find(const dls_params *set, const char *name);

/* Elements of the whole tensor; extent of a dimension of this rank's part. */
size_t dls_param_whole(const dls_param *p);
size_t dls_param_extent(const dls_param *p, int dimension);

/* The index in the whole tensor of element `local` of this rank's part. *run: how many
 * elements from there on lie side by side in both (may be NULL). piece, if not NULL: the
 * piece it belongs to; -1: not cut. */
size_t dls_param_global(const dls_param *p, size_t local, size_t *run, int *piece);

void dls_params_free(dls_params *set);
#ifdef __cplusplus
}
#endif
#endif
