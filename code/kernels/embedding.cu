/* code/kernels/embedding.cu: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Embedding on the device. Forward: one thread per element. Backward: a gather per table
 * row in ascending order of the position, instead of a scatter with atomics, so that the
 * result is reproducible. */
#include "kernels/embedding.h"

#include <limits.h>

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/embedding_host.h"
#include "kernels/host_pair.h"

/* embed tokens on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void embedding_forward_kernel(real *out, const int *tokens, const real *wte,
                                         const int *positions, const real *wpe, int T,
                                         int C, size_t count, int first, int V)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    size_t n = i / C, c = i % C, t = positions ? (size_t)positions[n] : n % T;
    unsigned row = (unsigned)tokens[n] - (unsigned)first;
    acc token = row < (unsigned)V ? acc(wte[(size_t)row * C + c]) : acc(0);
    acc position = wpe ? acc(wpe[t * C + c]) : acc(0);
    out[i] = real(token + position);
}

/* gather the table gradient on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void embedding_backward_table_kernel(acc *dwte, const real *dout,
                                                const int *tokens, int C, int N,
                                                int first)
{
    int lane = threadIdx.x % 32, token = first + (int)blockIdx.x;
    int c = (blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32) * 32 + lane;
    size_t at = (size_t)blockIdx.x * C + c;
    acc sum = 0;
    bool found = false;
    for (int base = 0; base < N; base += 32) {
        /* add the matching positions */
        int n = base + lane;
        unsigned match = __ballot_sync(0xffffffffu, n < N && tokens[n] == token);
        if (match != 0 && !found && c < C)
            sum = dwte[at];
        found = found || match != 0;
        for (; match != 0; match &= match - 1) {
            size_t row = base + __ffs((int)match) - 1;
            if (c < C)
                sum += acc(dout[row * C + c]);
        }
    }
    if (found && c < C)
        dwte[at] = sum;
}

/* sum the position gradient on the device */
template <typename real, typename acc = dls_acc<real>>
__global__ void embedding_backward_position_kernel(acc *dwpe, const real *dout,
                                                   const int *positions, int B, int C,
                                                   size_t plane)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= plane)  // plane = T * C
        return;
    size_t at = positions ? (size_t)positions[i / C] * C + i % C : i;
    acc sum = dwpe[at];
    for (int b = 0; b < B; b++)
        sum += acc(dout[b * plane + i]);
    dwpe[at] = sum;
}

/* launch the embedding */
template <typename real, typename acc = dls_acc<real>>
static dls_status embedding_forward(dls_ctx *ctx, real *out, const int *tokens,
                                    const int *positions, const real *wte,
                                    const real *wpe, int B, int T, int C, int first,
                                    int V)
{
    size_t count = (size_t)B * T * C;
    if (count == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "embedding forward", (double)count,
                    (wpe ? 3.0 : 2.0) * count * sizeof(real) + 4.0 * B * T);
    DLS_RUN_ON_HOST(ctx, dls_embedding_forward, out, tokens, positions, wte, wpe, B, T,
                    C, first, V);
    embedding_forward_kernel<real><<<dls_blocks(count, 256), 256, 0, ctx->stream>>>(
        out, tokens, wte, positions, wpe, T, C, count, first, V);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status embedding_backward(dls_ctx *ctx, acc *dwte, acc *dwpe,
                                     const real *dout, const int *tokens,
                                     const int *positions, int B, int T, int C, int first,
                                     int V)
{
    size_t N = (size_t)B * T, plane = (size_t)T * C, rows = N < (size_t)V ? N : (size_t)V;
    if (N * C == 0)
        return DLS_OK;
    double read = (double)N * C * sizeof(real);
    double table_bytes = read + 2.0 * rows * C * sizeof(acc) + 4.0 * N;
    double position_bytes = dwpe ? read + 2.0 * T * C * sizeof(acc) : 0;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "embedding backward table", (double)N * C,
                    table_bytes);
    DLS_CHARGE_ON_HOST(ctx);
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "embedding backward position", (double)N * C,
                    position_bytes);
    DLS_RUN_ON_HOST(ctx, dls_embedding_backward, dwte, dwpe, dout, tokens, positions, B,
                    T, C, first, V);
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "embedding backward table", (double)N * C,
                    table_bytes);
    embedding_backward_table_kernel<real>
        <<<dim3((unsigned)V, dls_blocks(C, 128)), 128, 0, ctx->stream>>>(
            dwte, dout, tokens, C, (int)N, first);
    DLS_TRY(dls_launched());
    if (!dwpe)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "embedding backward position", (double)N * C,
                    position_bytes);
    embedding_backward_position_kernel<real>
        <<<dls_blocks(plane, 256), 256, 0, ctx->stream>>>(dwpe, dout, positions, B, C,
                                                          plane);
    return dls_launched();
}

/* expose the embedding */
extern "C" dls_status dls_embedding_part_forward(dls_ctx *ctx, void *out,
                                                 const int *tokens, const int *positions,
                                                 const void *wte, const void *wpe, int B,
                                                 int T, int C, int first, int V)
{
    return DLS_BY_TYPE(ctx, embedding_forward(ctx, (real *)out, tokens, positions,
                                              (const real *)wte, (const real *)wpe, B, T,
                                              C, first, V));
}

extern "C" dls_status dls_embedding_part_backward(dls_ctx *ctx, void *dwte, void *dwpe,
                                                  const void *dout, const int *tokens,
                                                  const int *positions, int B, int T,
                                                  int C, int first, int V)
{
    return DLS_BY_TYPE(ctx, embedding_backward(ctx, (acc *)dwte, (acc *)dwpe,
                                               (const real *)dout, tokens, positions, B,
                                               T, C, first, V));
}

extern "C" dls_status dls_embedding_forward(dls_ctx *ctx, void *out, const int *tokens,
                                            const int *positions, const void *wte,
                                            const void *wpe, int B, int T, int C)
{
    return dls_embedding_part_forward(ctx, out, tokens, positions, wte, wpe, B, T, C, 0,
                                      INT_MAX);
}

extern "C" dls_status dls_embedding_backward(dls_ctx *ctx, void *dwte, void *dwpe,
                                             const void *dout, const int *tokens, int B,
                                             int T, int C, int V)
{
    return dls_embedding_part_backward(ctx, dwte, dwpe, dout, tokens, NULL, B, T, C, 0,
                                       V);
}
