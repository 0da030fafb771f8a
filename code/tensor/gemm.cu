/* code/tensor/gemm.cu: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* Two matrix products of our own, for any size and all four transpositions.
 *
 *   naive   a thread per element of C, everything from device memory   I = 2/(s + s/32)
 *   tiled   a block per 16 x 16 tile of C, operands through shared     I = 16/s
 *
 * (I: FLOPs per byte asked for, s: bytes per number.) A 32 x 32 tile would have twice the
 * intensity, and 1024 threads per block, of which a multiprocessor holds only two.
 */
#include <cuda_runtime.h>

#include "tensor/accumulator.cuh"
#include "tensor/gemm_internal.h"
#include "tensor/store.cuh"

enum { TILE = 16 };

/* read and store elements */
/* Element (i, j) of op(X), which has the shape (rows, columns). */
template <typename real, typename acc = dls_acc<real>>
static __host__ __device__ inline acc element(const real *X, int trans, int rows,
                                              int columns, int i, int j)
{
    return acc(trans ? X[(size_t)j * rows + i] : X[(size_t)i * columns + j]);
}

/* multiply naively */
/* C (M, N) = alpha op(A) (M, K) op(B) (K, N) + beta C, one thread per element. */
template <typename real, typename result, typename acc = dls_acc<real>>
__global__ void gemm_naive_kernel(int trans_a, int trans_b, int M, int N, int K,
                                  acc alpha, const real *A, const real *B, acc beta,
                                  result *C)
{
    int i = blockIdx.x * blockDim.y + threadIdx.y;
    int j = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= M || j >= N)
        return;
    acc sum = 0;
    for (int l = 0; l < K; l++)
        sum += element(A, trans_a, M, K, i, l) * element(B, trans_b, K, N, l, j);
    store(C, (size_t)i * N + j, alpha * sum, beta);
}

/* load a tile */
/* tile[r][c] = op(X)[row + r][column + c], zero outside; op(X) has (rows, columns). */
template <typename real, typename acc = dls_acc<real>>
static __device__ inline void load_tile(acc tile[TILE][TILE + 1], const real *X,
                                        int trans, int rows, int columns, int row,
                                        int column)
{
    int r = trans ? threadIdx.x : threadIdx.y;
    int c = trans ? threadIdx.y : threadIdx.x;
    int inside = row + r < rows && column + c < columns;
    tile[r][c] = inside ? element(X, trans, rows, columns, row + r, column + c) : acc(0);
}

/* multiply by tiles */
/* The same product; each block computes a TILE x TILE tile of C, by as many threads. */
template <typename real, typename result, typename acc = dls_acc<real>>
__global__ void gemm_tiled_kernel(int trans_a, int trans_b, int M, int N, int K,
                                  acc alpha, const real *A, const real *B, acc beta,
                                  result *C)
{
    __shared__ acc a[TILE][TILE + 1];
    __shared__ acc b[TILE][TILE + 1];
    int i0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
    acc sum = 0;
    for (int l0 = 0; l0 < K; l0 += TILE) {
        load_tile(a, A, trans_a, M, K, i0, l0);
        load_tile(b, B, trans_b, K, N, l0, j0);
        __syncthreads();  // both tiles are complete
        for (int l = 0; l < TILE; l++)
            sum += a[threadIdx.y][l] * b[l][threadIdx.x];
        __syncthreads();  // nobody reads them any more
    }
    int i = i0 + threadIdx.y, j = j0 + threadIdx.x;
    if (i < M && j < N)
        store(C, (size_t)i * N + j, alpha * sum, beta);
}

/* multiply in plain c */
#ifndef __CUDACC__
template <typename real, typename result, typename acc>
static void multiply_on_host(int trans_a, int trans_b, int M, int N, int K, acc alpha,
                             const real *A, const real *B, acc beta, result *C)
{
    enum { STRIP = 128 };
    for (int i = 0; i < M; i++)
        for (int from = 0; from < N; from += STRIP) {
            int width = N - from < STRIP ? N - from : STRIP;
            acc sums[STRIP] = {};
            for (int l = 0; l < K; l++) {
                acc a = element(A, trans_a, M, K, i, l);
                for (int j = 0; j < width; j++)
                    sums[j] += a * element(B, trans_b, K, N, l, from + j);
            }
            for (int j = 0; j < width; j++)
                store(C, (size_t)i * N + from + j, alpha * sums[j], beta);
        }
}
#endif

/* annotate the traffic */
static void annotate(const struct dls_gemm_call *g, int tiled, double size,
                     double result)
{
    double products = (double)g->M * g->N * g->K, results = (double)g->M * g->N;
    double per_product = tiled ? 2 * size / TILE
                               : size / 32 + (g->trans_b ? 32.0 : size);
    dls_gpu_cost(tiled ? "gemm tiled" : "gemm naive", 2 * products,
                 products * per_product + results * result * (g->beta != 0 ? 2 : 1));
}

/* launch a gemm kernel */
template <typename real, typename result, typename acc = dls_acc<real>>
static dls_status launch(dls_ctx *ctx, const struct dls_gemm_call *g, int tiled)
{
    const real *A = (const real *)g->A, *B = (const real *)g->B;
    result *C = (result *)g->C;
    acc alpha = (acc)g->alpha, beta = (acc)g->beta;
    int K = g->alpha == 0 ? 0 : g->K;  // A and B are then not read
    int width = tiled ? TILE : 32, height = tiled ? TILE : 8;
    dim3 block(width, height);
    dim3 grid((g->M - 1) / height + 1, (g->N - 1) / width + 1);
    if (grid.y > 65535)
        return DLS_FAIL(DLS_ERR_STATE,
                        "gemm: N %d: this kernel takes at most %d columns",
                        g->N, 65535 * width);
    annotate(g, tiled, sizeof(real), sizeof(result));
    /* multiply on the host instead */
    #ifndef __CUDACC__
    if (dls_gpu_use_host_kernels()) {
        DLS_CUDA(dls_gpu_host_launch(ctx->stream, multiply_on_host<real, result, acc>,
                                     g->trans_a, g->trans_b, g->M, g->N, K, alpha, A, B, beta,
                                     C));
        return DLS_OK;
    }
    #endif
    if (tiled)
        gemm_tiled_kernel<real, result><<<grid, block, 0, ctx->stream>>>(
            g->trans_a, g->trans_b, g->M, g->N, K, alpha, A, B, beta, C);
    else
        gemm_naive_kernel<real, result><<<grid, block, 0, ctx->stream>>>(
            g->trans_a, g->trans_b, g->M, g->N, K, alpha, A, B, beta, C);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}

/* offer the two kernels */
static dls_status launch_by_type(dls_ctx *ctx, const struct dls_gemm_call *g, int tiled)
{
    if (ctx->dtype == DLS_F32)
        return launch<float, float>(ctx, g, tiled);
    if (ctx->dtype == DLS_F64)
        return launch<double, double>(ctx, g, tiled);
    return g->c_dtype == DLS_F32 ? launch<__nv_bfloat16, float>(ctx, g, tiled)
                                 : launch<__nv_bfloat16, __nv_bfloat16>(ctx, g, tiled);
}

extern "C" dls_status dls_gemm_naive(dls_ctx *ctx, const struct dls_gemm_call *call)
{
    return launch_by_type(ctx, call, 0);
}

extern "C" dls_status dls_gemm_tiled(dls_ctx *ctx, const struct dls_gemm_call *call)
{
    return launch_by_type(ctx, call, 1);
}
