/* code/layers/expert_layer.h: from chapters/08-mixture-of-experts-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* The expert layer, and the parts that its sources share. */
#ifndef DLS_LAYERS_EXPERT_LAYER_H
#define DLS_LAYERS_EXPERT_LAYER_H
#include "layers/dispatch_nodes.h"
#include "layers/layer.h"
#include "layers/router.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the places of an expert layer */
/* n: this rank's own rows; sent, arrived: at most so many rows leave and come. */
enum {
    /* (sent, C), (arrived, C), (arrived, up), (arrived, F), (arrived, C), (sent, C) */
    MOE_ROWS, MOE_ARRIVED, MOE_PRE, MOE_ACT, MOE_OUT, MOE_BACK,
    /* their gradients */
    MOE_DBACK, MOE_DOUT, MOE_DACT, MOE_DPRE, MOE_DARRIVED, MOE_DROWS,
    MOE_NEAR, MOE_DNEAR,        /* over nodes: weights of landed rows (., k) acc */
    MOE_DWEIGHTS,               /* of the router's weights (n, k) acc */
    MOE_PLACES
};

/* define the part of an expert layer */
/* What an expert layer has besides its dls_layer. */
typedef struct dls_expert_part {
    dls_moe moe;
    int first, count;           /* the experts of this rank */
    int weights;                /* index of the first one's fc; proj comes behind it */
    int router;                 /* index of the router's weight (E, C) */
    dls_layer *activation, *shared;     /* shared NULL: none */
    dls_routing routing;        /* as planned */
    dls_dispatch dispatch;
    int by_nodes;               /* 1: rows go over the nodes (layers/expert_nodes.h) */
    dls_node_dispatch nodes;
    size_t at[MOE_PLACES];
} dls_expert_part;

/* declare the expert layer */
/* y (N, C) = sum over a token's experts of weight expert(x), and shared(x). activation:
 * (rows, up) -> (rows, F of this rank); up is 2 F for SwiGLU. shared: an uncut MLP, or
 * NULL. Registers NAME.router.weight (E, C), NAME.expert.J.fc.weight (up, C) and
 * NAME.expert.J.proj.weight (C, F) for the experts J of this rank.
 * Source: Shazeer et al. 2017; Dai et al. 2024 (shared experts). */
dls_layer *dls_expert_layer(dls_build *b, const char *name, int channels,
                            const dls_moe *moe, dls_layer *activation, dls_layer *shared,
                            double std, double out_std);
#ifdef __cplusplus
}
#endif
#endif
