/* code/kernels/grouped.cu: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* One kernel for the products of many groups. Every group is cut into tiles of 32 x 32 of
 * its result; the tiles of all groups are numbered through, and a block takes every
 * gridDim.x-th of them, whatever group it belongs to. */
#include "kernels/grouped_internal.h"

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/grouped_host.h"
#include "kernels/host_pair.h"

enum { TILE = DLS_GROUP_TILE, STEP = 16, LINES = 8, PER_THREAD = TILE / LINES };

/* multiply tiles of a group */
/* A thread has column threadIdx.x of a tile, and rows threadIdx.y + 8 i. */
template <typename acc>
__device__ inline void multiply_tiles(acc sum[PER_THREAD], const acc a[TILE][STEP + 1],
                                      const acc b[STEP][TILE + 1])
{
    for (int l = 0; l < STEP; l++)
        for (int i = 0; i < PER_THREAD; i++)
            sum[i] += a[threadIdx.y + LINES * i][l] * b[l][threadIdx.x];
}

/* which group has this tile */
template <typename table>
__device__ inline int group_of(const table &t, int tile)
{
    int low = 0, high = t.groups - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (t.tiles[middle] <= tile)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* multiply rows by tiles */
/* y (rows, N) := x (rows, K) W^T, W (N, K), when turned; x W, W (K, N), else. */
template <typename real, typename acc = dls_acc<real>>
__global__ void grouped_rows_kernel(real *y, const real *x, dls_group_table table,
                                    int turned, int N, int K)
{
    __shared__ acc a[TILE][STEP + 1], b[STEP][TILE + 1];
    int across = (N + TILE - 1) / TILE, thread = threadIdx.y * TILE + threadIdx.x;
    for (int tile = blockIdx.x; tile < table.tiles[table.groups]; tile += gridDim.x) {
        int g = group_of(table, tile), within = tile - table.tiles[g];
        int first = within / across * TILE, column = within % across * TILE;
        int begin = table.begin[g], count = table.count[g];
        const real *W = (const real *)table.weight[g];
        acc sum[PER_THREAD] = {};
        for (int k = 0; k < K; k += STEP) {
            /* fill the stripes of a groups tile */
            for (int at = thread; at < TILE * STEP; at += TILE * LINES) {
                int r = at / STEP, l = at % STEP, n = turned ? at / STEP : at % TILE;
                int m = turned ? l : at / TILE;
                a[r][l] = first + r < count && k + l < K
                    ? acc(x[(size_t)(begin + first + r) * K + k + l]) : acc(0);
                b[m][n] = column + n < N && k + m < K
                    ? acc(turned ? W[(size_t)(column + n) * K + k + m]
                                 : W[(size_t)(k + m) * N + column + n]) : acc(0);
            }
            __syncthreads();
            multiply_tiles(sum, a, b);
            __syncthreads();
        }
        /* store a groups tile */
        int c = column + threadIdx.x;
        for (int i = 0; i < PER_THREAD; i++) {
            int r = first + threadIdx.y + LINES * i;
            if (r < count && c < N)
                y[(size_t)(begin + r) * N + c] = real(sum[i]);
        }
    }
}

/* multiply weights by tiles */
/* Each group's weight gradient (N, K) += sum over its segments of y^T x, y (rows, N),
 * x (rows, K). */
template <typename real, typename acc = dls_acc<real>>
__global__ void grouped_weights_kernel(const real *y, const real *x,
                                       dls_group_table table, int N, int K)
{
    __shared__ acc a[TILE][STEP + 1], b[STEP][TILE + 1];
    int across = (K + TILE - 1) / TILE, thread = threadIdx.y * TILE + threadIdx.x;
    for (int tile = blockIdx.x; tile < table.tiles[table.groups]; tile += gridDim.x) {
        int g = group_of(table, tile), within = tile - table.tiles[g];
        int n0 = within / across * TILE, k0 = within % across * TILE;
        acc sum[PER_THREAD] = {}, *out = (acc *)table.weight[g];
        for (int s = table.from[g]; s < table.from[g + 1]; s++)
            for (int r0 = 0; r0 < table.count[s]; r0 += STEP) {
                /* fill the stripes of rows */
                for (int at = thread; at < TILE * STEP; at += TILE * LINES) {
                    int r = at / TILE, c = at % TILE;
                    size_t row = (size_t)table.begin[s] + r0 + r;
                    int inside = r0 + r < table.count[s];
                    a[c][r] = inside && n0 + c < N ? acc(y[row * N + n0 + c]) : acc(0);
                    b[r][c] = inside && k0 + c < K ? acc(x[row * K + k0 + c]) : acc(0);
                }
                __syncthreads();
                multiply_tiles(sum, a, b);
                __syncthreads();
            }
        /* store a weight tile */
        int c = k0 + threadIdx.x;
        for (int i = 0; i < PER_THREAD; i++) {
            int r = n0 + threadIdx.y + LINES * i;
            if (r < N && c < K)
                out[(size_t)r * K + c] = sum[i]
                    + (table.keep[g] ? out[(size_t)r * K + c] : acc(0));
        }
    }
}

/* launch the grouped product */
/* Work of whole tiles, and what each of them reads and writes. */
template <typename real, typename acc = dls_acc<real>>
static void announce(dls_grouped_step step, const dls_group_table *t, int N, int K)
{
    static const char *const names[] = {"grouped forward", "grouped input",
                                        "grouped weight"};
    double tile = (double)TILE * TILE, products = 0, results = 0;
    /* count the work of tiles */
    for (int g = 0; g < t->groups; g++) {
        double tiles = t->tiles[g + 1] - t->tiles[g], deep = K;
        if (step == DLS_GROUPED_WEIGHT)
            deep = 0;
        for (int s = t->from[g]; step == DLS_GROUPED_WEIGHT && s < t->from[g + 1]; s++)
            deep += (t->count[s] + STEP - 1) / STEP * STEP;
        products += tiles * tile * deep;
        results += step == DLS_GROUPED_WEIGHT ? (1.0 + t->keep[g]) * N * K * sizeof(acc)
                                              : 1.0 * t->count[g] * N * sizeof(real);
    }
    dls_gpu_cost(names[step], 2 * products,
                 products * 2 / TILE * sizeof(real) + results);
}

template <typename real>
static dls_status run(dls_ctx *ctx, dls_grouped_step step, const dls_group_table *t,
                      int N, int K, real *y, const real *x)
{
    int tiles = t->tiles[t->groups], turned = step == DLS_GROUPED_FORWARD;
    unsigned blocks = (unsigned)(tiles < 528 ? tiles : 528);
    announce<real>(step, t, N, K);
    if (step == DLS_GROUPED_WEIGHT) {
        DLS_RUN_ON_HOST(ctx, dls_grouped_weights, y, x, *t, N, K);
        grouped_weights_kernel<real>
            <<<blocks, dim3(TILE, LINES), 0, ctx->stream>>>(y, x, *t, N, K);
        return dls_launched();
    }
    DLS_RUN_ON_HOST(ctx, dls_grouped_rows, y, x, *t, turned, N, K);
    grouped_rows_kernel<real>
        <<<blocks, dim3(TILE, LINES), 0, ctx->stream>>>(y, x, *t, turned, N, K);
    return dls_launched();
}

extern "C" dls_status dls_grouped_tiles(dls_ctx *ctx, dls_grouped_step step,
                                        const dls_group_table *table, int N, int K,
                                        const void *y, const void *x)
{
    if (table->groups == 0 || N == 0)
        return DLS_OK;
    return DLS_BY_TYPE(ctx, run(ctx, step, table, N, K, (real *)y, (const real *)x));
}
