/* code/kernels/attention_tiles.cuh: from chapters/10-flash-attention-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* Tiles of 16-bit rows in shared memory, for kernels of four warps that own 16 rows each:
 * swizzled, filled by cp.async, multiplied by mma.sync, written out as whole rows. */
#ifndef DLS_KERNELS_ATTENTION_TILES_CUH
#define DLS_KERNELS_ATTENTION_TILES_CUH

#include "kernels/attention_fragments.cuh"

enum { ROWS = 64, THREADS = 128 };

/* swizzle the rows */
/* Where piece `piece` (8 elements) of a row lies in a tile with D columns. */
template <int D> static __device__ inline int swizzled(int row, int piece)
{
    return row * D + (piece ^ (D % 64 == 0 ? row % 8 : row / 2 % 4)) * 8;
}

/* fetch rows of a tile */
/* Starts the copies of `count` rows, of which `rows` exist, with `pieces` pieces each. */
template <int D>
static __device__ inline void fetch_rows(uint16_t *tile, const uint16_t *from,
                                         size_t stride, int count, int rows, int pieces)
{
    for (int e = threadIdx.x; e < count * (D / 8); e += THREADS) {
        int row = e / (D / 8), piece = e % (D / 8);
        int inside = row < rows && piece < pieces;
        dls_cp_async_16_zfill(&tile[swizzled<D>(row, piece)],
                              inside ? from + row * stride + piece * 8 : from,
                              inside ? 16 : 0);
    }
}

/* load rows as an operand */
/* Rows row ... row + 15 of a tile, channels 16d ... 16d + 15, as a left operand. */
template <int D>
static __device__ inline void load_rows(uint32_t a[4], const uint16_t *tile, int row,
                                        int d)
{
    int lane = threadIdx.x % 32;
    dls_ldmatrix_x4(a, &tile[swizzled<D>(row + lane % 16, 2 * d + lane / 16)]);
}

/* multiply weights by values */
/* o += p (16 x N) times the N rows of the tile. */
template <int D, int N, class format>
static __device__ inline void multiply_values(float o[][4], const float p[][4],
                                              const uint16_t *values)
{
    int lane = threadIdx.x % 32;
DLS_UNROLL
    for (int n = 0; n < N / 16; n++) {
        uint32_t a[4], b[4];
        attention_pack<format>(a, &p[2 * n]);
DLS_UNROLL
        for (int d = 0; d < D / 16; d++) {
            dls_ldmatrix_x4_trans(b, &values[swizzled<D>(16 * n + lane % 16,
                                                         2 * d + lane / 16)]);
            format::mma(o[2 * d], a, b);
            format::mma(o[2 * d + 1], a, b + 2);
        }
    }
}

/* store the output rows */
/* Puts the warp's 16 rows from fragments into its rows of `tile`. */
template <int D, class format>
static __device__ inline void gather_rows(uint16_t *tile, int row, const float o[][4],
                                          const float factor[2])
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
DLS_UNROLL
    for (int n = 0; n < D / 8; n++)
DLS_UNROLL
        for (int h = 0; h < 2; h++) {
            uint32_t pair = format::pack(o[n][2 * h] * factor[h],
                                         o[n][2 * h + 1] * factor[h]);
            *(uint32_t *)&tile[swizzled<D>(row + g + 8 * h, n) + 2 * t] = pair;
        }
}

/* Copies rows row ... row + 15 of the tile to the output: the `rows` that exist. */
template <int D>
static __device__ inline void store_rows(uint16_t *out, size_t stride,
                                         const uint16_t *tile, int row, int rows,
                                         int pieces)
{
    for (int e = threadIdx.x % 32; e < 16 * (D / 8); e += 32) {
        int r = row + e / (D / 8), piece = e % (D / 8);
        if (r < rows && piece < pieces)
            *(uint4 *)(out + r * stride + piece * 8) =
                *(const uint4 *)&tile[swizzled<D>(r, piece)];
    }
}
#endif
