/* code/model/expert_block.c: from chapters/08-mixture-of-experts-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* The expert layer of a block: the activation, the shared expert, and the layer. */
#include "model/expert_block.h"

#include <stdio.h>

#include "layers/expert_layer.h"
#include "layers/tensor.h"

/* choose where experts are */
int dls_block_has_experts(const dls_transformer_config *c, int i)
{
    return c->moe.experts > 0 && i >= c->moe.dense_layers;
}

/* make the activation of experts */
static dls_layer *activation(dls_build *b, const dls_transformer_config *c, int F)
{
    dls_layer *l = c->mlp == DLS_MLP_SWIGLU ? dls_swiglu(b, F)
                 : c->mlp == DLS_MLP_GELU ? dls_gelu(b, F) : dls_gelu_erf(b, F);
    if (l && c->recompute == DLS_RECOMPUTE_SELECTIVE)
        l->discarded = 1;
    return l;
}

/* make the shared expert */
static dls_layer *shared_expert(dls_build *b, const char *name,
                                const dls_transformer_config *c, double std,
                                double out_std)
{
    int F = c->moe.shared * c->moe.hidden, up = c->mlp == DLS_MLP_SWIGLU ? 2 * F : F;
    char fc[DLS_PARAM_NAME], proj[DLS_PARAM_NAME];
    dls_layer *inner[3];
    snprintf(fc, sizeof fc, "%s.shared.fc", name);
    snprintf(proj, sizeof proj, "%s.shared.proj", name);
    /* make the parts of the shared expert */
    inner[0] = dls_linear(b, fc, c->channels, up, 0, std);
    inner[1] = activation(b, c, F);
    inner[2] = dls_linear(b, proj, F, c->channels, 0, out_std);
    return c->mlp == DLS_MLP_GELU ? dls_gelu_mlp(b, inner) : dls_sequence(b, inner, 3);
}

/* make the experts of a block */
dls_layer *dls_block_experts(dls_build *b, const char *name,
                             const dls_transformer_config *c, double std, double out_std)
{
    dls_sharding parts = {.tensor = b->sharding.expert_tensor,
                          .tensor_rank = b->sharding.expert_tensor_rank};
    int F = (int)dls_tensor_units(&parts, c->moe.hidden).count, sliced = b->sliced;
    int before = b->params->n;
    /* make what is inside of an expert layer */
    b->sliced = 0;              // what is inside has rows of its own
    dls_layer *shared = c->moe.shared == 0 ? NULL
                      : shared_expert(b, name, c, std, out_std);
    dls_layer *act = activation(b, c, F);
    for (int i = before; i < b->params->n; i++)
        b->params->items[i].partial = b->sharding.tensor > 1;
    b->sliced = sliced;
    return dls_expert_layer(b, name, c->channels, &c->moe, act, shared, std, out_std);
}
