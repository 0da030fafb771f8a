/* code/layers/sharding.c: from chapters/06-tensor-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Opening and closing the axes of a cut model. */
#include "layers/sharding.h"

#include "vgpu/gpu.h"

/* open the axes */
static dls_status split_tensor(dls_axes *a, int kv_heads)
{
    int t = a->sharding.tensor, sharers = kv_heads < t ? t / kv_heads : 1;
    if (!a->tensor || sharers == 1)
        return DLS_OK;
    return dls_comm_split(a->tensor, a->sharding.tensor_rank / sharers,
                          a->sharding.tensor_rank, &a->kv);
}

static dls_status split_context(dls_axes *a)
{
    int n = a->sharding.context, rank = a->sharding.context_rank;
    int u = a->sharding.way == DLS_CONTEXT_ULYSSES ? n
        : a->sharding.ulysses > 1 ? a->sharding.ulysses : 1;
    if (!a->context)
        return DLS_OK;
    if (u > 1)
        DLS_TRY(dls_comm_split(a->context, rank / u, rank, &a->ulysses));
    return n / u > 1 ? dls_comm_split(a->context, rank % u, rank, &a->ring) : DLS_OK;
}

static dls_status make_stream(dls_axes *a)
{
    DLS_CUDA(cudaStreamCreateWithFlags(&a->stream, cudaStreamNonBlocking));
    DLS_CUDA(cudaEventCreate(&a->ready));
    DLS_CUDA(cudaEventCreate(&a->arrived));
    for (int i = 0; i < DLS_AXES_PIECES; i++)
        DLS_CUDA(cudaEventCreate(&a->piece[i]));
    return DLS_OK;
}

static dls_status agree(const char *axis, int ranks, int rank, const dls_comm *comm)
{
    int size = comm ? dls_comm_size(comm) : 1, number = comm ? dls_comm_rank(comm) : 0;
    ranks = ranks > 1 ? ranks : 1;
    return ranks == size && rank == number ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "the %s axis: expected rank %d of %d, got rank %d of "
                   "%d", axis, rank, ranks, number, size);
}

dls_status dls_axes_open(dls_axes *out, const dls_sharding *sharding, int kv_heads,
                         dls_comm *tensor, dls_comm *context)
{
    const dls_sharding *by = sharding;
    dls_status s;
    *out = (dls_axes){.sharding = *by, .tensor = tensor, .context = context};
    DLS_TRY(agree("tensor", by->tensor, by->tensor_rank, tensor));
    DLS_TRY(agree("context", by->context, by->context_rank, context));
    DLS_TRY_GOTO(s, split_tensor(out, kv_heads), fail);
    DLS_TRY_GOTO(s, split_context(out), fail);
    DLS_TRY_GOTO(s, make_stream(out), fail);
    return DLS_OK;
fail:
    dls_axes_close(out);
    return s;
}

void dls_axes_close(dls_axes *axes)
{
    dls_axes_drop_experts(axes);
    dls_comm_destroy(axes->kv);
    dls_comm_destroy(axes->ring);
    dls_comm_destroy(axes->ulysses);
    for (int i = 0; i < DLS_AXES_PIECES; i++)
        if (axes->piece[i])
            cudaEventDestroy(axes->piece[i]);
    if (axes->arrived)
        cudaEventDestroy(axes->arrived);
    if (axes->ready)
        cudaEventDestroy(axes->ready);
    if (axes->stream)
        cudaStreamDestroy(axes->stream);
    *axes = (dls_axes){0};
}
