/* tests/parallel/bench_sequence.c: from chapters/06-sequence-parallelism-overlap.md. Edit the chapter, or edit here and run "make untangle". */
/* Forward and backward of a cut GPT on the virtual clock.
 * bench_sequence RANKS TOKENS CHANNELS LAYERS SEQUENCE CHUNKS [TRACE]; run with
 * DLS_KERNELS=timed. Prints ms forward and backward, MB sent, MB of activations. */
#include "draw_two.h"

#include <stdio.h>
#include <stdlib.h>

#include "comm/launch.h"
#include "model/transformer.h"

/* set up a timed model */
typedef struct timed_model {
    int ranks, tokens, channels, layers, sequence, chunks;
    const char *trace;          /* NULL: nothing is drawn */
    dls_comm *comm;
    dls_ctx ctx;
    dls_axes axes;
    dls_transformer *model;
    int *ids;                   /* (2, tokens) device: whatever lies there */
} timed_model;

static dls_status open_model(timed_model *b, int rank)
{
    dls_transformer_config c = dls_transformer_gpt2(4096, b->tokens, b->layers,
                                                    b->channels / 128, b->channels);
    c.sharding = (dls_sharding){.tensor = b->ranks, .tensor_rank = rank,
                                .sequence = b->sequence, .chunks = b->chunks};
    DLS_TRY(dls_comm_create(&b->comm, NULL));
    DLS_TRY(dls_ctx_create(&b->ctx, dls_gpu_local_rank(), DLS_BF16));
    DLS_TRY(dls_axes_open(&b->axes, &c.sharding, c.kv_heads, b->comm, NULL));
    DLS_CUDA(dls_gpu_name_stream(b->ctx.stream, "compute"));
    DLS_CUDA(dls_gpu_name_stream(b->axes.stream, "exchange"));
    DLS_TRY(dls_transformer_create(&b->model, &b->ctx, &c, 1, b->tokens));
    dls_transformer_connect(b->model, &b->axes);
    return dls_device_alloc((void **)&b->ids, 2 * (size_t)b->tokens, DLS_F32,
                            DLS_MEM_OTHER);
}

/* time the passes of a model */
static dls_status pass(timed_model *b, double ms[2])
{
    double at[3];
    DLS_TRY(dls_comm_barrier(b->comm));
    at[0] = dls_gpu_host_time();
    DLS_TRY(dls_transformer_forward(b->model, b->ids, b->ids + b->tokens, 1, b->tokens));
    DLS_TRY(dls_ctx_sync(&b->ctx));
    at[1] = dls_gpu_host_time();
    DLS_TRY(dls_transformer_backward(b->model, 1, NULL));
    DLS_TRY(dls_ctx_sync(&b->ctx));
    at[2] = dls_gpu_host_time();
    ms[0] = 1e3 * (at[1] - at[0]);
    ms[1] = 1e3 * (at[2] - at[1]);
    return DLS_OK;
}

static dls_status run_rank(int rank, void *arg)
{
    timed_model *b = arg;
    double ms[2];
    char path[256];
    dls_gpu_memory is;
    DLS_TRY(open_model(b, rank));
    DLS_TRY(pass(b, ms));
    uint64_t sent = dls_comm_stats(b->comm).wire_bytes;
    dls_trace_enable(b->trace != NULL);
    DLS_TRY(pass(b, ms));
    DLS_TRY(dls_gpu_memory_stats(dls_gpu_local_rank(), &is));
    sent = dls_comm_stats(b->comm).wire_bytes - sent;
    if (rank == 0)
        printf("%.3f %.3f %.1f %.1f\n", ms[0], ms[1], 1e-6 * (double)sent,
               1e-6 * (double)is.current[DLS_MEM_ACTIVATIONS]);
    fflush(stdout);
    snprintf(path, sizeof path, "%s-%d.json", b->trace, rank);
    DLS_TRY(b->trace ? dls_trace_save(path) : DLS_OK);
    return dls_comm_barrier(b->comm);
}

/* run the sequence bench */
int main(int argc, char **argv)
{
    if (argc < 7)
        return fprintf(stderr, "bench_sequence RANKS TOKENS CHANNELS LAYERS SEQUENCE "
                       "CHUNKS [TRACE]\n"), 2;
    timed_model b = {atoi(argv[1]), atoi(argv[2]), atoi(argv[3]), atoi(argv[4]),
                     atoi(argv[5]), atoi(argv[6]), .trace = argc > 7 ? argv[7] : NULL};
    if (dls_run_ranks(b.ranks, run_rank, &b) != DLS_OK)
        return fprintf(stderr, "%s\n", dls_status_message()), 1;
    return b.trace && draw_two(b.trace) != DLS_OK;
}
