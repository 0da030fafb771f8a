/* tests/parallel/bench_overlap.c: from chapters/06-sequence-parallelism-overlap.md. Edit the chapter, or edit here and run "make untangle". */
/* A gathered and a scattered product on the virtual clock, in pieces.
 * bench_overlap RANKS ROWS CHANNELS COLUMNS [TRACE CHUNKS]; run with
 * DLS_KERNELS=timed. COLUMNS: of the whole weight, shared by the ranks. */
#include "draw_two.h"

#include <stdio.h>
#include <stdlib.h>

#include "comm/launch.h"
#include "layers/overlap.h"
#include "layers/param.h"
#include "tensor/memory.h"

/* set up a timed product */
typedef struct timed {
    int ranks, rows, channels, columns;
    const char *trace;          /* NULL: a table */
    int chunks;                 /* to be traced */
    dls_comm *comm;
    dls_ctx ctx;
    dls_axes axes;
    void *slice, *all, *wide, *room, *weight;
} timed;

static dls_status open_timed(timed *b, int rank)
{
    size_t N = (size_t)b->rows, C = (size_t)b->channels, F = (size_t)b->columns;
    dls_sharding s = {.tensor = b->ranks, .tensor_rank = rank, .sequence = 1};
    DLS_TRY(dls_comm_create(&b->comm, NULL));
    DLS_TRY(dls_ctx_create(&b->ctx, dls_gpu_local_rank(), DLS_BF16));
    DLS_TRY(dls_axes_open(&b->axes, &s, b->ranks, b->comm, NULL));
    DLS_CUDA(dls_gpu_name_stream(b->ctx.stream, "compute"));
    DLS_CUDA(dls_gpu_name_stream(b->axes.stream, "exchange"));
    const struct { void **at; size_t count; } rooms[] = {
        {&b->slice, N * C / b->ranks}, {&b->all, N * C}, {&b->room, N * C},
        {&b->wide, N * F / b->ranks}, {&b->weight, F * C / b->ranks}};
    for (int i = 0; i < 5; i++)
        DLS_TRY(dls_flat_buffer(rooms[i].at, 2 * rooms[i].count, DLS_MEM_OTHER));
    return DLS_OK;
}

/* time an overlapped product */
enum { TOGETHER, PRODUCT, EXCHANGE };

static dls_status enqueue(timed *b, int scatter, int what)
{
    dls_axes alone = {0};
    int columns = b->columns / b->ranks;
    dls_row_product p = {b->rows, scatter ? columns : b->channels,
                         scatter ? b->channels : columns, 1, b->weight, NULL, NULL};
    size_t count = (size_t)b->rows * b->channels / b->ranks;
    if (what == EXCHANGE && scatter)
        return dls_comm_reduce_scatter(b->comm, b->all, b->slice, count, DLS_BF16,
                                       DLS_SUM, b->ctx.stream);
    if (what == EXCHANGE)
        return dls_comm_all_gather(b->comm, b->slice, b->all, count, DLS_BF16,
                                   b->ctx.stream);
    const dls_axes *axes = what == PRODUCT ? &alone : &b->axes;
    return scatter ? dls_product_scatter(axes, &b->ctx, &p, what ? b->all : b->slice,
                                         b->room, b->wide)
                   : dls_gather_product(axes, &b->ctx, &p, b->wide, b->room,
                                        what ? b->all : b->slice, 0);
}

static dls_status time_one(timed *b, int scatter, int what, double *us)
{
    DLS_TRY(dls_ctx_sync(&b->ctx));
    DLS_TRY(dls_comm_barrier(b->comm));
    double from = dls_gpu_host_time();
    DLS_TRY(enqueue(b, scatter, what));
    DLS_TRY(dls_ctx_sync(&b->ctx));
    *us = 1e6 * (dls_gpu_host_time() - from);
    return DLS_OK;
}

/* print the times of all pieces */
static dls_status print_times(timed *b, int rank)
{
    static const int pieces[] = {0, 1, 2, 4};
    double us[2][3];
    for (int s = 0; s < 2; s++)
        for (int what = PRODUCT; what <= EXCHANGE; what++)
            DLS_TRY(time_one(b, s, what, &us[s][what]));
    if (rank == 0)
        printf("%d rows, %d and %d columns, %d ranks: product %.1f us, gather %.1f, "
               "scatter %.1f\n chunks   gather  exposed  scatter  exposed\n", b->rows,
               b->channels, b->columns, b->ranks, us[0][1], us[0][2], us[1][2]);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        b->axes.sharding.chunks = pieces[i] ? pieces[i] * b->ranks : 1;
        for (int s = 0; s < 2; s++)
            DLS_TRY(time_one(b, s, TOGETHER, &us[s][0]));
        if (rank == 0)
            printf("%7d %8.1f %8.1f %8.1f %8.1f\n", b->axes.sharding.chunks, us[0][0],
                   us[0][0] - us[0][1], us[1][0], us[1][0] - us[1][1]);
    }
    return fflush(stdout) == 0 ? DLS_OK : DLS_FAIL(DLS_ERR_IO, "can not print");
}

/* trace one of them */
static dls_status trace(timed *b, int rank)
{
    char path[256];
    double us;
    b->axes.sharding.chunks = b->chunks;
    DLS_TRY(time_one(b, 0, TOGETHER, &us));
    dls_trace_enable(1);
    DLS_TRY(time_one(b, 0, TOGETHER, &us));
    DLS_TRY(time_one(b, 1, TOGETHER, &us));
    snprintf(path, sizeof path, "%s-%d.json", b->trace, rank);
    return dls_trace_save(path);
}

/* run the overlap bench */
static dls_status run_rank(int rank, void *arg)
{
    timed *b = arg;
    DLS_TRY(open_timed(b, rank));
    DLS_TRY(b->trace ? trace(b, rank) : print_times(b, rank));
    return dls_comm_barrier(b->comm);
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc == 6)
        return fprintf(stderr, "bench_overlap RANKS ROWS CHANNELS COLUMNS [TRACE CHUNKS]"
                       "\n"), 2;
    timed b = {.ranks = atoi(argv[1]), .rows = atoi(argv[2]), .channels = atoi(argv[3]),
               .columns = atoi(argv[4]), .trace = argc > 6 ? argv[5] : NULL,
               .chunks = argc > 6 ? atoi(argv[6]) : 0};
    if (dls_run_ranks(b.ranks, run_rank, &b) != DLS_OK)
        return fprintf(stderr, "%s\n", dls_status_message()), 1;
    return b.trace && draw_two(b.trace) != DLS_OK;
}
