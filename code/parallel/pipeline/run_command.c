/* code/parallel/pipeline/run_command.c: from chapters/05-pipeline-runtime-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* Options, one pipeline over all ranks, two steps, two tables of the second. */
#include "parallel/pipeline/run_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/args.h"
#include "base/file.h"
#include "base/table.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/draw.h"
#include "parallel/pipeline/interpreter.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/partition.h"
#include "tensor/memory.h"
#include "vgpu/gpu.h"

/* describe the options of pipeline */
typedef struct options {
    const char *name;
    int64_t microbatches, chunks, layers, channels, context, vocabulary, rows;
    const char *measured, *evaluated, *partition, *pair_order;
    int json;
} options;

static dls_status parse(int argc, char **argv, options *o, int *helped)
{
    const dls_arg args[] = {
        {"SCHEDULE", DLS_ARG_STRING, &o->name, NULL, "as of dls schedule"},
        {"--microbatches", DLS_ARG_INT, &o->microbatches, "M", "of a step (8)"},
        {"--chunks", DLS_ARG_INT, &o->chunks, "V", "stages per rank"},
        {"--layers", DLS_ARG_INT, &o->layers, "L", "blocks (12)"},
        {"--channels", DLS_ARG_INT, &o->channels, "C", "64 for each head (768)"},
        {"--context", DLS_ARG_INT, &o->context, "T", "tokens of a sequence (1024)"},
        {"--vocabulary", DLS_ARG_INT, &o->vocabulary, "V", "(50257)"},
        {"--rows", DLS_ARG_INT, &o->rows, "B", "sequences of a micro-batch (4)"},
        {"--partition", DLS_ARG_STRING, &o->partition, "WAY", "count or cost (cost)"},
        {"--pair-order", DLS_ARG_STRING, &o->pair_order, "ORDER", "turns (b f)"},
        {"--measured", DLS_ARG_STRING, &o->measured, "FILE", "draw what was measured"},
        {"--evaluated", DLS_ARG_STRING, &o->evaluated, "FILE", "and what was expected"},
        {"--json", DLS_ARG_FLAG, &o->json, NULL, "print JSON"}};
    const dls_args spec = {"dls pipeline", "Times a GPT-2 in bf16 cut into stages.",
                           "dls run -n 4 -- pipeline zb-h1 --microbatches 8", args,
                           sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, helped));
    if (*helped)
        return DLS_OK;
    if (o->channels < 64 || o->channels % 64 || o->channels > 1 << 16 || o->rows < 1
        || o->rows > 1 << 12)
        return DLS_FAIL(DLS_ERR_INPUT, "dls pipeline: expected --channels in 64s and "
                        "1 to 4096 --rows, got %lld and %lld", (long long)o->channels,
                        (long long)o->rows);
    return DLS_OK;
}

/* plan a timed run */
typedef struct timed_run {
    const options *o;
    dls_comm *comm, *data;
    dls_ctx ctx;
    dls_transformer_config model;
    dls_schedule schedule;
    dls_pipeline *pipeline;
    int *ids;
    void *losses;
    size_t rest, peak;          /* bytes of activations: between steps, at most */
} timed_run;

static dls_status plan_schedule(timed_run *r)
{
    const options *o = r->o;
    if (o->microbatches < 1 || o->microbatches > 1 << 14 || o->chunks < 0
        || o->chunks > 1 << 8)
        return DLS_FAIL(DLS_ERR_INPUT, "dls pipeline: expected 1 to 16384 micro-batches "
                        "and at most 256 chunks");
    dls_schedule_options s = dls_schedule_defaults(o->name, dls_comm_size(r->comm),
                                                   (int)o->microbatches);
    dls_schedule plain;
    s.chunks = (int)o->chunks;
    DLS_TRY(dls_schedule_make(&s, &plain));
    dls_status status = dls_lower(&plain, 0, &r->schedule);
    dls_schedule_free(&plain);
    DLS_TRY(status);
    return dls_schedule_check(&r->schedule, NULL);
}

static dls_status plan_model(timed_run *r)
{
    const options *o = r->o;
    int C = (int)o->channels;
    if (o->layers < 1 || o->layers > 1000 || o->context < 1 || o->context > 1 << 20
        || o->vocabulary < 2 || o->vocabulary > 1 << 20)
        return DLS_FAIL(DLS_ERR_INPUT, "dls pipeline: expected 1 to 1000 --layers, a "
                        "--context and a --vocabulary up to 1048576");
    r->model = dls_transformer_gpt2((int)o->vocabulary, (int)o->context, (int)o->layers,
                                    C / 64, C);
    r->model.tied_head = r->schedule.step_every == 0;
    return dls_transformer_config_check(&r->model);
}

static dls_status make_pipeline(timed_run *r)
{
    const options *o = r->o;
    int stages = r->schedule.stages, layers = r->model.layers, first[stages + 1];
    int64_t cost[layers + 2];
    int by_count = o->partition && o->partition[0] == 'c' && o->partition[2] == 'u';
    dls_partition_flops(&r->model, r->model.context, cost);
    DLS_TRY(by_count ? dls_partition_by_count(layers, stages, first)
                     : dls_partition_by_cost(cost, layers, stages, first));
    dls_pipeline_options p = {
        .model = &r->model, .schedule = &r->schedule, .partition = first,
        .max_B = (int)o->rows, .T = r->model.context,
        .adamw = {0.9, 0.95, 1e-8, 0.1, 1}, .pair_order = o->pair_order, .measured = 1};
    return dls_pipeline_create(&r->pipeline, &r->ctx, r->comm, r->data, &p);
}

/* run two steps */
static dls_status one_step(timed_run *r, int step)
{
    const options *o = r->o;
    dls_pipeline_batch b = {.tokens = r->ids, .targets = r->ids,
                            .rows = (int)(o->microbatches * o->rows),
                            .micro = (int)o->rows, .loss_scale = 1,
                            .losses = r->losses};
    DLS_TRY(dls_pipeline_step(r->pipeline, &b, 1e-3, step));
    return dls_ctx_sync(&r->ctx);
}

static dls_status run_steps(timed_run *r, dls_evaluation *is)
{
    size_t tokens = (size_t)(r->o->microbatches * r->o->rows) * r->model.context;
    dls_gpu_memory before, after;
    DLS_TRY(dls_device_alloc((void **)&r->ids, 2 * tokens, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc(&r->losses, tokens, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(one_step(r, 1));
    DLS_TRY(dls_gpu_memory_stats(r->ctx.device, &before));
    dls_gpu_memory_reset_peaks(r->ctx.device);
    DLS_TRY(one_step(r, 2));
    DLS_TRY(dls_pipeline_times(r->pipeline, is));
    DLS_TRY(dls_gpu_memory_stats(r->ctx.device, &after));
    r->rest = before.current[DLS_MEM_ACTIVATIONS];
    r->peak = after.peak[DLS_MEM_ACTIVATIONS];
    return DLS_OK;
}

/* compare with the evaluation */
static size_t expected_peak(const timed_run *r)
{
    const dls_actions *list = &r->schedule.order[dls_comm_rank(r->comm)];
    size_t held = r->rest, peak = held;
    for (size_t i = 0; i < list->n; i++) {
        const dls_action *a = &list->list[i];
        held += (size_t)dls_stage_adds(&r->pipeline->stage[a->stage]->bytes, a);
        peak = held > peak ? held : peak;
    }
    return peak;
}

static dls_status draw_to(const timed_run *r, const dls_evaluation *e, const char *path)
{
    dls_text out = {0}, title = {0};
    dls_drawing d;
    if (!path)
        return DLS_OK;
    DLS_TRY(dls_draw_schedule(&r->schedule, e, &d));
    dls_draw_title(r->o->name, &r->schedule, &title);
    d.title = title.data ? title.data : "";
    d.unit = 1000000;
    d.unit_name = "ms";
    dls_status s = dls_draw_svg(&d, &out);
    if (s == DLS_OK)
        s = dls_file_write(path, out.data, out.size);
    dls_text_free(&out);
    dls_text_free(&title);
    dls_draw_free(&d);
    return s;
}

/* print the comparison */
typedef struct line { double stash, rest, peak, expected; } line;

static dls_status print_ranks(const timed_run *r, const dls_evaluation *is,
                              const dls_evaluation *want, const line *all)
{
    static const dls_column columns[] = {
        {"rank", NULL}, {"busy ms", "%.3f"}, {"idle ms", "%.3f"}, {"evaluated", "%.3f"},
        {"one slot MB", "%.2f"}, {"peak MB", "%.2f"}, {"expected", "%.2f"}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 7));
    for (int i = 0; i < is->ranks; i++) {
        dls_table_add_int(t, i);
        dls_table_add_real(t, is->busy[i] / 1e6);
        dls_table_add_real(t, (is->makespan - is->busy[i]) / 1e6);
        dls_table_add_real(t, (want->makespan - want->busy[i]) / 1e6);
        dls_table_add_real(t, all[i].stash / 1e6);
        dls_table_add_real(t, (all[i].peak - all[i].rest) / 1e6);
        dls_table_add_real(t, (all[i].expected - all[i].rest) / 1e6);
    }
    dls_status s = dls_table_print(t, stdout, r->o->json);
    dls_table_free(t);
    return s;
}

static double idle_part(const dls_evaluation *e)
{
    double busy = 0;
    for (int i = 0; i < e->ranks; i++)
        busy += (double)e->busy[i];
    return 100 * (1 - busy / ((double)e->makespan * e->ranks));
}

static dls_status report(timed_run *r, const dls_evaluation *is,
                         const dls_evaluation *want)
{
    int rank = dls_comm_rank(r->comm), first = 0;
    while (!r->pipeline->stage[first])
        first++;
    const dls_stage_bytes *b = &r->pipeline->stage[first]->bytes;
    line mine = {(double)(b->stash + b->early), (double)r->rest, (double)r->peak,
                 (double)expected_peak(r)}, all[is->ranks];
    DLS_TRY(dls_comm_all_gather_host(r->comm, &mine, sizeof mine, all));
    if (rank != 0)
        return DLS_OK;
    if (!r->o->json)
        printf("%s: makespan %.3f ms, evaluated %.3f; idle %.2f %% of all device time, "
               "evaluated %.2f\n", r->o->name, is->makespan / 1e6,
               want->makespan / 1e6, idle_part(is), idle_part(want));
    DLS_TRY(print_ranks(r, is, want, all));
    DLS_TRY(draw_to(r, is, r->o->measured));
    return draw_to(r, want, r->o->evaluated);
}

/* run the pipeline command */
static dls_status compare(timed_run *r)
{
    dls_evaluation is = {0}, want = {0};
    int n = r->schedule.stages;
    int64_t room[n * (n + 4)];
    DLS_TRY(run_steps(r, &is));
    dls_schedule s = r->schedule;
    dls_pipeline_mean_costs(&s, &is, room, &s.options.cost);
    DLS_TRY(dls_evaluate(&s, &want));
    dls_status status = report(r, &is, &want);
    dls_evaluation_free(&is);
    dls_evaluation_free(&want);
    return status;
}

static dls_status run_all(timed_run *r)
{
    int rank = dls_comm_rank(r->comm);
    DLS_TRY(plan_schedule(r));
    DLS_TRY(plan_model(r));
    DLS_TRY(dls_ctx_create(&r->ctx, dls_gpu_local_rank(), DLS_BF16));
    DLS_TRY(dls_comm_split(r->comm, rank, rank, &r->data));
    DLS_TRY(make_pipeline(r));
    return compare(r);
}

dls_status dls_pipeline_command(int argc, char **argv, int *exit_code)
{
    options o = {.microbatches = 8, .layers = 12, .channels = 768, .context = 1024,
                 .vocabulary = 50257, .rows = 4};
    const dls_gpu_options timed = {.kernels = DLS_KERNELS_TIMED};
    timed_run r = {.o = &o};
    int helped;
    DLS_TRY(parse(argc, argv, &o, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(dls_gpu_init(&timed));
    DLS_TRY(dls_comm_create(&r.comm, NULL));
    dls_status s = run_all(&r);
    if (s == DLS_ERR_INPUT && dls_comm_rank(r.comm) > 0) {
        sleep(5);               // every rank finds it: rank 0 says it
        *exit_code = 2;
        s = DLS_OK;
    }
    dls_pipeline_free(r.pipeline);
    dls_schedule_free(&r.schedule);
    dls_device_free(r.ids);
    dls_device_free(r.losses);
    dls_comm_destroy(r.data);
    dls_ctx_destroy(&r.ctx);
    dls_comm_destroy(r.comm);
    return s;
}
