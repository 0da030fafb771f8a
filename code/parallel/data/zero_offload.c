/* code/parallel/data/zero_offload.c: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* The optimizer's state in the host's memory, and its work on the host's cores. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/adamw.h"
#include "parallel/data/zero_private.h"
#include "tensor/bf16.h"
#include "vgpu/gpu.h"

#define DLS_HOST_HEADER "kernels/adamw_host.h"
#include "kernels/host_pair.h"

/* define the offload */
struct zero_offload {
    cudaStream_t down, work, up;
    char *grads;          // (elements) pinned, of the type in which they are kept
    char *values;         // (elements) pinned, of the model's type
    float *wide;          // (the largest slice): narrow gradients, widened
    double *coefficient;  // pinned
};

/* What one core complex moves to and from its memory, bytes per second: 8 channels of
 * DDR5 give about twice this on paper. The virtual clock's only number about the host. */
static const double host_memory_rate = 150e9;

/* take the memory of the host */
static size_t largest_slice(const dls_zero *z)
{
    size_t most = 1;
    for (int u = 0; u < z->nunits; u++)
        most = z->units[u].slice > most ? z->units[u].slice : most;
    return most;
}

static dls_status make_streams(struct zero_offload *o)
{
    cudaStream_t *streams[] = {&o->down, &o->work, &o->up};
    const char *names[] = {"gradients down", "optimizer", "values up"};
    for (int i = 0; i < 3; i++) {
        DLS_CUDA(cudaStreamCreateWithFlags(streams[i], cudaStreamNonBlocking));
        DLS_CUDA(dls_gpu_name_stream(*streams[i], names[i]));
    }
    return DLS_OK;
}

dls_status zero_offload_create(dls_zero *z)
{
    size_t n = z->elements, wide = dls_dtype_size(z->wide);
    size_t narrow = dls_dtype_size(z->ctx->dtype);
    struct zero_offload *o = z->off = calloc(1, sizeof *o);
    z->m = calloc(n, wide);
    z->v = calloc(n, wide);
    z->master = z->wide == z->ctx->dtype ? NULL : calloc(n, wide);
    if (!o || !z->m || !z->v || (z->wide != z->ctx->dtype && !z->master))
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for the state of %zu numbers", n);
    if (z->kept != z->wide && !(o->wide = calloc(largest_slice(z), sizeof *o->wide)))
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for a slice");
    DLS_CUDA(cudaMallocHost((void **)&o->grads, n * dls_dtype_size(z->kept)));
    DLS_CUDA(cudaMallocHost((void **)&o->values, n * narrow));
    DLS_CUDA(cudaMallocHost((void **)&o->coefficient, sizeof(double)));
    memset(o->values, 0, n * narrow);
    return make_streams(o);
}

void zero_offload_destroy(dls_zero *z)
{
    struct zero_offload *o = z->off;
    if (!o)
        return;
    cudaStream_t streams[] = {o->down, o->work, o->up};
    for (int i = 0; i < 3; i++)
        if (streams[i])
            cudaStreamDestroy(streams[i]);
    void *pinned[] = {o->grads, o->values, o->coefficient};
    for (int i = 0; i < 3; i++)
        if (pinned[i])
            cudaFreeHost(pinned[i]);
    free(o->wide);
    free(z->master);
    free(z->m);
    free(z->v);
    free(o);
}

dls_status zero_offload_values(dls_zero *z, void *host)
{
    memcpy(host, z->master ? z->master : z->off->values,
           z->elements * dls_dtype_size(z->wide));
    return DLS_OK;
}

void zero_offload_put(dls_zero *z, const void *rounded)
{
    memcpy(z->off->values, rounded, z->elements * dls_dtype_size(z->ctx->dtype));
}

/* send a gradient down */
dls_status zero_offload_gradient(dls_zero *z, int u)
{
    size_t size = dls_dtype_size(z->kept);
    DLS_TRY(zero_let(z, z->off->down, z->stream));
    DLS_CUDA(cudaMemcpyAsync(z->off->grads + z->units[u].at * size, zero_grad_slice(z, u),
                             z->units[u].slice * size, cudaMemcpyDeviceToHost,
                             z->off->down));
    return DLS_OK;
}

/* update on the host */
typedef struct host_update {
    dls_zero *z;
    int u;
    double lr;
    int64_t step;
} host_update;

static dls_adamw_rates rates_of(const host_update *h, int decay)
{
    const dls_adamw_options *w = &h->z->o.adamw;
    return (dls_adamw_rates){
        w->beta1, 1 - w->beta1, w->beta2, 1 - w->beta2,
        1 / (1 - pow(w->beta1, (double)h->step)),
        1 / (1 - pow(w->beta2, (double)h->step)), h->lr, w->epsilon,
        decay ? w->weight_decay : 0};
}

static const void *wide_gradient(const dls_zero *z, int u)
{
    size_t at = z->units[u].at;
    const dls_bfloat16 *narrow = (const dls_bfloat16 *)z->off->grads + at;
    if (z->kept == z->wide)
        return z->off->grads + at * dls_dtype_size(z->wide);
    for (size_t i = 0; i < z->units[u].slice; i++)
        z->off->wide[i] = dls_widen_bf16(narrow[i]);
    return z->off->wide;
}

static void update_stretch(const host_update *h, const void *grads, zero_stretch s)
{
    const dls_zero *z = h->z;
    size_t at = z->units[h->u].at + s.at;
    dls_adamw_rates r = rates_of(h, s.decay);
    const double *c = z->off->coefficient;
    if (z->ctx->dtype == DLS_F64)
        dls_adamw_f64((double *)z->off->values + at, NULL, (const double *)grads + s.at,
                      (double *)z->m + at, (double *)z->v + at, s.count, r, c);
    else if (z->ctx->dtype == DLS_F32)
        dls_adamw_f32((float *)z->off->values + at, NULL, (const float *)grads + s.at,
                      (float *)z->m + at, (float *)z->v + at, s.count, r, c);
    else
        dls_adamw_bf16((dls_bfloat16 *)z->off->values + at, (float *)z->master + at,
                       (const float *)grads + s.at, (float *)z->m + at,
                       (float *)z->v + at, s.count, r, c);
}

static int run_update(void *arg, double start, double *finish)
{
    const host_update *h = arg;
    const dls_zero *z = h->z;
    const void *grads = wide_gradient(z, h->u);
    size_t wide = dls_dtype_size(z->wide), narrow = dls_dtype_size(z->ctx->dtype);
    size_t bytes = 5 * wide + (z->master ? 2 * wide + narrow : 2 * narrow);
    for (zero_stretch s = {0}; zero_next_stretch(z, h->u, &s);)
        update_stretch(h, grads, s);
    *finish = start + (double)(z->units[h->u].slice * bytes) / host_memory_rate;
    return 0;
}

/* step on the host */
static dls_status enqueue_update(dls_zero *z, int u, double lr, int64_t step)
{
    dls_gpu_op op = {.name = "adamw on the host", .kind = DLS_GPU_HOST,
                     .run = run_update, .destroy = free};
    host_update *h = malloc(sizeof *h);
    if (!h)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for an operation");
    *h = (host_update){z, u, lr, step};
    DLS_CUDA(dls_gpu_enqueue(z->off->work, &op, h));
    return DLS_OK;
}

static dls_status send_up(dls_zero *z, int u)
{
    size_t size = dls_dtype_size(z->ctx->dtype);
    DLS_TRY(zero_let(z, z->off->up, z->off->work));
    DLS_CUDA(cudaMemcpyAsync(zero_value_slice(z, u),
                             z->off->values + z->units[u].at * size,
                             z->units[u].slice * size, cudaMemcpyHostToDevice,
                             z->off->up));
    DLS_TRY(zero_let(z, z->stream, z->off->up));
    return zero_send_values(z, u);
}

dls_status zero_offload_step(dls_zero *z, double lr, int64_t step)
{
    struct zero_offload *o = z->off;
    DLS_TRY(zero_let(z, o->down, z->ctx->stream));
    DLS_CUDA(cudaMemcpyAsync(o->coefficient, z->scalars + 2, sizeof(double),
                             cudaMemcpyDeviceToHost, o->down));
    DLS_TRY(zero_let(z, o->work, o->down));
    for (int u = 0; u < z->nunits; u++) {
        DLS_TRY(enqueue_update(z, u, lr, step));
        DLS_TRY(send_up(z, u));
    }
    return zero_let(z, z->ctx->stream, o->up);
}
