/* code/kernels/rope_table.c: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* The angles of rotary embedding, in double: frequencies under each scaling, and the
 * table of cosines and sines. Sources, by scaling:
 *   plain    Su et al. 2021, section 3.2.2
 *   linear   Chen et al. 2023, equation 4
 *   dynamic  bloc97 and emozilla 2023, as in Hugging Face's `dynamic`
 *   yarn     Peng et al. 2024, section 3; the ramp over indices as in their program
 *   llama3   apply_scaling of the reference code of Llama 3.1
 */
#include <math.h>
#include <stdlib.h>

#include <cuda_runtime.h>

#include "kernels/rope.h"
#include "vgpu/gpu.h"

#define TURN 6.283185307179586  /* 2 pi */

/* check the angles */
static dls_status check_rope(const dls_rope *r)
{
    if (r->dim < 2 || r->dim % 2 != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "rope: dim %d; channels are turned in pairs",
                        r->dim);
    if (!(r->theta > 1 && isfinite(r->theta)))
        return DLS_FAIL(DLS_ERR_INPUT, "rope: theta %g must be above 1", r->theta);
    if (r->scaling == DLS_ROPE_PLAIN)
        return DLS_OK;
    if (!(r->factor >= 1 && isfinite(r->factor)))
        return DLS_FAIL(DLS_ERR_INPUT, "rope: factor %g must be at least 1", r->factor);
    /* check what the scaling needs */
    if (r->scaling != DLS_ROPE_LINEAR && r->original < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "rope: original_max_position_embeddings %d; "
                        "this scaling must know the training length", r->original);
    if (r->scaling == DLS_ROPE_LLAMA3
        && !(r->low_freq_factor > 0 && r->low_freq_factor < r->high_freq_factor))
        return DLS_FAIL(DLS_ERR_INPUT, "rope: low_freq_factor %g must be positive and below "
                        "high_freq_factor %g", r->low_freq_factor, r->high_freq_factor);
    return DLS_OK;
}

/* compute a frequency */
static double llama3_frequency(const dls_rope *r, double plain)
{
    double turns = r->original * plain / TURN;
    double share = (turns - r->low_freq_factor)
                 / (r->high_freq_factor - r->low_freq_factor);
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    return share * plain + (1 - share) * plain / r->factor;
}

/* The index of the pair that makes this many turns within the training context. */
static double pair_of_turns(const dls_rope *r, double turns)
{
    return r->dim * log(r->original / (turns * TURN)) / (2 * log(r->theta));
}

static double yarn_frequency(const dls_rope *r, double plain, int pair)
{
    double low = pair_of_turns(r, r->beta_fast > 0 ? r->beta_fast : 32);
    double high = pair_of_turns(r, r->beta_slow > 0 ? r->beta_slow : 1);
    low = fmax(r->untruncated ? low : floor(low), 0);
    high = fmin(r->untruncated ? high : ceil(high), r->dim - 1);
    double share = (pair - low) / (high == low ? 0.001 : high - low);
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    return (1 - share) * plain + share * plain / r->factor;
}

static double frequency(const dls_rope *r, double plain, int pair)
{
    switch (r->scaling) {
    case DLS_ROPE_LINEAR: return plain / r->factor;
    case DLS_ROPE_YARN: return yarn_frequency(r, plain, pair);
    case DLS_ROPE_LLAMA3: return llama3_frequency(r, plain);
    default: return plain;
    }
}

static double yarn_attention(const dls_rope *r)
{
    double growth = 0.1 * log(r->factor);
    if (r->attention_factor > 0)
        return r->attention_factor;
    if (r->mscale > 0 && r->mscale_all_dim > 0)
        return (r->mscale * growth + 1) / (r->mscale_all_dim * growth + 1);
    return growth + 1;
}

/* compute the frequencies */
dls_status dls_rope_frequencies(const dls_rope *rope, int length, double *frequencies,
                                double *attention_factor)
{
    DLS_TRY(check_rope(rope));
    double theta = rope->theta;
    if (rope->scaling == DLS_ROPE_DYNAMIC && length > rope->original)
        theta *= pow(rope->factor * length / rope->original - (rope->factor - 1),
                     rope->dim / (rope->dim - 2.0));
    for (int p = 0; p < rope->dim / 2; p++)
        frequencies[p] = frequency(rope, pow(theta, -2.0 * p / rope->dim), p);
    *attention_factor = rope->scaling == DLS_ROPE_YARN ? yarn_attention(rope) : 1;
    return DLS_OK;
}

/* upload the table */
static dls_status upload(dls_ctx *ctx, void *table, const void *host, size_t bytes)
{
    if (bytes == 0)
        return DLS_OK;
    DLS_CUDA(cudaMemcpyAsync(table, host, bytes, cudaMemcpyHostToDevice, ctx->stream));
    return dls_ctx_sync(ctx);
}

/* fill the table */
static void fill_table(void *table, dls_dtype type, const double *frequencies,
                       double scale, int length, int half)
{
    for (size_t m = 0; m < (size_t)length; m++)
        for (int p = 0; p < half; p++) {
            double angle = (double)m * frequencies[p];
            double c = scale * cos(angle), s = scale * sin(angle);
            size_t at = 2 * m * half + p;
            if (type == DLS_F64) {
                ((double *)table)[at] = c;
                ((double *)table)[at + half] = s;
            } else {
                ((float *)table)[at] = (float)c;
                ((float *)table)[at + half] = (float)s;
            }
        }
}

dls_status dls_rope_table(dls_ctx *ctx, void *table, const dls_rope *rope, int length)
{
    DLS_TRY(check_rope(rope));
    if (length < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "rope: a table of %d positions", length);
    dls_dtype type = dls_dtype_accumulator(ctx->dtype);
    size_t bytes = (size_t)length * rope->dim * dls_dtype_size(type);
    double scale, *frequencies = malloc(sizeof(double) * (rope->dim / 2));
    void *host = malloc(bytes > 0 ? bytes : 1);
    dls_status status = DLS_OK;
    if (frequencies == NULL || host == NULL)
        status = DLS_FAIL(DLS_ERR_MEMORY, "rope: no memory for %d positions", length);
    if (status == DLS_OK)
        status = dls_rope_frequencies(rope, length, frequencies, &scale);
    if (status == DLS_OK) {
        fill_table(host, type, frequencies, scale, length, rope->dim / 2);
        status = upload(ctx, table, host, bytes);
    }
    free(host);
    free(frequencies);
    return status;
}
