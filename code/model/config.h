/* code/model/config.h: from chapters/09-transformer-model-families.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * What a transformer is: sizes and choices, for GPT-2, Llama, and what lies between.
 * A plain structure; nothing here touches a device.
 */
#ifndef DLS_MODEL_CONFIG_H
#define DLS_MODEL_CONFIG_H
#include <stddef.h>

#include "base/config.h"
#include "kernels/rope.h"
#include "layers/moe.h"
#include "layers/sharding.h"
#ifdef __cplusplus
extern "C" {
#endif
/* name the choices of a model */
typedef enum dls_norm { DLS_NORM_LAYER, DLS_NORM_RMS } dls_norm;
typedef enum dls_mlp { DLS_MLP_GELU, DLS_MLP_SWIGLU, DLS_MLP_GELU_ERF } dls_mlp;
typedef enum dls_positions { DLS_POSITIONS_LEARNED, DLS_POSITIONS_ROTARY } dls_positions;
typedef enum dls_recompute {
    DLS_RECOMPUTE_NONE, DLS_RECOMPUTE_SELECTIVE, DLS_RECOMPUTE_FULL
} dls_recompute;

/* define the transformer configuration */
typedef struct dls_transformer_config {
    int vocabulary;             /* V: rows of the token table */
    int context;                /* the longest input; rows of a position table */
    int layers;                 /* L */
    int heads;                  /* H, of queries */
    int kv_heads;               /* Hk, a divisor of H: heads of keys and values */
    int head_size;              /* D; heads * head_size need not be channels */
    int channels;               /* C */
    int hidden;                 /* F: columns inside the MLP */
    /* define the choices of a model */
    dls_norm norm;
    double norm_epsilon;
    dls_mlp mlp;
    dls_positions positions;
    dls_rope rope;              /* rotary: theta, scaling; dim 0: the whole head */
    int qkv_bias, proj_bias, mlp_bias;  /* 1: these linear layers have one */
    int tied_head;              /* 1: the head is the token table */
    double embedding_dropout, attention_dropout, residual_dropout;  /* from 0, below 1 */
    dls_recompute recompute;
    int split_backward;         /* 1: plan for every I before the first W */
    int frozen;                 /* 1: forward passes only, no room for gradients */
    int unplaced;               /* 1: others take room for parameters and gradients */
    int imagined;               /* 1: passes are only recorded: no table of angles */
    dls_moe moe;                /* zeroed: the MLPs are dense */
    dls_sharding sharding;      /* how layers are cut; zeroed: not at all */
    int from_unit, to_unit;     /* to_unit > 0: only units from_unit ... to_unit - 1, and
                                   others take room for the activations */
} dls_transformer_config;

/* declare the configuration calls */
/* The two families: every field is filled in. kv_heads: for GPT-2 that of the queries;
   head_size: channels / heads. Check before use. */
dls_transformer_config dls_transformer_gpt2(int vocabulary, int context, int layers,
                                            int heads, int channels);
dls_transformer_config dls_transformer_llama(int vocabulary, int context, int layers,
                                             int heads, int kv_heads, int channels,
                                             int hidden);

/* Reads the section `model`; what can not be is DLS_ERR_INPUT with its line. */
dls_status dls_transformer_config_load(dls_transformer_config *c, dls_config *cfg);

/* The same rules for a structure from elsewhere: "model.heads: expected ...". */
dls_status dls_transformer_config_check(const dls_transformer_config *c);

/* 1: what its layers hold goes to other ranks, so that it has to lie in memory that a
 * communicator may touch. */
static inline int dls_transformer_travels(const dls_transformer_config *c)
{
    return dls_sharding_travels(&c->sharding) || c->moe.experts > 0;
}

/* The rotation with its dim filled in. */
dls_rope dls_transformer_rope(const dls_transformer_config *c);

/* "model.KEY=VALUE\n" for every setting that shapes the model, and the way back. `name`
   stands for the file in messages; lines of other sections are passed over. */
enum { DLS_MODEL_SETTINGS = 4096 };
void dls_transformer_settings(const dls_transformer_config *c,
                              char text[DLS_MODEL_SETTINGS]);
dls_status dls_transformer_config_parse(dls_transformer_config *c, const char *name,
                                        const char *settings);

/* The number of parameters, by the formula in the chapter. */
size_t dls_transformer_parameter_count(const dls_transformer_config *c);

/* Those of them that one token passes: of the experts the chosen ones only. */
size_t dls_transformer_active_count(const dls_transformer_config *c);
#ifdef __cplusplus
}
#endif
#endif
