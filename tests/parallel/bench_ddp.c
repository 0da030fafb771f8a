/* tests/parallel/bench_ddp.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* One step of GPT-2 on eight ranks, with and without overlap: who waits for what.
 * bench_ddp ROWS OVERLAP BUCKET_BYTES [TRACE]; run with DLS_KERNELS=timed. OVERLAP: 0
 * none, 1 buckets, 2 buckets and a tied embedding in two parts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "comm/launch.h"
#include "parallel/data/ddp.h"
#include "model/transformer.h"
#include "train/optimizer.h"
#include "vgpu/trace.h"

/* step gpt 2 on a rank */
typedef struct settings {
    int rows, overlap;
    size_t bucket;
    const char *trace;
} settings;

typedef struct rank_state {
    dls_ctx ctx;
    dls_comm *comm;
    dls_transformer *model;
    dls_optimizer *optimizer;
    dls_ddp *ddp;
    int *ids;
} rank_state;

static dls_status open_rank(rank_state *r, const settings *s)
{
    dls_transformer_config c = dls_transformer_gpt2(50257, 1024, 12, 12, 768);
    const dls_adamw_options adamw = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8};
    const dls_ddp_options cut = {.bucket_bytes = s->bucket, .first_bucket_bytes = 1 << 20,
                                 .rows_of = s->overlap == 2};
    DLS_TRY(dls_comm_create(&r->comm, NULL));
    DLS_TRY(dls_ctx_create(&r->ctx, dls_gpu_local_rank(), DLS_BF16));
    DLS_CUDA(dls_gpu_name_stream(r->ctx.stream, "compute"));
    DLS_TRY(dls_transformer_create(&r->model, &r->ctx, &c, s->rows, 1024));
    DLS_TRY(dls_optimizer_create(&r->optimizer, &r->ctx, &r->model->params, &adamw));
    DLS_TRY(dls_device_alloc((void **)&r->ids, 2 * (size_t)s->rows * 1024, DLS_F32,
                             DLS_MEM_OTHER));
    return dls_ddp_create(&r->ddp, &r->ctx, r->model->params.items, r->model->params.n,
                          r->model->params.grads, r->comm, &cut);
}

/* Tokens as frequent as words are: the i-th with a probability of about 1 / (i ln V). */
static dls_status touch(rank_state *r, const settings *s, int64_t number)
{
    int n = s->rows * 1024, ids[n];
    uint64_t stream = (uint64_t)(number * 8 + dls_comm_rank(r->comm));
    for (int i = 0; i < n; i++) {
        double u = dls_rng_uniform(3, stream, (uint64_t)i);
        ids[i] = (int)fmin(exp(u * log(50257)), 50257) - 1;
    }
    return dls_ddp_touch(r->ddp, ids, (size_t)n);
}

static dls_status step(rank_state *r, const settings *s, int64_t number)
{
    dls_grad_hook hook = {r->ddp, dls_ddp_grad_ready};
    dls_grad_hook partial = {r->ddp, dls_ddp_grad_partial};
    r->model->pass.partial = &partial;
    if (s->overlap == 2)
        DLS_TRY(touch(r, s, number));
    DLS_TRY(dls_params_zero_grads(&r->model->params, &r->ctx));
    DLS_TRY(dls_transformer_forward(r->model, r->ids, r->ids + s->rows * 1024, s->rows,
                                    1024));
    DLS_TRY(dls_transformer_backward(r->model, 1, s->overlap ? &hook : NULL));
    if (!s->overlap) { // the obvious program: all of backward, then all sums
        DLS_TRY(dls_ctx_sync(&r->ctx));
        for (int i = r->model->params.n - 1; i >= 0; i--)
            DLS_TRY(dls_ddp_grad_ready(r->ddp, i));
    }
    DLS_TRY(dls_ddp_finish(r->ddp));
    DLS_TRY(dls_optimizer_step(r->optimizer, 1e-4, number));
    return dls_ctx_sync(&r->ctx);
}

/* report the step */
static dls_status run_rank(int rank, void *arg)
{
    const settings *s = arg;
    rank_state r = {0};
    dls_ddp_times t;
    char path[256];
    DLS_TRY(open_rank(&r, s));
    DLS_TRY(step(&r, s, 1));
    DLS_TRY(dls_comm_barrier(r.comm));
    double from = dls_gpu_host_time();
    dls_trace_enable(s->trace != NULL);
    DLS_TRY(step(&r, s, 2));
    double seconds = dls_gpu_host_time() - from;
    DLS_TRY(dls_ddp_timing(r.ddp, &t));
    if (rank == 0)
        printf("%4d %8s %6zu MB %8.3f %8.3f %8.3f %7.1f %%\n", s->rows,
               (const char *[]){"no", "yes", "in two"}[s->overlap], s->bucket >> 20,
               1e3 * seconds, 1e3 * t.busy,
               1e3 * t.exposed, 100 * t.hidden);
    fflush(stdout);
    if (s->trace) {
        snprintf(path, sizeof path, "%s-%d.json", s->trace, rank);
        DLS_TRY(dls_trace_save(path));
    }
    return dls_comm_barrier(r.comm);
}

static dls_status draw(const settings *s, int ranks)
{
    char paths[8][256], svg[256];
    const char *list[8];
    for (int i = 0; i < ranks; i++) {
        snprintf(paths[i], sizeof paths[i], "%s-%d.json", s->trace, i);
        list[i] = paths[i];
    }
    snprintf(svg, sizeof svg, "%s.svg", s->trace);
    return dls_trace_merge(list, ranks, NULL, svg, 0, 0);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return fprintf(stderr, "bench_ddp ROWS OVERLAP BUCKET_BYTES [TRACE]\n"), 2;
    settings s = {atoi(argv[1]), atoi(argv[2]), (size_t)atoll(argv[3]),
                  argc > 4 ? argv[4] : NULL};
    if (dls_run_ranks(8, run_rank, &s) != DLS_OK)
        return fprintf(stderr, "%s\n", dls_status_message()), 1;
    return s.trace && draw(&s, 2) != DLS_OK; // two of the eight: all look alike
}
