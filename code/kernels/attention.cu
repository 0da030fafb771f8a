/* code/kernels/attention.cu: from chapters/10-flash-attention-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The entrance to the attention: completes the shape and chooses the way. */
#include "kernels/attention.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/attention_decode.h"
#include "kernels/attention_hopper.h"
#include "kernels/attention_tensor.h"
#include "kernels/attention_ways.h"
#include "kernels/launch.cuh"

/* choose a way */
/* Do the queries of a group of heads fit the tile of split-KV decoding? */
static int few_queries(const dls_attention_shape *s, dls_dtype dtype)
{
    return s->Tq * (s->H / s->Hk) <= (dtype == DLS_F64 ? 4 : 8) && s->dropout == 0;
}

extern "C" dls_status dls_attention_choose(const dls_attention_shape *s, dls_dtype dtype,
                                           dls_attention_way *way)
{
    static const char *const names[] = {"naive", "flash", "tensor", "decode"};
    const char *word = getenv("DLS_ATTENTION");
    int asked = few_queries(s, dtype) && s->Tk >= 256 ? DLS_ATTENTION_DECODE
                                                      : DLS_ATTENTION_TENSOR;
    if (word != nullptr && *word != 0)
        for (asked = 0; asked < DLS_ATTENTION_WAYS; asked++)
            if (strcmp(word, names[asked]) == 0)
                break;
    if (asked == DLS_ATTENTION_WAYS)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "DLS_ATTENTION: expected naive, flash, tensor or decode, "
                        "got \"%.40s\"", word);
    if (asked == DLS_ATTENTION_DECODE && !few_queries(s, dtype))
        asked = DLS_ATTENTION_TENSOR;
    if (asked == DLS_ATTENTION_TENSOR && dtype != DLS_BF16)
        asked = DLS_ATTENTION_FLASH;
    if (s->D > DLS_FLASH_LARGEST_HEAD)
        asked = DLS_ATTENTION_NAIVE;
    *way = (dls_attention_way)asked;
    return DLS_OK;
}

/* go the naive way */
static size_t square_bytes(const dls_attention_shape *s, dls_dtype dtype)
{
    return (size_t)s->B * s->H * s->Tq * s->Tk
           * dls_dtype_size(dls_dtype_accumulator(dtype));
}

static dls_status naive_forward(dls_ctx *ctx, const dls_attention_shape *s, void *out,
                                void *lse, const void *q, const void *k, const void *v)
{
    void *att = nullptr;
    size_t bytes = square_bytes(s, ctx->dtype);
    if (bytes > 0)
        DLS_CUDA(cudaMallocAsync(&att, bytes, ctx->stream));
    dls_status status = dls_attention_naive_forward(ctx, s, out, lse, att, q, k, v);
    if (att)
        DLS_CUDA(cudaFreeAsync(att, ctx->stream));
    return status;
}

static dls_status naive_backward(dls_ctx *ctx, const dls_attention_shape *s, void *dq,
                                 void *dk, void *dv, void *temporary, const void *dout,
                                 const void *q, const void *k, const void *v)
{
    char *att = (char *)temporary, *scratch = att + square_bytes(s, ctx->dtype);
    DLS_TRY(dls_attention_naive_forward(ctx, s, nullptr, nullptr, att, q, k, v));
    return dls_attention_naive_backward(ctx, s, dq, dk, dv, scratch, dout, q, k, v, att);
}

/* enter the attention */
/* With the keys in as many parts as fill the device. */
static dls_status decode_forward(dls_ctx *ctx, const dls_attention_shape *s, void *out,
                                 void *lse, const void *q, const void *k, const void *v)
{
    void *parts = nullptr;
    int splits = dls_attention_splits(s);
    size_t bytes = dls_attention_decode_temporary(s, ctx->dtype, splits);
    if (bytes > 0)
        DLS_CUDA(cudaMallocAsync(&parts, bytes, ctx->stream));
    dls_status status = dls_attention_decode(ctx, s, splits, out, lse, parts, q, k, v);
    if (parts)
        DLS_CUDA(cudaFreeAsync(parts, ctx->stream));
    return status;
}

extern "C" dls_status dls_attention_forward(dls_ctx *ctx,
                                            const dls_attention_shape *shape,
                                            void *out, void *lse, const void *q,
                                            const void *k, const void *v)
{
    dls_attention_shape s = *shape;
    dls_attention_way way;
    DLS_TRY(dls_attention_complete(&s));
    DLS_TRY(dls_attention_choose(&s, ctx->dtype, &way));
    if (s.B == 0 || s.Tq == 0)
        return DLS_OK;
    if (way == DLS_ATTENTION_NAIVE)
        return naive_forward(ctx, &s, out, lse, q, k, v);
    if (way == DLS_ATTENTION_DECODE)
        return decode_forward(ctx, &s, out, lse, q, k, v);
    if (way == DLS_ATTENTION_TENSOR && !dls_gpu_use_host_kernels()) {
        if (dls_attention_hopper_applies(&s, out, q, k, v))
            return dls_attention_hopper_forward(ctx->stream, DLS_ATTENTION_BF16, &s, out,
                                                (float *)lse, q, k, v);
        if (dls_attention_tensor_applies(&s, out, q, k, v))
            return dls_attention_tensor_forward(ctx->stream, DLS_ATTENTION_BF16, &s, out,
                                                (float *)lse, q, k, v);
    }
    return dls_attention_flash_forward(ctx, &s, out, lse, q, k, v);
}

extern "C" dls_status dls_attention_backward(dls_ctx *ctx,
                                             const dls_attention_shape *shape,
                                             void *dq, void *dk, void *dv,
                                                 void *temporary,
                                             const void *dout, const void *q,
                                             const void *k, const void *v,
                                                 const void *out, const void *lse)
{
    dls_attention_shape s = *shape;
    dls_attention_way way;
    DLS_TRY(dls_attention_complete(&s));
    DLS_TRY(dls_attention_choose(&s, ctx->dtype, &way));
    if (s.B == 0 || (s.Tq == 0 && s.Tk == 0))
        return DLS_OK;
    if (way == DLS_ATTENTION_NAIVE)
        return naive_backward(ctx, &s, dq, dk, dv, temporary, dout, q, k, v);
    if (way == DLS_ATTENTION_TENSOR && !dls_gpu_use_host_kernels() &&
        dls_attention_tensor_backward_applies(&s, dq, dk, dv, dout, q, k, v, out))
        return dls_attention_tensor_backward(ctx->stream, DLS_ATTENTION_BF16, &s, dq, dk,
                                             dv, (float *)temporary, dout, q, k, v, out,
                                             (const float *)lse);
    return dls_attention_flash_backward(ctx, &s, dq, dk, dv, temporary, dout, q, k, v,
                                        out, lse);
}

extern "C" size_t dls_attention_temporary(const dls_attention_shape *s, dls_dtype dtype)
{
    dls_attention_way way = DLS_ATTENTION_FLASH;
    if (dls_attention_choose(s, dtype, &way) != DLS_OK || way == DLS_ATTENTION_NAIVE)
        return 2 * square_bytes(s, dtype);
    size_t elements = (size_t)s->B * s->H * s->Tq;      // Delta
    if (dtype == DLS_BF16 && dls_gpu_use_host_kernels())
        elements += (elements * s->D + 1) / 2;          // halves of the sums of dQ
    return elements * dls_dtype_size(dls_dtype_accumulator(dtype));
}
