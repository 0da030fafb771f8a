/* code/layers/router.h: from chapters/08-router-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* The router of an expert layer: its parameter, its place in a pass, its losses.
 *
 *   route          x -> scores -> index, weights, place, counts
 *   route back     gradient of the weights -> gradient of the scores -> dx
 *   route weight   gradient of the scores, x -> gradient of the router's matrix
 *
 * and the balance of a model: the bias of each layer's choice, and its tally. */
#ifndef DLS_LAYERS_ROUTER_H
#define DLS_LAYERS_ROUTER_H
#include "layers/layer.h"
#include "layers/moe.h"
#ifdef __cplusplus
extern "C" {
#endif
/* describe a routing */
typedef struct dls_routing {
    dls_moe moe;
    dls_sharding sharding;
    int channels;               /* C */
    int weight;                 /* the parameter (E, C) */
    int ordinal;                /* expert layers that were planned before */
    size_t scores, weights, index, place;   /* slots of the stash */
    size_t counts, chosen, in_batch, in_sequence;
    size_t dscores;             /* slot of the gradients */
    size_t before, values;      /* slots of scratch */
} dls_routing;
/* declare the routing */
/* Registers NAME.router.weight (E, C); -1 after a failure. */
int dls_routing_param(dls_build *b, const char *name, int channels, const dls_moe *m,
                      double std);

/* DLS_ERR_INPUT, with the field of model.moe, for what can not be. */
dls_status dls_routing_check(const dls_sharding *s, const dls_moe *m);

/* Reserves what the router needs for up to `rows` rows of this rank. */
void dls_routing_plan(dls_routing *out, dls_plan *plan, const dls_sharding *s,
                      const dls_moe *m, int rows, int channels, int weight);

/* Routes rows x (n, C), the pass's rows from number `first` on. Collective over the ranks
 * that share sequences, and with a loss of the batch over axes->rows. */
dls_status dls_route(const dls_routing *r, const dls_pass *p, const void *x, int n,
                     int first);

/* What it found, on the device, as long as the stash. */
typedef struct dls_routed {
    const int *index, *place;   /* (n, k) */
    const void *weights;        /* (n, k) acc */
    const int *counts;          /* (E): see kernels/router.h */
} dls_routed;
dls_routed dls_routing_found(const dls_routing *r, const dls_pass *p);

/* The counts as far as they are known without a look at the scores: on the host, or NULL
 * if they are not. counts: room for E. */
const int *dls_routing_known(const dls_routing *r, int n, int first, int *counts);

/* dx (n, C) := keep dx + the way back through the scores; dweights (n, k) acc is not read
 * where a choice has no place. The losses are multiplied by the pass's loss_scale. */
dls_status dls_route_back(const dls_routing *r, const dls_pass *p, double keep, void *dx,
                          const void *dweights, int n, int first);
/* Adds to the gradient of the router's matrix. */
dls_status dls_route_weight(const dls_routing *r, dls_pass *p, const void *x, int n);

/* Puts the layer's name before the message of a failure that is not a rank's own. */
dls_status dls_routing_explain(const dls_routing *r, const dls_pass *p, dls_status s);

/* DLS_ERR_STATE if counts (sources, E) of the host, each source's own, tell of a score
 * that is no finite number. */
dls_status dls_routing_fault(const int *counts, int sources, int E);
/* describe the balance */
/* The balance of a model's expert layers; all zero: it has none. */
typedef struct dls_balance {
    dls_ctx *ctx;
    int layers, experts;
    void *bias;                 /* (layers, E) acc device */
    void *tally;                /* (layers, 2 E + DLS_TALLY_SUMS) acc device */
} dls_balance;

static inline size_t dls_tally_length(int experts)
{
    return 2 * (size_t)experts + DLS_TALLY_SUMS;
}

/* Bytes on the device. */
size_t dls_balance_bytes(int layers, int experts, dls_dtype dtype);

/* Takes and clears both. Errors: DLS_ERR_MEMORY. */
dls_status dls_balance_open(dls_balance *out, dls_ctx *ctx, int layers, int experts);
void dls_balance_close(dls_balance *b);

/* Forgets the tally, on the context's stream: before the first pass of a step. */
dls_status dls_balance_clear(dls_balance *b);

/* A step of every layer's bias, from the tally of all ranks; rate 0: nothing. */
dls_status dls_balance_step(dls_balance *b, double rate);
/* What a layer's tally says. The shares are of the rows chosen. */
typedef struct dls_load {
    double experts;
    double tokens, rows;        /* rows: chosen, k for each token */
    double most, least;         /* load of an expert, by the mean; 1 is balance */
    double violation;           /* most - 1: MaxVio */
    double dropped;             /* share of the rows that found no place */
    double batch, sequence, z;  /* losses of a token, without coefficients */
    double entropy;             /* of a token's probabilities, in nats */
} dls_load;

/* Waits, and reads layer's tally into load, and, if not NULL, chosen (E) and dropped (E)
 * rows of each expert. */
dls_status dls_balance_read(const dls_balance *b, int layer, dls_load *load,
                            double *chosen, double *dropped);
#ifdef __cplusplus
}
#endif
#endif
