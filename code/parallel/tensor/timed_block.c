/* code/parallel/tensor/timed_block.c: from chapters/06-tensor-parallelism-cost.md. Edit the chapter, or edit here and run "make untangle". */
/* A block with what it needs to run alone, and two events around each pass. */
#include "parallel/tensor/timed_block.h"

#include <stdlib.h>

#include "model/block.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* make a block alone */
typedef struct block_alone {
    dls_params params;
    dls_build build;
    dls_axes axes;
    dls_plan plan;
    dls_pass pass;
    dls_layer *block;
    void *activations, *x, *dx, *rotation;
    int *pending;
    cudaEvent_t at[2];
} block_alone;

static dls_status take_memory(block_alone *b, dls_ctx *ctx, size_t N)
{
    size_t stream = N * (size_t)b->block->in * dls_dtype_size(ctx->dtype);
    DLS_TRY(dls_params_allocate(&b->params, ctx));
    DLS_TRY(dls_flat_buffer(&b->activations, dls_plan_bytes(&b->plan),
                            DLS_MEM_ACTIVATIONS));
    DLS_TRY(dls_flat_buffer(&b->x, 2 * stream, DLS_MEM_ACTIVATIONS));
    DLS_TRY(dls_flat_buffer(&b->dx, 2 * stream, DLS_MEM_ACTIVATIONS));
    b->pending = calloc((size_t)b->params.n, sizeof *b->pending);
    return b->pending ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory for a block");
}

static dls_status make_block(block_alone *b, dls_ctx *ctx,
                             const dls_transformer_config *c, int B, int T,
                             dls_comm *comm)
{
    dls_rope rope = dls_transformer_rope(c);
    b->build = (dls_build){.params = &b->params, .sharding = c->sharding,
                           .sliced = c->sharding.tensor > 1 && c->sharding.sequence};
    b->block = dls_block(&b->build, "block.0", c, 0.02, 0.02);
    DLS_TRY(b->build.status);
    DLS_TRY(dls_axes_open(&b->axes, &c->sharding, c->kv_heads, comm, NULL));
    b->plan = (dls_plan){.max_B = B, .max_T = T, .dtype = ctx->dtype};
    dls_layer_plan(b->block, &b->plan);
    DLS_TRY(take_memory(b, ctx, (size_t)B * T));
    b->pass = (dls_pass){.ctx = ctx, .params = &b->params, .axes = &b->axes, .B = B,
                         .T = T, .loss_scale = 1, .pending = b->pending};
    dls_pass_regions(&b->pass, &b->plan, b->activations);
    if (c->positions == DLS_POSITIONS_ROTARY) {
        DLS_TRY(dls_device_alloc(&b->rotation, (size_t)T * rope.dim,
                                 dls_dtype_accumulator(ctx->dtype), DLS_MEM_OTHER));
        b->pass.rotation = b->rotation;
        b->pass.rotation_length = T;
    }
    for (int i = 0; i < 2; i++)
        DLS_CUDA(cudaEventCreate(&b->at[i]));
    return DLS_OK;
}

static void free_block(block_alone *b)
{
    cudaFree(b->activations);
    cudaFree(b->x);
    cudaFree(b->dx);
    dls_device_free(b->rotation);
    for (int i = 0; i < 2; i++)
        if (b->at[i])
            cudaEventDestroy(b->at[i]);
    free(b->pending);
    dls_axes_close(&b->axes);
    dls_build_free(&b->build);
    dls_params_free(&b->params);
}

/* time a block */
static dls_status run_pass(block_alone *b, int backward)
{
    size_t stream = (size_t)b->pass.B * b->pass.T * b->block->in;
    char *x = b->x, *dx = b->dx;
    char *y = x + stream * dls_dtype_size(b->pass.ctx->dtype);
    char *dy = dx + stream * dls_dtype_size(b->pass.ctx->dtype);
    return backward ? dls_layer_backward(b->block, &b->pass, dx, dy, x, y)
                    : b->block->kind->forward(b->block, &b->pass, y, x);
}

static dls_status time_pass(block_alone *b, dls_comm *comm, int backward,
                            dls_block_pass *out)
{
    dls_comm_statistics was = {0}, is = {0};
    float ms;
    if (comm) {
        DLS_TRY(dls_comm_barrier(comm));
        was = dls_comm_stats(comm);
    }
    DLS_CUDA(cudaEventRecord(b->at[0], b->pass.ctx->stream));
    DLS_TRY(run_pass(b, backward));
    DLS_CUDA(cudaEventRecord(b->at[1], b->pass.ctx->stream));
    DLS_TRY(dls_ctx_sync(b->pass.ctx));
    DLS_CUDA(cudaEventElapsedTime(&ms, b->at[0], b->at[1]));
    if (comm)
        is = dls_comm_stats(comm);
    *out = (dls_block_pass){ms / 1e3, is.busy_seconds - was.busy_seconds,
                            is.operations - was.operations,
                            is.wire_bytes - was.wire_bytes};
    return DLS_OK;
}

static dls_status time_twice(block_alone *b, dls_comm *comm, int traced,
                             dls_block_pass *forward, dls_block_pass *backward)
{
    for (int i = 0; i < 2; i++) {
        DLS_TRY(dls_params_zero_grads(&b->params, b->pass.ctx));
        DLS_TRY(dls_ctx_sync(b->pass.ctx));
        dls_trace_enable(traced && i == 1);
        dls_status s = time_pass(b, comm, 0, forward);
        if (s == DLS_OK)
            s = time_pass(b, comm, 1, backward);
        dls_trace_enable(0);
        DLS_TRY(s);
    }
    return DLS_OK;
}

dls_status dls_time_block(dls_ctx *ctx, const dls_transformer_config *c, int B, int T,
                          dls_comm *comm, int traced, dls_block_pass *forward,
                          dls_block_pass *backward)
{
    block_alone b = {0};
    DLS_TRY(dls_transformer_config_check(c));
    dls_status s = make_block(&b, ctx, c, B, T, comm);
    if (s == DLS_OK)
        s = time_twice(&b, comm, traced, forward, backward);
    free_block(&b);
    return s;
}
