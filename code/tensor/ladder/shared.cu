/* code/tensor/ladder/shared.cu: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Step 3. A block computes a 32 x 32 tile of C, operands through shared memory.
 *
 * Per 32 multiply-adds of a warp: 2 requests of 4 sectors each to device memory.
 * Per multiply-add: 2 requests to shared memory, 2 wavefronts, no conflict.
 */
#include "tensor/ladder/ladder.cuh"

enum { TILE = 32 };

/* multiply tiles from shared memory */
__global__ void ladder_shared(dls_ladder_product p)
{
    __shared__ float a[TILE][TILE];
    __shared__ float b[TILE][TILE];
    const float *A = (const float *)p.A, *B = (const float *)p.B;
    int x = threadIdx.x, y = threadIdx.y;
    int i = blockIdx.x * TILE + y, j = blockIdx.y * TILE + x;
    float sum = 0;
    for (int l0 = 0; l0 < p.K; l0 += TILE) {
        a[y][x] = element_or_zero(A, p.M, p.K, i, l0 + x);
        b[y][x] = element_or_zero(B, p.K, p.N, l0 + y, j);
        __syncthreads();  // both tiles are complete
        for (int l = 0; l < TILE; l++)
            sum += a[y][l] * b[l][x];
        __syncthreads();  // nobody reads them any more
    }
    if (i < p.M && j < p.N)
        store(p.C, (size_t)i * p.N + j, p.alpha * sum, p.beta);
}

/* launch the shared step */
extern "C" dls_status dls_ladder_shared(cudaStream_t stream, const dls_ladder_product *p)
{
    dim3 block(TILE, TILE), grid(tiles(p->M, TILE), tiles(p->N, TILE));
    ladder_shared<<<grid, block, 0, stream>>>(*p);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}
