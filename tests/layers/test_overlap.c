/* tests/layers/test_overlap.c: from chapters/06-sequence-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Products beside communication: the values, the bytes, the time. */
#include "../comm/world.h"

#include "layers/overlap.h"
#include "tensor/bf16.h"
#include "tensor/memory.h"

/* hold an overlapped product */
enum { IN = 5, OUT = 6, MOST = 5 * 7 };

typedef struct rig {
    dls_comm *comm;
    dls_axes axes;
    dls_ctx ctx;
    int t, rank, N, n;
    char *source, *x, *y, *room, *weight, *bias;
} rig;

static int value(int what, int i, int j)
{
    return (i * 7 + j * 5 + what * 3 + (i * j) % 3) % 5 - 2;
}

static void put(const rig *r, void *to, int i, double v)
{
    if (r->ctx.dtype == DLS_F64)
        ((double *)to)[i] = v;
    else if (r->ctx.dtype == DLS_F32)
        ((float *)to)[i] = (float)v;
    else
        ((dls_bfloat16 *)to)[i] = dls_narrow_bf16((float)v);
}

static double get(const rig *r, const void *from, int i)
{
    return r->ctx.dtype == DLS_F64 ? ((const double *)from)[i]
         : r->ctx.dtype == DLS_F32 ? ((const float *)from)[i]
                                   : dls_widen_bf16(((const dls_bfloat16 *)from)[i]);
}

static dls_status open_rig(rig *r, dls_comm *comm, dls_dtype dtype, int rows, int chunks)
{
    *r = (rig){.comm = comm, .t = dls_comm_size(comm), .rank = dls_comm_rank(comm)};
    r->n = rows;
    r->N = rows * r->t;
    dls_sharding s = {.tensor = r->t, .tensor_rank = r->rank, .sequence = 1,
                      .chunks = chunks};
    DLS_TRY(dls_ctx_create(&r->ctx, 0, dtype));
    DLS_TRY(dls_axes_open(&r->axes, &s, r->t, r->t > 1 ? comm : NULL, NULL));
    char **all[] = {&r->x, &r->y, &r->room, &r->weight, &r->bias, &r->source};
    for (int i = 0; i < 6; i++) {
        DLS_TRY(test_buffer(all[i], MOST * OUT * 8));
        memset(*all[i], 0xff, MOST * OUT * 8);  // NaN: what is not written shows
    }
    return DLS_OK;
}

static dls_status close_rig(rig *r)
{
    DLS_TRY(dls_ctx_sync(&r->ctx));
    DLS_CUDA(cudaStreamSynchronize(r->axes.stream));
    char *all[] = {r->x, r->y, r->room, r->weight, r->bias, r->source};
    for (int i = 0; i < 6; i++)
        DLS_CUDA(cudaFree(all[i]));
    dls_axes_close(&r->axes);
    dls_ctx_destroy(&r->ctx);
    return dls_comm_barrier(r->comm);
}

/* compare an overlapped product */
/* What row i of the result is in column o: for a gathered product, or for a sum. */
static double expected(const rig *r, int i, int o, int scatter, int turned)
{
    double sum = !scatter && turned ? value(9, 0, o) : 0;
    for (int q = 0; q < (scatter ? r->t : 1); q++)
        for (int c = 0; c < IN; c++)
            sum += value(scatter ? q : 0, i, c)
                * value(20, turned ? o : c, turned ? c : o);
    return sum;
}

static dls_row_product prepare(rig *r, int scatter, int turned)
{
    int rows = scatter ? r->N : r->n, first = scatter ? 0 : r->rank * r->n;
    for (int i = 0; i < rows * IN; i++)
        put(r, r->source, i, value(scatter ? r->rank : 0, first + i / IN, i % IN));
    int columns = turned ? IN : OUT;
    for (int i = 0; i < IN * OUT; i++)
        put(r, r->weight, i, value(20, i / columns, i % columns));
    for (int o = 0; o < OUT; o++)
        put(r, r->bias, o, value(9, 0, o));
    return (dls_row_product){r->N, IN, OUT, turned, r->weight,
                             turned && !scatter ? r->bias : NULL, NULL};
}

static dls_status compare(rig *r, int scatter, int turned)
{
    dls_row_product p = prepare(r, scatter, turned);
    uint64_t before = dls_comm_stats(r->comm).wire_bytes;
    DLS_CUDA(cudaMemcpyAsync(r->x, r->source, MOST * OUT * 8, cudaMemcpyDeviceToDevice,
                             r->ctx.stream));
    DLS_TRY(scatter ? dls_product_scatter(&r->axes, &r->ctx, &p, r->y, r->room, r->x)
                    : dls_gather_product(&r->axes, &r->ctx, &p, r->y, r->room, r->x, 1));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    DLS_CUDA(cudaStreamSynchronize(r->axes.stream));
    uint64_t sent = dls_comm_stats(r->comm).wire_bytes - before;
    size_t bytes = (size_t)(r->t - 1) * r->n * (scatter ? OUT : IN)
        * dls_dtype_size(r->ctx.dtype);
    EXPECT(sent == bytes || r->axes.sharding.chunks <= 1, "%d ranks: %zu bytes sent, "
           "expected %zu", r->t, (size_t)sent, bytes);
    int first = scatter ? r->rank * r->n : 0;
    for (int i = 0; i < (scatter ? r->n : r->N); i++)
        for (int o = 0; o < OUT; o++)
            EXPECT(get(r, r->y, i * OUT + o)
                   == expected(r, first + i, o, scatter, turned),
                   "scatter %d, chunks %d, row %d, column %d: %g", scatter,
                   r->axes.sharding.chunks, i, o, get(r, r->y, i * OUT + o));
    for (int i = 0; r->t > 1 && !scatter && i < r->N * IN; i++)
        EXPECT(get(r, r->room, i) == value(0, i / IN, i % IN), "gathered %d", i);
    return DLS_OK;
}

/* test the values of overlapped products */
static dls_status all_chunks(int rank, void *arg)
{
    static const int chunks[] = {0, 1, 2, 3, 4, 8, 9, 17, 100};
    static const dls_dtype types[] = {DLS_F32, DLS_F64, DLS_BF16};
    dls_comm *comm;
    rig r;
    (void)rank, (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        for (int k = 0; k < 4; k++) {
            DLS_TRY(open_rig(&r, comm, types[i % 3], i % 4 == 3 ? 1 : 7, chunks[i]));
            DLS_TRY(compare(&r, k / 2, k % 2));
            DLS_TRY(close_rig(&r));
        }
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(overlap, pieces_give_the_bits_of_the_whole_product)
{
    static const char *const seeds[] = {"1", "7", "77", "123", "4711"};
    for (int t = 1; t <= 5; t++) {
        setenv("DLS_SEED", seeds[t - 1], 1);
        expect_ranks(t, all_chunks, NULL);
    }
}

/* test the time of overlapped products */
enum { ROWS = 256, WIDTH = 1024 };

/* Virtual microseconds of one product, from an idle device to an idle device. */
static dls_status time_product(rig *r, int scatter, int columns, int chunks, double *us)
{
    dls_row_product p = {r->N, scatter ? columns : WIDTH, scatter ? WIDTH : columns, 1,
                         r->weight, NULL, NULL};
    dls_axes axes = r->axes;
    axes.sharding.chunks = chunks;
    axes.tensor = chunks < 0 ? NULL : axes.tensor;
    DLS_TRY(dls_comm_barrier(r->comm));
    double from = dls_gpu_host_time();
    DLS_TRY(scatter ? dls_product_scatter(&axes, &r->ctx, &p, r->y, r->room, r->x)
                    : dls_gather_product(&axes, &r->ctx, &p, r->y, r->room, r->x, 0));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    *us = 1e6 * (dls_gpu_host_time() - from);
    return DLS_OK;
}

static dls_status enlarge(rig *r)
{
    char **all[] = {&r->x, &r->y, &r->room, &r->weight};
    r->N = r->t * ROWS;
    for (int i = 0; i < 4; i++) {
        DLS_CUDA(cudaFree(*all[i]));
        DLS_TRY(test_buffer(all[i], 4 * (size_t)r->t * ROWS * WIDTH));
    }
    return DLS_OK;
}

static dls_status times(int rank, void *arg)
{
    dls_comm *comm;
    rig r;
    double wide[2][4], narrow[2], slice = 4e6 * ROWS * WIDTH * TEST_BETA;
    double add = 3 * 4e-6 * ROWS * WIDTH, last = 2e-7 * ROWS * WIDTH * 64;
    (void)rank, (void)arg;
    DLS_TRY(test_world(test_cluster(1, 4), &comm));
    DLS_TRY(open_rig(&r, comm, DLS_F32, 1, 0));
    DLS_TRY(enlarge(&r));
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < 4; i++)     // alone, at once, in slices, in halves of slices
            DLS_TRY(time_product(&r, s, WIDTH, (const int[]){-1, 0, 4, 8}[i],
                                 &wide[s][i]));
    for (int i = 0; i < 2; i++)
        DLS_TRY(time_product(&r, 0, 64, 4 * i, &narrow[i]));
    EXPECT(wide[0][1] - wide[0][0] > 35 && wide[1][1] - wide[1][0] > 35, "all at once");
    for (int i = 2; i < 4; i++)         // an event more in front of the first product
        EXPECT(fabs(wide[0][i] - wide[0][0] - 2) < 0.01, "gather: %g", wide[0][i]);
    EXPECT(fabs(wide[1][2] - wide[1][0] - 3 * add) < 0.01, "apart: %g", wide[1][2]);
    EXPECT(fabs(wide[1][3] - wide[1][0]) < 0.01, "inside: %g", wide[1][3]);
    EXPECT(fabs(narrow[1] - 3 * (2 + slice) - last - 2) < 0.01, "narrow: %g", narrow[1]);
    EXPECT(narrow[0] > narrow[1] + 8, "narrow at once: %g", narrow[0]);
    DLS_TRY(close_rig(&r));
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(overlap, what_arrives_is_multiplied_meanwhile)
{
    setenv("DLS_KERNELS", "timed", 1);
    for (int i = 0; i < 3; i++) {       // the order of execution changes no time
        setenv("DLS_SEED", (const char *[]){"1", "99", "1234"}[i], 1);
        expect_ranks(4, times, NULL);
    }
}
