/* code/tensor/ladder/square.cu: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Step 5. A block computes a 128 x 128 tile of C, each of 256 threads an 8 x 8 square.
 *
 * Per 64 multiply-adds of a warp: 16 requests to shared memory and 48 wavefronts, since
 * the reads of a have 2-way and those of b 4-way bank conflicts.
 */
#include "tensor/ladder/ladder.cuh"

enum { ROWS = 128, COLUMNS = 128, DEPTH = 8, EACH = 8 };
enum { THREADS = ROWS * COLUMNS / (EACH * EACH), ACROSS = COLUMNS / EACH };

/* multiply a square per thread */
__global__ void __launch_bounds__(THREADS) ladder_square(dls_ladder_product p)
{
    __shared__ float a[ROWS][DEPTH];
    __shared__ float b[DEPTH][COLUMNS];
    const float *A = (const float *)p.A, *B = (const float *)p.B;
    int t = threadIdx.x, i0 = blockIdx.x * ROWS, j0 = blockIdx.y * COLUMNS;
    int row = t / ACROSS * EACH, column = t % ACROSS * EACH;
    float sum[EACH][EACH] = {{0}};
    for (int l0 = 0; l0 < p.K; l0 += DEPTH) {
        /* load two tiles element by element */
        for (int e = t; e < ROWS * DEPTH; e += THREADS)
            a[e / DEPTH][e % DEPTH] =
                element_or_zero(A, p.M, p.K, i0 + e / DEPTH, l0 + e % DEPTH);
        for (int e = t; e < DEPTH * COLUMNS; e += THREADS)
            b[e / COLUMNS][e % COLUMNS] =
                element_or_zero(B, p.K, p.N, l0 + e / COLUMNS, j0 + e % COLUMNS);
        __syncthreads();
        /* multiply one square */
        for (int l = 0; l < DEPTH; l++) {
            float x[EACH], y[EACH];
        #pragma unroll
            for (int e = 0; e < EACH; e++) {
                x[e] = a[row + e][l];
                y[e] = b[l][column + e];
            }
        #pragma unroll
            for (int i = 0; i < EACH; i++)
        #pragma unroll
                for (int j = 0; j < EACH; j++)
                    sum[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    /* store one square */
    #pragma unroll
    for (int i = 0; i < EACH; i++)
    #pragma unroll
        for (int j = 0; j < EACH; j++)
            if (i0 + row + i < p.M && j0 + column + j < p.N)
                store(p.C, (size_t)(i0 + row + i) * p.N + j0 + column + j,
                      p.alpha * sum[i][j], p.beta);
}

/* launch the square step */
extern "C" dls_status dls_ladder_square(cudaStream_t stream, const dls_ladder_product *p)
{
    dim3 grid(tiles(p->M, ROWS), tiles(p->N, COLUMNS));
    ladder_square<<<grid, THREADS, 0, stream>>>(*p);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}
