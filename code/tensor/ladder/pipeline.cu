/* code/tensor/ladder/pipeline.cu: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Step 7. As step 6, with two buffers: cp.async fetches a tile while the one before it is
 * multiplied. One barrier per tile instead of two; A stays as it is in memory.
 *
 * Per 256 multiply-adds of a warp: 16 requests to shared memory, 64 wavefronts.
 */
#include "tensor/ladder/fetch.cuh"

enum { ROWS = 128, COLUMNS = 128, DEPTH = 8, EACH = 8, HALF = COLUMNS / 2 };
enum { THREADS = ROWS * COLUMNS / (EACH * EACH), ACROSS = COLUMNS / EACH };

/* fetch two tiles */
struct stage {
    float a[ROWS][DEPTH];
    float b[DEPTH][COLUMNS];
};

static __device__ inline void fetch(stage *s, const dls_ladder_product &p, int i0, int j0,
                                    int l0)
{
    int t = threadIdx.x;
    fetch_16(&s->a[t / 2][t % 2 * 4], (const float *)p.A, p.M, p.K, i0 + t / 2,
             l0 + t % 2 * 4);
    fetch_16(&s->b[t / 32][t % 32 * 4], (const float *)p.B, p.K, p.N, l0 + t / 32,
             j0 + t % 32 * 4);
    dls_cp_async_commit();
}

/* multiply while the next tile travels */
__global__ void __launch_bounds__(THREADS) ladder_pipeline(dls_ladder_product p)
{
    __shared__ __align__(16) stage stages[2];
    int t = threadIdx.x, i0 = blockIdx.x * ROWS, j0 = blockIdx.y * COLUMNS;
    int row = t / ACROSS * EACH, column = t % ACROSS * 4;
    float sum[EACH][EACH] = {{0}};
    fetch(&stages[0], p, i0, j0, 0);
    for (int l0 = 0; l0 < p.K; l0 += DEPTH) {
        stage *s = &stages[l0 / DEPTH % 2];
        dls_cp_async_wait<0>();  // this thread's part of s has arrived
        __syncthreads();         // everybody's part; and nobody reads the other stage
        if (l0 + DEPTH < p.K)
            fetch(&stages[(l0 / DEPTH + 1) % 2], p, i0, j0, l0 + DEPTH);
        /* multiply one stage */
        #pragma unroll
        for (int l4 = 0; l4 < DEPTH; l4 += 4) {
            float x[EACH][4], y[EACH];
        #pragma unroll
            for (int i = 0; i < EACH; i++)
                as_quad(x[i]) = as_quad(&s->a[row + i][l4]);
        #pragma unroll
            for (int l = 0; l < 4; l++) {
                as_quad(y) = as_quad(&s->b[l4 + l][column]);
                as_quad(y + 4) = as_quad(&s->b[l4 + l][HALF + column]);
        #pragma unroll
                for (int i = 0; i < EACH; i++)
        #pragma unroll
                    for (int j = 0; j < EACH; j++)
                        sum[i][j] += x[i][l] * y[j];
            }
        }
    }
    /* store one square by quads */
    #pragma unroll
    for (int i = 0; i < EACH; i++)
    #pragma unroll
        for (int half = 0; half < 2; half++)
            store_quad(p.C, p.M, p.N, i0 + row + i, j0 + half * HALF + column, p.alpha,
                       &sum[i][half * 4], p.beta);
}

/* launch the pipeline step */
extern "C" dls_status dls_ladder_pipeline(cudaStream_t stream,
                                          const dls_ladder_product *p)
{
    dim3 grid(tiles(p->M, ROWS), tiles(p->N, COLUMNS));
    ladder_pipeline<<<grid, THREADS, 0, stream>>>(*p);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}
