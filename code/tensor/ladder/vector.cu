/* code/tensor/ladder/vector.cu: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Step 6. As step 5, by quads of 16 bytes; the tile of A is transposed when it is stored,
 * and a thread's columns are two quads, half a tile apart.
 *
 * Per 64 multiply-adds of a warp: 4 requests to shared memory, 16 wavefronts.
 * Sizes that are not multiples of four take the same way with scalar loads and stores.
 */
#include "tensor/ladder/quad.cuh"

enum { ROWS = 128, COLUMNS = 128, DEPTH = 8, EACH = 8, HALF = COLUMNS / 2 };
enum { THREADS = ROWS * COLUMNS / (EACH * EACH), ACROSS = COLUMNS / EACH };
enum { PITCH = ROWS + 4 };  // of the transposed tile: no bank conflicts when storing

/* multiply by quads */
__global__ void __launch_bounds__(THREADS) ladder_vector(dls_ladder_product p)
{
    __shared__ __align__(16) float a[DEPTH][PITCH];
    __shared__ __align__(16) float b[DEPTH][COLUMNS];
    const float *A = (const float *)p.A, *B = (const float *)p.B;
    int t = threadIdx.x, i0 = blockIdx.x * ROWS, j0 = blockIdx.y * COLUMNS;
    int row = t / ACROSS * EACH, column = t % ACROSS * 4;
    float sum[EACH][EACH] = {{0}};
    for (int l0 = 0; l0 < p.K; l0 += DEPTH) {
        /* load two tiles by quads */
        int r = t / 2, q = t % 2 * 4;
        float4 x4 = quad_or_zero(A, p.M, p.K, i0 + r, l0 + q);
        a[q][r] = x4.x;
        a[q + 1][r] = x4.y;
        a[q + 2][r] = x4.z;
        a[q + 3][r] = x4.w;
        as_quad(&b[t / 32][t % 32 * 4]) =
            quad_or_zero(B, p.K, p.N, l0 + t / 32, j0 + t % 32 * 4);
        __syncthreads();
        /* multiply one square by quads */
        for (int l = 0; l < DEPTH; l++) {
            float x[EACH], y[EACH];
            as_quad(x) = as_quad(&a[l][row]);
            as_quad(x + 4) = as_quad(&a[l][row + 4]);
            as_quad(y) = as_quad(&b[l][column]);
            as_quad(y + 4) = as_quad(&b[l][HALF + column]);
        #pragma unroll
            for (int i = 0; i < EACH; i++)
        #pragma unroll
                for (int j = 0; j < EACH; j++)
                    sum[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    /* store one square by quads */
    #pragma unroll
    for (int i = 0; i < EACH; i++)
    #pragma unroll
        for (int half = 0; half < 2; half++)
            store_quad(p.C, p.M, p.N, i0 + row + i, j0 + half * HALF + column, p.alpha,
                       &sum[i][half * 4], p.beta);
}

/* launch the vector step */
extern "C" dls_status dls_ladder_vector(cudaStream_t stream, const dls_ladder_product *p)
{
    dim3 grid(tiles(p->M, ROWS), tiles(p->N, COLUMNS));
    ladder_vector<<<grid, THREADS, 0, stream>>>(*p);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}
