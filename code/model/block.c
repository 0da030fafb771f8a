/* code/model/block.c: from chapters/09-transformer-model-families.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The block: residual(norm, attention), residual(norm, MLP), and what is recomputed.
 */
#include "model/block.h"

#include <stdio.h>

/* name a part */
typedef struct part_name { char text[DLS_PARAM_NAME]; } part_name;

static part_name part(dls_build *b, const char *whole, const char *name)
{
    part_name p;
    int n = snprintf(p.text, sizeof p.text, "%s.%s", whole, name);
    if (n >= (int)sizeof p.text && b->status == DLS_OK)
        b->status = DLS_FAIL(DLS_ERR_INPUT, "layer name %s.%s is too long", whole, name);
    return p;
}

/* compose the block */
dls_layer *dls_block_norm(dls_build *b, const char *name, const dls_transformer_config *c)
{
    return dls_layernorm(b, name, c->channels);
}

static dls_layer *self_attention(dls_build *b, const char *name,
                                 const dls_transformer_config *c, double std,
                                 double out_std)
{
    int q = c->heads * c->head_size, row = q + 2 * c->kv_heads * c->head_size;
    dls_layer *inner[3];
    inner[0] = dls_linear(b, part(b, name, "qkv").text, c->channels, row, c->qkv_bias,
                          std);
    inner[1] = dls_attention(b, c->heads, c->kv_heads, c->head_size);
    inner[2] = dls_linear(b, part(b, name, "proj").text, q, c->channels, c->proj_bias,
                          out_std);
    return dls_sequence(b, inner, 3);
}

static dls_layer *mlp(dls_build *b, const char *name, const dls_transformer_config *c,
                      double std, double out_std)
{
    int C = c->channels, F = c->hidden;
    dls_layer *inner[3];
    inner[0] = dls_linear(b, part(b, name, "fc").text, C, F, c->mlp_bias, std);
    inner[1] = dls_gelu(b, F);
    if (inner[1] && c->recompute == DLS_RECOMPUTE_SELECTIVE)
        inner[1]->discarded = 1;
    inner[2] = dls_linear(b, part(b, name, "proj").text, F, C, c->mlp_bias, out_std);
    return dls_sequence(b, inner, 3);
}

static dls_layer *bypassed(dls_build *b, dls_layer *norm, dls_layer *f,
                           const dls_transformer_config *c)
{
    dls_layer *inner[2] = {norm, f};
    if (norm && c->recompute == DLS_RECOMPUTE_SELECTIVE)
        norm->discarded = 1;
    return dls_residual(b, dls_sequence(b, inner, 2));
}

dls_layer *dls_block(dls_build *b, const char *name, const dls_transformer_config *c,
                     double std, double out_std)
{
    dls_layer *norm, *f, *halves[2];
    norm = dls_block_norm(b, part(b, name, "ln1").text, c);
    f = self_attention(b, part(b, name, "attention").text, c, std, out_std);
    halves[0] = bypassed(b, norm, f, c);
    norm = dls_block_norm(b, part(b, name, "ln2").text, c);
    f = mlp(b, part(b, name, "mlp").text, c, std, out_std);
    halves[1] = bypassed(b, norm, f, c);
    f = dls_sequence(b, halves, 2);
    return c->recompute == DLS_RECOMPUTE_FULL ? dls_recomputed(b, f) : f;
}
