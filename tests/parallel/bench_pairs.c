/* tests/parallel/bench_pairs.c: from chapters/08-dualpipe-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* A pipeline with experts on 16 GPUs of two nodes: what part of its all-to-all runs
 * beside computation. bench_pairs SCHEDULE PP MICROBATCHES ORDER [DRAWING [OTHER]]; run
 * with DLS_KERNELS=timed. OTHER: the order of every second pipeline. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/launch.h"
#include "parallel/pipeline/interpreter.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/partition.h"
#include "tensor/memory.h"
#include "vgpu/gpu.h"

#include "hidden.h"

/* set up a pipeline with experts */
enum { RANKS = 16, T = 2048, C = 1024, HIDDEN = 4096, EXPERTS = 16, VOCABULARY = 4096 };

typedef struct timed {
    const char *schedule, *order, *drawing, *other;
    int pp, microbatches;
    dls_comm *world, *pipe, *data, *expert;
    dls_ctx ctx;
    dls_axes axes;
    dls_transformer_config model;
    dls_schedule s;
    dls_pipeline *pipeline;
    int *ids;
    void *losses;
} timed;

static dls_transformer_config model_of(const timed *b, int rank)
{
    dls_transformer_config c = dls_transformer_llama(VOCABULARY, T, b->pp, C / 128,
                                                     C / 128, C, HIDDEN);
    c.moe = (dls_moe){.experts = EXPERTS, .chosen = 2, .hidden = HIDDEN,
                      .normalised = 1, .scale = 1, .balanced = 1};
    c.tied_head = 0;
    c.sharding = (dls_sharding){.expert = RANKS / b->pp, .expert_rank = rank / b->pp};
    return c;
}

static dls_status open_groups(timed *b, int rank)
{
    DLS_TRY(dls_comm_create(&b->world, NULL));
    DLS_TRY(dls_ctx_create(&b->ctx, dls_gpu_local_rank(), DLS_BF16));
    DLS_TRY(dls_comm_split(b->world, rank / b->pp, rank, &b->pipe));
    DLS_TRY(dls_comm_split(b->world, rank % b->pp, rank, &b->expert));
    DLS_TRY(dls_comm_split(b->world, rank, rank, &b->data));
    b->model = model_of(b, rank);
    DLS_TRY(dls_axes_open(&b->axes, &b->model.sharding, b->model.kv_heads, NULL, NULL));
    DLS_TRY(dls_axes_add_experts(&b->axes, b->expert, NULL, b->expert));
    DLS_CUDA(dls_gpu_name_stream(b->ctx.stream, "compute"));
    DLS_CUDA(dls_gpu_name_stream(b->axes.stream, "all-to-all"));
    return DLS_OK;
}

static dls_status make_pipeline(timed *b)
{
    dls_schedule_options o = dls_schedule_defaults(b->schedule, b->pp, b->microbatches);
    size_t tokens = (size_t)b->microbatches * T;
    dls_schedule plain;
    DLS_TRY(dls_schedule_make(&o, &plain));
    dls_status s = dls_lower(&plain, 0, &b->s);
    dls_schedule_free(&plain);
    DLS_TRY(s);
    int first[b->s.stages + 1];
    DLS_TRY(dls_partition_by_count(b->model.layers, b->s.stages, first));
    dls_pipeline_options p = {.model = &b->model, .schedule = &b->s, .partition = first,
                              .max_B = 1, .T = T, .axes = &b->axes,
                              .adamw = {0.9, 0.95, 1e-8, 0.1, 1},
                              .pair_order = b->order, .measured = 1};
    if (b->other && dls_comm_rank(b->expert) % 2)
        p.pair_order = b->other;
    DLS_TRY(dls_device_alloc((void **)&b->ids, tokens, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc(&b->losses, tokens, DLS_F32, DLS_MEM_OTHER));
    return dls_pipeline_create(&b->pipeline, &b->ctx, b->pipe, b->data, &p);
}

/* measure what is hidden */
static int stream_of(const char *name)
{
    for (int i = 0; i < dls_trace_count(); i++)
        if (strcmp(dls_trace_span_at(i)->name, name) == 0)
            return dls_trace_span_at(i)->stream;
    return -1;
}

static share share_in(double from, double to)
{
    const timeline t = {dls_trace_span_at, dls_trace_count()};
    return share_of(&t, stream_of("all-to-all-v"), stream_of("adamw"), from, to);
}

/* Start and end of action i of this rank, on the clock of the spans. */
static dls_status window(const timed *b, size_t i, double *from, double *to)
{
    const dls_pipeline *p = b->pipeline;
    float start, end;
    DLS_CUDA(cudaEventElapsedTime(&start, p->base, p->mark[2 * i]));
    DLS_CUDA(cudaEventElapsedTime(&end, p->base, p->mark[2 * i + 1]));
    *from = p->base_time + start * 1e-3;
    *to = p->base_time + end * 1e-3;
    return DLS_OK;
}

/* The sum over this rank's pairs; *middle: one of them. */
static dls_status share_in_pairs(const timed *b, share *sum, size_t *middle)
{
    const dls_actions *list = &b->s.order[dls_comm_rank(b->pipe)];
    double from, to;
    *sum = (share){0};
    *middle = 0;
    for (size_t i = 0; i < list->n; i++) {
        if (dls_pair_size(list, i) != 2)
            continue;
        DLS_TRY(window(b, i, &from, &to));
        share s = share_in(from, to);
        *sum = (share){sum->all + s.all, sum->hidden + s.hidden};
        *middle = i < list->n / 2 ? i : *middle;
    }
    return DLS_OK;
}

/* draw two pairs */
static dls_status draw(const timed *b, size_t middle)
{
    const dls_actions *list = &b->s.order[0];
    char json[256], svg[256];
    const char *paths[] = {json};
    double from, to, end;
    size_t next = middle ? middle : list->n / 2;
    while (list->list[next].kind != DLS_DO_F)
        next++;
    DLS_TRY(window(b, next++, &from, &end));
    for (int passes = middle ? 2 : 1; passes > 0; next++)
        if (dls_action_computes(&list->list[next])) {
            DLS_TRY(window(b, next, &end, &to));
            passes--;
        }
    snprintf(json, sizeof json, "%s.json", b->drawing);
    snprintf(svg, sizeof svg, "%s.svg", b->drawing);
    DLS_TRY(dls_trace_save(json));
    return dls_trace_merge(paths, 1, NULL, svg, from, to);
}

/* run the bench of pairs */
static dls_status step(timed *b, dls_evaluation *e)
{
    dls_pipeline_batch batch = {.tokens = b->ids, .targets = b->ids,
                                .rows = b->microbatches, .micro = 1, .loss_scale = 1,
                                .losses = b->losses};
    dls_trace_enable(1);
    DLS_TRY(dls_pipeline_step(b->pipeline, &batch, 1e-3, 1));
    DLS_TRY(dls_pipeline_times(b->pipeline, e));
    dls_trace_enable(0);
    return DLS_OK;
}

static double percent(double part, double of)
{
    return of > 0 ? 100 * part / of : 0;
}

static double idle(const dls_evaluation *e)
{
    double busy = 0;
    for (int i = 0; i < e->ranks; i++)
        busy += (double)e->busy[i];
    return 100 - percent(busy, (double)e->makespan * e->ranks);
}

static dls_status evaluate(const timed *b, const dls_evaluation *is, dls_evaluation *out)
{
    dls_schedule s = b->s;
    int64_t room[s.stages * (s.stages + 4)];
    dls_pipeline_mean_costs(&s, is, room, &s.options.cost);
    return dls_evaluate(&s, out);
}

static dls_status run_rank(int rank, void *arg)
{
    timed *b = arg;
    dls_evaluation e, want;
    share mine[2], all[2 * RANKS], sum[2] = {{0}};
    size_t middle;
    DLS_TRY(open_groups(b, rank));
    DLS_TRY(make_pipeline(b));
    DLS_TRY(step(b, &e));
    DLS_TRY(evaluate(b, &e, &want));
    mine[0] = share_in(0, 1e9);
    DLS_TRY(share_in_pairs(b, &mine[1], &middle));
    DLS_TRY(dls_comm_all_gather_host(b->world, mine, sizeof mine, all));
    for (int i = 0; i < 2 * RANKS; i++) {
        sum[i % 2].all += all[i].all / RANKS;
        sum[i % 2].hidden += all[i].hidden / RANKS;
    }
    if (rank == 0)
        printf("%-9s %-6s %8.3f %9.3f %6.2f %9.2f %10.3f %8.3f %8.1f %8.1f\n",
               b->schedule, b->order, e.makespan / 1e6, want.makespan / 1e6, idle(&e),
               idle(&want), 1e3 * sum[0].all, 1e3 * (sum[0].all - sum[0].hidden),
               percent(sum[0].hidden, sum[0].all), percent(sum[1].hidden, sum[1].all));
    if (rank == 0 && b->drawing)
        DLS_TRY(draw(b, middle));
    return fflush(stdout) == 0 ? dls_comm_barrier(b->world)
                               : DLS_FAIL(DLS_ERR_IO, "can not print");
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return fprintf(stderr, "bench_pairs SCHEDULE PP MICROBATCHES ORDER [DRAWING]\n"),
               2;
    timed b = {.schedule = argv[1], .pp = atoi(argv[2]), .microbatches = atoi(argv[3]),
               .order = argv[4], .drawing = argc > 5 && argv[5][0] ? argv[5] : NULL,
               .other = argc > 6 ? argv[6] : NULL};
    if (b.pp < 1 || RANKS % b.pp || b.microbatches < 1)
        return fprintf(stderr, "bench_pairs: expected PP to divide 16\n"), 2;
    if (dls_run_ranks(RANKS, run_rank, &b) != DLS_OK)
        return fprintf(stderr, "%s\n", dls_status_message()), 1;
    return 0;
}
