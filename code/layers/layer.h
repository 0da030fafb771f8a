/* code/layers/layer.h: from chapters/09-transformer-model.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Layers with a backward pass in two halves.
 *
 *   F  forward           x         -> y, stash
 *   I  backward_input    dy        -> dx          (somebody waits for it)
 *   W  backward_weight   dy, x     -> gradients   (nobody waits until the step)
 *
 * A layer describes; a pass carries the data of one micro-batch; a plan adds up
 * what all layers need, so that one buffer is taken before the first step.
 */
#ifndef DLS_LAYERS_LAYER_H
#define DLS_LAYERS_LAYER_H
#include "layers/param.h"
#include "layers/sharding.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the plan */
typedef struct dls_layer dls_layer;

/* What a model's activations need; filled by the layers before the run. */
typedef struct dls_plan {
    int max_B, max_T;           /* the largest micro-batch */
    dls_dtype dtype;            /* of activations and their gradients */
    int frozen;                 /* 1: no backward pass will come */
    int deferred;               /* 1: every I may run before the first W */
    int recomputed;             /* > 0: a stash asked for now is scratch */
    size_t stash, early;        /* bytes: until W; those that I is the last to read */
    size_t gradients, gradients_now;
    size_t scratch, scratch_now;
    size_t temporary;
    size_t host;                /* bytes on the host, as long as the stash */
    int experts;                /* expert layers planned so far */
} dls_plan;

/* declare the plan calls */
/* Reserve `count` elements and return the slot: an offset in bytes, and the region. */
size_t dls_plan_stash(dls_plan *plan, size_t count, dls_dtype dtype);
size_t dls_plan_early(dls_plan *plan, size_t count, dls_dtype dtype);
size_t dls_plan_scratch(dls_plan *plan, size_t count, dls_dtype dtype);
size_t dls_plan_gradient(dls_plan *plan, size_t count);     /* of the plan's type */
size_t dls_plan_passing(dls_plan *plan, size_t count);      /* the same, but not for W */

/* Gives back gradients and scratch reserved since the mark, where they may be. */
typedef struct dls_plan_mark { size_t gradients, scratch; } dls_plan_mark;
dls_plan_mark dls_plan_begin(const dls_plan *plan);
void dls_plan_release(dls_plan *plan, dls_plan_mark mark);

/* Room for the inside of one operation; all operations share it. */
void dls_plan_temporary(dls_plan *plan, size_t bytes);

/* Rows of a layer's output: B * T, or its slice of them. */
int dls_plan_rows(const dls_layer *l, const dls_plan *plan);

/* The whole buffer: stash, early stash, gradients, scratch, temporary, in this order. */
size_t dls_plan_bytes(const dls_plan *plan);

/* define a cache */
/* Keys and values of tokens that went through before. A pass continues B sequences, from
 * `first` on, by T tokens each; B or T is 1. */
typedef struct dls_cache {
    void *rows;                 /* (attentions, sequences, length, 2 Hk D) device */
    int sequences, length;
    int first;                  /* the pass's first sequence */
    const int *filled;          /* (B) device: tokens of each, this pass's included */
    int longest;                /* of them */
    int quiet;                  /* 1: nobody will read this pass's logits */
} dls_cache;

/* define a pass */
/* One micro-batch travelling through the layers. */
typedef struct dls_pass {
    dls_ctx *ctx;
    dls_params *params;
    const dls_axes *axes;       /* who has the other parts; NULL: nobody */
    int B, T;                   /* at most the plan's */
    const int *tokens;          /* (B, T) device */
    const int *targets;         /* (B, T) device; NULL: logits only */
    const int *positions;       /* (B, T) device; NULL: 0 .. T-1 in each sequence */
    int T_whole;                /* tokens of a sequence on all ranks together; 0: T */
    const dls_cache *cache;     /* NULL: a sequence attends to itself */
    double loss_scale;          /* multiplies the sum of the tokens' losses */
    int drops;                  /* 1: dropout, with masks keyed by the next two */
    uint64_t seed, first_sequence;  /* of the step; of the first sequence in it */
    const void *rotation;       /* (rotation_length, R) device: see kernels/rope.h */
    int rotation_length;
    void *stash, *early, *gradients, *scratch, *temporary;  /* device: the regions */
    void *host;                 /* (plan->host) bytes on the host */
    void *balance;              /* (expert layers, E) acc device: biases of the choice */
    void *tally;                /* what they did (layers/router.h); NULL: nobody asks */
    int again;                  /* 1: forward once more, in a backward pass */
    const dls_grad_hook *hook;  /* NULL: nobody asks */
    const dls_unit_hook *units; /* the same */
    const dls_point_hook *points;   /* the same */
    int *pending;               /* [params->n] additions still to come */
    const dls_grad_hook *partial;   /* after additions but the last; NULL: nobody asks */
} dls_pass;

/* declare the pass calls */
/* Divides a buffer of dls_plan_bytes into the regions. */
void dls_pass_regions(dls_pass *p, const dls_plan *plan, void *buffer);

/* Pointers of a pass: a slot of the stash or of the gradients, and a parameter. */
void *dls_pass_stash(const dls_pass *p, size_t slot);
void *dls_pass_gradient(const dls_pass *p, size_t slot);
void *dls_pass_value(const dls_pass *p, int index);
void *dls_pass_grad(const dls_pass *p, int index);

/* Rows of a layer's output, and the number of the first of them in the pass. */
int dls_pass_rows(const dls_layer *l, const dls_pass *p);
int dls_pass_first_row(const dls_layer *l, const dls_pass *p);

/* What a product is to keep of a gradient: 0 if it counts as zero, 1 otherwise. After the
 * call it counts as written. */
double dls_pass_keep(const dls_pass *p, int index);

/* To be called by W for each parameter it has enqueued an addition to. */
dls_status dls_pass_added(dls_pass *p, int index);

/* define a layer kind */
/* x (N, in), y (N, out), dx like x, dy like y; N = B * T. */
typedef struct dls_layer_kind {
    const char *name;
    int in_place;               /* 1: y may be x, dx may be dy, and x is not kept */
    void (*plan)(dls_layer *l, dls_plan *plan);             /* may be NULL */
    dls_status (*forward)(const dls_layer *l, dls_pass *p, void *y, const void *x);
    dls_status (*backward_input)(const dls_layer *l, dls_pass *p, void *dx,
                                 const void *dy, const void *x, void *y);
    dls_status (*backward_weight)(const dls_layer *l, dls_pass *p,
                                  const void *dy, const void *x);
    dls_status (*backward)(const dls_layer *l, dls_pass *p, void *dx, const void *dy,
                           const void *x, void *y);     /* NULL: I, then W */
} dls_layer_kind;

/* define a layer */
struct dls_layer {
    const dls_layer_kind *kind;
    int in, out;                /* columns of x and of y */
    int heads, kv_heads, head_size;     /* attention, rotary: H, Hk, D */
    int rotated;                /* rotary: columns of a head that are turned */
    int ordinal;                /* attention, experts: how many came before it */
    int vocabulary;             /* embedding, head: rows of the token table, */
    int whole, first;           /*   of how many, from which on; attention: first head */
    int cut, ranks;             /* cut 1: other ranks have the rest; ends: how many */
    int weight, bias;           /* parameter indices; -1: none */
    int unit;                   /* that of the builder when it was made */
    const dls_sharding *sharding;   /* the builder's */
    int slices, slice;          /* y has part `slice` of the rows; slices 0: has all */
    int gathers;                /* 1: y has all rows, x a slice of them */
    int overlaps;               /* 1: cut product, its communication beside another */
    double epsilon;             /* norms */
    double dropout;             /* probability, and the stream of its masks */
    uint64_t stream;
    int ignores_x;              /* 1: I does not read x */
    int spares_x;               /* 1: W does not */
    int discarded;              /* 1: the output is not kept, but computed again */
    size_t slot[2];             /* of the stash, meaning up to the kind */
    dls_layer **inner;          /* [ninner] layers made of layers */
    int ninner;
    size_t *slots;              /* [2 * ninner] places between the inner layers */
    size_t places[9];           /* a block's (layers/block.c) */
    int deferred;               /* as planned */
    struct dls_expert_part *experts;    /* moe: what else it has; NULL: no experts */
    dls_layer *next;            /* the builder's list */
};

/* declare the layer calls */
/* Reserves the layer's part of the activations. Once, before the first pass. */
void dls_layer_plan(dls_layer *l, dls_plan *plan);

/* B = I and W together; in a plan that is not deferred the only backward. */
dls_status dls_layer_backward(const dls_layer *l, dls_pass *p, void *dx,
                              const void *dy, const void *x, void *y);

/* define the builder */
/* Makes layers and registers their parameters; the first failure sticks. */
typedef struct dls_build {
    dls_params *params;
    dls_layer *all;             /* every layer made */
    int attentions;             /* how many of them */
    int unit;                   /* of layers and parameters to come; -1: the whole */
    dls_sharding sharding;      /* how they are cut */
    int sliced;                 /* 1: the outputs of layers to come are slices of rows */
    dls_status status;
} dls_build;

/* declare the constructors */
/* Constructors: NULL when the builder has failed, now or before. The layers
   belong to the builder. N stands for the rows of a pass, B * T. */
dls_layer *dls_embedding(dls_build *b, int vocabulary, int context, int channels,
                         double std);   /* tokens -> (N, C); context 0: no positions */
dls_layer *dls_linear(dls_build *b, const char *name, int in, int out, int bias,
                      double std);
dls_layer *dls_layernorm(dls_build *b, const char *name, int channels);
dls_layer *dls_gelu(dls_build *b, int channels);        /* with the cubic fit */
dls_layer *dls_gelu_erf(dls_build *b, int channels);    /* x Phi(x) */
dls_layer *dls_rmsnorm(dls_build *b, const char *name, int channels, double epsilon);
dls_layer *dls_swiglu(dls_build *b, int hidden);        /* (N, 2F) -> (N, F) */
dls_layer *dls_rotary(dls_build *b, int heads, int kv_heads, int head_size, int dim);
dls_layer *dls_dropout_layer(dls_build *b, const char *name, int channels, double p);
dls_layer *dls_attention(dls_build *b, const char *name, int heads, int kv_heads,
                         int head_size, double dropout); /* (N, (H+2Hk)D) -> (N, HD) */
dls_layer *dls_tied_head(dls_build *b, const dls_layer *embedding); /* -> losses (N) */
dls_layer *dls_head(dls_build *b, const char *name, int channels, int vocabulary,
                    double std);                    /* -> losses (N) */
dls_layer *dls_sequence(dls_build *b, dls_layer *const *inner, int n);
dls_layer *dls_residual(dls_build *b, dls_layer *f);    /* x + f(x) */
dls_layer *dls_gelu_mlp(dls_build *b, dls_layer *const part[3]); /* linear GELU linear */
dls_layer *dls_pre_norm(dls_build *b, dls_layer *const part[4]); /* a whole block */
dls_layer *dls_recomputed(dls_build *b, dls_layer *f);   /* f, its stash forgotten */

/* Frees every layer the builder made; the parameters are not its own. */
void dls_build_free(dls_build *b);
#ifdef __cplusplus
}
#endif
#endif
