/* code/tensor/ladder/column.cu: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Step 4. A block computes a 64 x 64 tile of C, each of its 512 threads a column of 8.
 *
 * Per 8 multiply-adds of a warp: 9 requests to shared memory, 9 wavefronts, no conflict.
 */
#include "tensor/ladder/ladder.cuh"

enum { ROWS = 64, COLUMNS = 64, DEPTH = 8, EACH = 8, THREADS = ROWS * COLUMNS / EACH };

/* multiply a column per thread */
__global__ void __launch_bounds__(THREADS) ladder_column(dls_ladder_product p)
{
    __shared__ float a[ROWS][DEPTH];
    __shared__ float b[DEPTH][COLUMNS];
    const float *A = (const float *)p.A, *B = (const float *)p.B;
    int t = threadIdx.x, i0 = blockIdx.x * ROWS, j0 = blockIdx.y * COLUMNS;
    int row = t / COLUMNS * EACH, column = t % COLUMNS;
    float sum[EACH] = {0};
    for (int l0 = 0; l0 < p.K; l0 += DEPTH) {
        a[t / DEPTH][t % DEPTH] =
            element_or_zero(A, p.M, p.K, i0 + t / DEPTH, l0 + t % DEPTH);
        b[t / COLUMNS][t % COLUMNS] =
            element_or_zero(B, p.K, p.N, l0 + t / COLUMNS, j0 + t % COLUMNS);
        __syncthreads();
        /* multiply one column */
        for (int l = 0; l < DEPTH; l++) {
            float y = b[l][column];
        #pragma unroll
            for (int i = 0; i < EACH; i++)
                sum[i] += a[row + i][l] * y;
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (i0 + row + i < p.M && j0 + column < p.N)
            store(p.C, (size_t)(i0 + row + i) * p.N + j0 + column, p.alpha * sum[i],
                  p.beta);
}

/* launch the column step */
extern "C" dls_status dls_ladder_column(cudaStream_t stream, const dls_ladder_product *p)
{
    dim3 grid(tiles(p->M, ROWS), tiles(p->N, COLUMNS));
    ladder_column<<<grid, THREADS, 0, stream>>>(*p);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}
