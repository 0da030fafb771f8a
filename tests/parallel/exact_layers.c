/* tests/parallel/exact_layers.c: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Exchanging the kinds of a transformer that is built and not yet planned. */
#include "exact_layers.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"

/* exchange the kinds */
typedef struct exchange {
    const char *name;
    const dls_layer_kind *kind;     // NULL: exact as it is
} exchange;

static const exchange exchanges[] = {
    {"layernorm", &exact_norm_kind}, {"rmsnorm", &exact_norm_kind},
    {"gelu", &exact_relu_kind}, {"gelu_erf", &exact_relu_kind},
    {"swiglu", &exact_gate_kind}, {"attention", &exact_attention_kind},
    {"head", &exact_head_kind}, {"block", &exact_block_kind},
    {"embedding", NULL}, {"linear", NULL}, {"column linear", NULL},
    {"row linear", NULL}, {"rotary", NULL},
    {"dropout", NULL}, {"sequence", NULL}, {"recompute", NULL}, {"moe", NULL}};

static dls_status exchange_one(dls_layer *l, const dls_layer_kind *sequence)
{
    if (strcmp(l->kind->name, "mlp") == 0) {    // with GELU in a product's epilogue
        l->kind = sequence;
        return DLS_OK;
    }
    for (size_t i = 0; i < sizeof exchanges / sizeof *exchanges; i++)
        if (strcmp(l->kind->name, exchanges[i].name) == 0) {
            if (exchanges[i].kind)
                l->kind = exchanges[i].kind;
            return DLS_OK;
        }
    return DLS_FAIL(DLS_ERR_STATE, "is the layer %s exact?", l->kind->name);
}

dls_status exact_exchange(dls_layer *all)
{
    const dls_layer_kind *sequence = NULL;
    for (dls_layer *l = all; l; l = l->next)
        sequence = strcmp(l->kind->name, "sequence") == 0 ? l->kind : sequence;
    for (dls_layer *l = all; l; l = l->next)
        DLS_TRY(exchange_one(l, sequence));
    return DLS_OK;
}

static dls_status exchange_all(dls_transformer *t)
{
    return exact_exchange(t->build.all);
}

/* turn by quarters */
static const double quarters[] = {1, 0, -1, 0};     // the cosine; the sine is one ahead

static dls_status turn_by_quarters(dls_transformer *t)
{
    int R = dls_transformer_rope(&t->config).dim, T = t->config.context, half = R / 2;
    dls_dtype wide = dls_dtype_accumulator(t->ctx->dtype);
    double table[(size_t)T * R];
    for (int i = 0; i < T * R; i++) {
        int turns = i / R * (i % half + 1) % 4;
        double x = quarters[i % R < half ? turns : (turns + 3) % 4];
        if (wide == DLS_F64)
            table[i] = x;
        else
            ((float *)table)[i] = (float)x;
    }
    DLS_CUDA(cudaMemcpy(t->rotation, table, (size_t)T * R * dls_dtype_size(wide),
                        cudaMemcpyHostToDevice));
    return DLS_OK;
}

dls_status exact_transformer(dls_transformer **out, dls_ctx *ctx,
                             const dls_transformer_config *config, int max_B, int max_T)
{
    DLS_TRY(dls_transformer_create_with(out, ctx, config, max_B, max_T, exchange_all));
    return (*out)->rotation ? turn_by_quarters(*out) : DLS_OK;
}

/* fill with whole numbers */
/* Of a router and of experts no weight is zero: too few numbers would get through. */
static const double *values_of(const dls_param *p)
{
    static const double values[] = {-1, 0, 0, 1}, dense[] = {-1, 1, 1, -1};
    return p->expert || strstr(p->name, ".router.") || strstr(p->name, ".shared.")
        ? dense : values;
}

void exact_layers_fill(const dls_params *set, void *host)
{
    for (int i = 0; i < set->n; i++) {
        const dls_param *p = &set->items[i];
        const double *values = values_of(p);
        uint64_t stream = dls_hash64(p->name, strlen(p->name));
        for (size_t k = 0; k < p->count; k++) {
            size_t whole = dls_param_global(p, k, NULL, NULL);
            double x = values[dls_rng_u32(3, stream, whole) % 4];
            if (dls_dtype_accumulator(set->dtype) == DLS_F64)
                ((double *)host)[p->offset + k] = x;
            else
                ((float *)host)[p->offset + k] = (float)x;
        }
    }
}
