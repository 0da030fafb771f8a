/* code/tensor/ladder/coalesced.cu: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Step 2. One thread per element of C; the 32 threads of a warp take 32 columns.
 *
 * Per multiply-add of a warp: 2 requests, 1 sector of A and 4 of B.
 */
#include "tensor/ladder/ladder.cuh"

/* multiply with x along the columns */
__global__ void ladder_coalesced(dls_ladder_product p)
{
    const float *A = (const float *)p.A, *B = (const float *)p.B;
    int i = blockIdx.x * 8 + threadIdx.y, j = blockIdx.y * 32 + threadIdx.x;
    if (i >= p.M || j >= p.N)
        return;
    float sum = 0;
    for (int l = 0; l < p.K; l++) {
        float a = A[(size_t)i * p.K + l];
        float b = B[(size_t)l * p.N + j];
        sum += a * b;
    }
    store(p.C, (size_t)i * p.N + j, p.alpha * sum, p.beta);
}

/* launch the coalesced step */
extern "C" dls_status dls_ladder_coalesced(cudaStream_t stream,
                                           const dls_ladder_product *p)
{
    dim3 block(32, 8), grid(tiles(p->M, 8), tiles(p->N, 32));
    ladder_coalesced<<<grid, block, 0, stream>>>(*p);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}
