/* code/tensor/ladder/warp.cu: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Step 8. As step 7, by 4 warps: each computes a 64 x 64 tile, each thread of it 8 rows
 * and 4 quads of columns.
 *
 *   row    = 64 (warp / 2) + 8 i + lane / 4         i = 0 ... 7
 *   column = 64 (warp % 2) + 16 q + 4 (lane % 4)    q = 0 ... 3
 *
 * Per 512 multiply-adds of a warp: 24 requests to shared memory, 96 wavefronts.
 */
#include "tensor/ladder/fetch.cuh"

enum { ROWS = 128, COLUMNS = 128, DEPTH = 8, WARP_ROWS = 64, WARP_COLUMNS = 64 };
enum { THREADS = 128, DOWN = 8, QUADS = 4 };

/* fetch two tiles by four warps */
struct stage {
    float a[ROWS][DEPTH];
    float b[DEPTH][COLUMNS];
};

static __device__ inline void fetch(stage *s, const dls_ladder_product &p, int i0, int j0,
                                    int l0)
{
    for (int e = threadIdx.x; e < ROWS * DEPTH / 4; e += THREADS)
        fetch_16(&s->a[e / 2][e % 2 * 4], (const float *)p.A, p.M, p.K, i0 + e / 2,
                 l0 + e % 2 * 4);
    for (int e = threadIdx.x; e < DEPTH * COLUMNS / 4; e += THREADS)
        fetch_16(&s->b[e / 32][e % 32 * 4], (const float *)p.B, p.K, p.N, l0 + e / 32,
                 j0 + e % 32 * 4);
    dls_cp_async_commit();
}

/* multiply warp tiles */
__global__ void __launch_bounds__(THREADS) ladder_warp(dls_ladder_product p)
{
    __shared__ __align__(16) stage stages[2];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int i0 = blockIdx.x * ROWS, j0 = blockIdx.y * COLUMNS;
    int row = warp / 2 * WARP_ROWS + lane / 4;
    int column = warp % 2 * WARP_COLUMNS + lane % 4 * 4;
    float sum[DOWN][QUADS * 4] = {{0}};
    fetch(&stages[0], p, i0, j0, 0);
    for (int l0 = 0; l0 < p.K; l0 += DEPTH) {
        stage *s = &stages[l0 / DEPTH % 2];
        dls_cp_async_wait<0>();
        __syncthreads();
        if (l0 + DEPTH < p.K)
            fetch(&stages[(l0 / DEPTH + 1) % 2], p, i0, j0, l0 + DEPTH);
        /* multiply one stage of a warp */
        #pragma unroll
        for (int l4 = 0; l4 < DEPTH; l4 += 4) {
            float x[DOWN][4], y[QUADS * 4];
        #pragma unroll
            for (int i = 0; i < DOWN; i++)
                as_quad(x[i]) = as_quad(&s->a[row + 8 * i][l4]);
        #pragma unroll
            for (int l = 0; l < 4; l++) {
        #pragma unroll
                for (int q = 0; q < QUADS; q++)
                    as_quad(y + 4 * q) = as_quad(&s->b[l4 + l][column + 16 * q]);
        #pragma unroll
                for (int i = 0; i < DOWN; i++)
        #pragma unroll
                    for (int j = 0; j < QUADS * 4; j++)
                        sum[i][j] += x[i][l] * y[j];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int q = 0; q < QUADS; q++)
            store_quad(p.C, p.M, p.N, i0 + row + 8 * i, j0 + column + 16 * q, p.alpha,
                       &sum[i][4 * q], p.beta);
}

/* launch the warp step */
extern "C" dls_status dls_ladder_warp(cudaStream_t stream, const dls_ladder_product *p)
{
    dim3 grid(tiles(p->M, ROWS), tiles(p->N, COLUMNS));
    ladder_warp<<<grid, THREADS, 0, stream>>>(*p);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}
