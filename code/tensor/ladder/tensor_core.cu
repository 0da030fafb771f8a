/* code/tensor/ladder/tensor_core.cu: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Step 9. bf16 in, f32 out, by mma.sync: 8 warps of 64 x 32, fed by cp.async and ldmatrix
 * from tiles whose 16-byte pieces are swizzled instead of padded.
 *
 * Per 1024 multiply-adds of a warp: 6 requests to shared memory, 24 wavefronts.
 */
#include <stdint.h>

#include "tensor/ladder/fetch.cuh"

enum { ROWS = 128, COLUMNS = 128, DEPTH = 32, THREADS = 256 };
enum { WARP_ROWS = 64, WARP_COLUMNS = 32 };
enum { DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8 };  // fragments of a warp

/* swizzle the pieces */
struct stage {
    uint16_t a[ROWS][DEPTH];     // bits of bf16; pieces of 8 are swizzled
    uint16_t b[DEPTH][COLUMNS];
};

static __device__ inline uint16_t *piece_of_a(stage *s, int row, int piece)
{
    return &s->a[row][(piece ^ (row / 2 % 4)) * 8];
}

static __device__ inline uint16_t *piece_of_b(stage *s, int row, int piece)
{
    return &s->b[row][(piece ^ (row % 8)) * 8];
}

/* fetch two swizzled tiles */
static __device__ inline void fetch(stage *s, const dls_ladder_product &p, int i0, int j0,
                                    int l0)
{
    for (int e = threadIdx.x; e < ROWS * DEPTH / 8; e += THREADS)
        fetch_16(piece_of_a(s, e / 4, e % 4), (const uint16_t *)p.A, p.M, p.K, i0 + e / 4,
                 l0 + e % 4 * 8);
    for (int e = threadIdx.x; e < DEPTH * COLUMNS / 8; e += THREADS)
        fetch_16(piece_of_b(s, e / 16, e % 16), (const uint16_t *)p.B, p.K, p.N,
                 l0 + e / 16, j0 + e % 16 * 8);
    dls_cp_async_commit();
}

/* multiply by tensor core */
static __device__ inline void multiply(float sum[DOWN][ACROSS][4], stage *s, int row,
                                       int column, int l)
{
    int lane = threadIdx.x % 32;
    uint32_t a[DOWN][4], b[ACROSS / 2][4];
#pragma unroll
    for (int i = 0; i < DOWN; i++)
        dls_ldmatrix_x4(a[i], piece_of_a(s, row + 16 * i + lane % 16, l / 8 + lane / 16));
#pragma unroll
    for (int j = 0; j < ACROSS / 2; j++)
        dls_ldmatrix_x4_trans(b[j], piece_of_b(s, l + lane % 16,
                                               column / 8 + 2 * j + lane / 16));
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int j = 0; j < ACROSS; j++)
            dls_mma_m16n8k16_bf16(sum[i][j], a[i], &b[j / 2][j % 2 * 2], sum[i][j]);
}

/* store the fragments */
static __device__ inline void store_tile(const dls_ladder_product &p, int i, int j,
                                         const float sum[4])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int e = 0; e < 4; e++) {
        int r = i + lane / 4 + e / 2 * 8, c = j + lane % 4 * 2 + e % 2;
        if (r < p.M && c < p.N)
            store(p.C, (size_t)r * p.N + c, p.alpha * sum[e], p.beta);
    }
}

/* multiply bf16 matrices */
__global__ void __launch_bounds__(THREADS) ladder_tensor_core(dls_ladder_product p)
{
    __shared__ __align__(128) stage stages[2];
    int warp = threadIdx.x / 32, i0 = blockIdx.x * ROWS, j0 = blockIdx.y * COLUMNS;
    int row = warp / 4 * WARP_ROWS, column = warp % 4 * WARP_COLUMNS;
    float sum[DOWN][ACROSS][4] = {{{0}}};
    fetch(&stages[0], p, i0, j0, 0);
    for (int l0 = 0; l0 < p.K; l0 += DEPTH) {
        stage *s = &stages[l0 / DEPTH % 2];
        dls_cp_async_wait<0>();
        __syncthreads();
        if (l0 + DEPTH < p.K)
            fetch(&stages[(l0 / DEPTH + 1) % 2], p, i0, j0, l0 + DEPTH);
#pragma unroll
        for (int l = 0; l < DEPTH; l += 16)
            multiply(sum, s, row, column, l);
    }
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int j = 0; j < ACROSS; j++)
            store_tile(p, i0 + row + 16 * i, j0 + column + 8 * j, sum[i][j]);
}

/* launch the tensor core step */
extern "C" dls_status dls_ladder_tensor_core(cudaStream_t stream,
                                             const dls_ladder_product *p)
{
    dim3 grid(tiles(p->M, ROWS), tiles(p->N, COLUMNS));
    ladder_tensor_core<<<grid, THREADS, 0, stream>>>(*p);
    DLS_CUDA(cudaGetLastError());
    return DLS_OK;
}
