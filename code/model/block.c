/* code/model/block.c: from chapters/09-transformer-model-families.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The block: residual(norm, attention), residual(norm, MLP), and what is recomputed.
 */
#include "model/block.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "layers/tensor.h"
#include "model/expert_block.h"

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
    return c->norm == DLS_NORM_RMS ? dls_rmsnorm(b, name, c->channels, c->norm_epsilon)
                                   : dls_layernorm(b, name, c->channels);
}

static dls_layer *self_attention(dls_build *b, const char *name,
                                 const dls_transformer_config *c, double std,
                                 double out_std)
{
    int H = c->heads, Hk = c->kv_heads, D = c->head_size, n = 0, sliced = b->sliced;
    const dls_section qkv[] = {{H, D}, {Hk, D}, {Hk, D}};
    dls_layer *inner[4];
    b->sliced = 0;              // a token attends to all the others
    inner[n++] = dls_column_linear(b, part(b, name, "qkv").text, c->channels, qkv, 3,
                                   c->qkv_bias, std);
    if (c->positions == DLS_POSITIONS_ROTARY)
        inner[n++] = dls_rotary(b, H, Hk, D, dls_transformer_rope(c).dim);
    inner[n++] = dls_attention(b, part(b, name, "core").text, H, Hk, D,
                               c->attention_dropout);
    b->sliced = sliced;
    inner[n++] = dls_row_linear(b, part(b, name, "proj").text, qkv[0], c->channels,
                                c->proj_bias, out_std);
    return dls_sequence(b, inner, n);
}

static dls_layer *mlp(dls_build *b, const char *name, const dls_transformer_config *c,
                      double std, double out_std)
{
    int C = c->channels, gated = c->mlp == DLS_MLP_SWIGLU, sliced = b->sliced;
    int F = (int)dls_tensor_units(&b->sharding, c->hidden).count;
    const dls_section hidden[] = {{c->hidden, 1}, {c->hidden, 1}};
    dls_layer *inner[3];
    b->sliced = 0;              // columns are cut here
    inner[0] = dls_column_linear(b, part(b, name, "fc").text, C, hidden, 1 + gated,
                                 c->mlp_bias, std);
    inner[1] = gated ? dls_swiglu(b, F)
             : c->mlp == DLS_MLP_GELU ? dls_gelu(b, F) : dls_gelu_erf(b, F);
    b->sliced = sliced;
    inner[2] = dls_row_linear(b, part(b, name, "proj").text, hidden[0], C, c->mlp_bias,
                              out_std);
    if (inner[1] && c->recompute == DLS_RECOMPUTE_SELECTIVE)
        inner[1]->discarded = 1;
    return c->mlp == DLS_MLP_GELU ? dls_gelu_mlp(b, inner) : dls_sequence(b, inner, 3);
}

static void set_branch(dls_layer *norm, dls_layer *f, const char *name,
                       const dls_transformer_config *c)
{
    if (!norm || !f)
        return;                 // the builder has failed
    norm->discarded = c->recompute == DLS_RECOMPUTE_SELECTIVE;
    f->dropout = c->residual_dropout;
    f->stream = dls_hash64(name, strlen(name));
}

dls_layer *dls_block(dls_build *b, const char *name, const dls_transformer_config *c,
                     double std, double out_std)
{
    part_name attention = part(b, name, "attention"), perceptron = part(b, name, "mlp");
    dls_layer *parts[4];
    parts[0] = dls_block_norm(b, part(b, name, "ln1").text, c);
    parts[1] = self_attention(b, attention.text, c, std, out_std);
    parts[2] = dls_block_norm(b, part(b, name, "ln2").text, c);
    parts[3] = dls_block_has_experts(c, b->unit > 0 ? b->unit - 1 : 0)
        ? dls_block_experts(b, perceptron.text, c, std, out_std)
        : mlp(b, perceptron.text, c, std, out_std);
    set_branch(parts[0], parts[1], attention.text, c);
    set_branch(parts[2], parts[3], perceptron.text, c);
    dls_layer *block = dls_pre_norm(b, parts);
    return c->recompute == DLS_RECOMPUTE_FULL ? dls_recomputed(b, block) : block;
}
