/* code/layers/balance.c: from chapters/08-router-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* The balance of a model: a bias and a tally for each expert layer, on the device. */
#include <math.h>
#include <stdlib.h>

#include "layers/router.h"

/* open a balance */
size_t dls_balance_bytes(int layers, int experts, dls_dtype dtype)
{
    return layers * (experts + dls_tally_length(experts))
         * dls_dtype_size(dls_dtype_accumulator(dtype));
}

static size_t row_bytes(const dls_balance *b, size_t row)
{
    return b->layers * row * dls_dtype_size(dls_dtype_accumulator(b->ctx->dtype));
}

dls_status dls_balance_clear(dls_balance *b)
{
    if (b->layers > 0)
        DLS_CUDA(cudaMemsetAsync(b->tally, 0, row_bytes(b, dls_tally_length(b->experts)),
                                 b->ctx->stream));
    return DLS_OK;
}

dls_status dls_balance_open(dls_balance *out, dls_ctx *ctx, int layers, int experts)
{
    *out = (dls_balance){.ctx = ctx, .layers = layers, .experts = experts};
    if (layers == 0)
        return DLS_OK;
    DLS_TRY(dls_flat_buffer(&out->bias, row_bytes(out, experts), DLS_MEM_ACTIVATIONS));
    DLS_TRY(dls_flat_buffer(&out->tally, row_bytes(out, dls_tally_length(experts)),
                            DLS_MEM_ACTIVATIONS));
    DLS_CUDA(cudaMemsetAsync(out->bias, 0, row_bytes(out, experts), ctx->stream));
    return dls_balance_clear(out);
}

void dls_balance_close(dls_balance *b)
{
    dls_device_free(b->bias);
    dls_device_free(b->tally);
    *b = (dls_balance){0};
}
/* step a balance */
static void *of_layer(const dls_balance *b, void *all, int layer, size_t row)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(b->ctx->dtype));
    return (char *)all + layer * row * size;
}

dls_status dls_balance_step(dls_balance *b, double rate)
{
    int E = b->experts;
    for (int l = 0; rate != 0 && l < b->layers; l++)
        DLS_TRY(dls_router_bias(b->ctx, of_layer(b, b->bias, l, E),
                                of_layer(b, b->tally, l, dls_tally_length(E)), E, rate));
    return DLS_OK;
}
/* read a balance */
static double number(const dls_balance *b, const void *from, size_t i)
{
    return dls_dtype_accumulator(b->ctx->dtype) == DLS_F64 ? ((const double *)from)[i]
                                                           : ((const float *)from)[i];
}

static void summarise(const dls_balance *b, const void *t, dls_load *load)
{
    double most = 0, least = INFINITY, dropped = 0;
    int E = b->experts;
    *load = (dls_load){.experts = E, .tokens = number(b, t, 2 * E + DLS_TALLY_TOKENS)};
    for (int e = 0; e < E; e++) {
        load->rows += number(b, t, e);
        dropped += number(b, t, E + e);
        most = fmax(most, number(b, t, e));
        least = fmin(least, number(b, t, e));
    }
    if (load->rows == 0 || load->tokens == 0)
        return;
    /* take the means of a tally */
    load->most = most * E / load->rows;
    load->least = least * E / load->rows;
    load->violation = load->most - 1;
    load->dropped = dropped / load->rows;
    load->batch = number(b, t, 2 * E + DLS_TALLY_BATCH) / load->tokens;
    load->sequence = number(b, t, 2 * E + DLS_TALLY_SEQUENCE) / load->tokens;
    load->z = number(b, t, 2 * E + DLS_TALLY_Z) / load->tokens;
    load->entropy = number(b, t, 2 * E + DLS_TALLY_ENTROPY) / load->tokens;
}
dls_status dls_balance_read(const dls_balance *b, int layer, dls_load *load,
                            double *chosen, double *dropped)
{
    size_t n = dls_tally_length(b->experts);
    double t[n];                // room for either type
    if (layer < 0 || layer >= b->layers)
        return DLS_FAIL(DLS_ERR_STATE, "expert layer %d of %d", layer, b->layers);
    DLS_CUDA(cudaMemcpyAsync(t, of_layer(b, b->tally, layer, n),
                             row_bytes(b, n) / b->layers, cudaMemcpyDeviceToHost,
                             b->ctx->stream));
    DLS_TRY(dls_ctx_sync(b->ctx));
    summarise(b, t, load);
    /* give out rows by expert */
    for (int e = 0; e < b->experts; e++) {
        if (chosen)
            chosen[e] = number(b, t, e);
        if (dropped)
            dropped[e] = number(b, t, (size_t)b->experts + e);
    }
    return DLS_OK;
}
