/* tests/parallel/bench_pipeline_pictures.c: from chapters/05-pipeline-pictures-gallery.md. Edit the chapter, or edit here and run "make untangle". */
/* A step of a GPT on a pipeline of four virtual H100s, measured and drawn.
 * bench_pipeline_pictures [NAME CHUNKS [SVG UNTIL_MS]]; kernels are timed, not run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "comm/launch.h"
#include "parallel/pipeline/draw.h"
#include "parallel/pipeline/interpreter.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/partition.h"

/* say what the gallery runs */
enum { RANKS = 4, MICROBATCHES = 8, MICRO = 2, T = 512 };

typedef struct settings {
    const char *name, *svg;
    int chunks, until;
} settings;

typedef struct rank_state {
    dls_ctx ctx;
    dls_comm *world, *pipe, *data;
    dls_transformer_config model;
    dls_schedule schedule;
    dls_pipeline *pipeline;
    int *ids;
    float *losses;
} rank_state;

/* open a rank of the gallery */
static dls_status open_schedule(rank_state *r, const settings *s)
{
    dls_schedule plain;
    dls_schedule_options o = dls_schedule_defaults(s->name, RANKS, MICROBATCHES);
    o.chunks = s->chunks;
    DLS_TRY(dls_schedule_make(&o, &plain));
    dls_status status = dls_lower(&plain, 0, &r->schedule);
    dls_schedule_free(&plain);
    return status;
}

static dls_status open_rank(rank_state *r, const settings *s, int rank)
{
    size_t tokens = MICROBATCHES * MICRO * T;
    r->model = dls_transformer_gpt2(512, T, 16, 16, 2048);
    DLS_TRY(dls_comm_create(&r->world, NULL));
    DLS_TRY(dls_comm_split(r->world, 0, rank, &r->pipe));
    DLS_TRY(dls_comm_split(r->world, rank, rank, &r->data));
    DLS_TRY(dls_ctx_create(&r->ctx, dls_gpu_local_rank(), DLS_BF16));
    DLS_TRY(open_schedule(r, s));
    int first[r->schedule.stages + 1];
    DLS_TRY(dls_partition_by_count(r->model.layers, r->schedule.stages, first));
    const dls_pipeline_options o = {
        .model = &r->model, .schedule = &r->schedule, .partition = first, .max_B = MICRO,
        .T = T, .measured = 1, .adamw = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8}};
    DLS_TRY(dls_device_alloc((void **)&r->ids, 2 * tokens, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc((void **)&r->losses, tokens, DLS_F32, DLS_MEM_OTHER));
    return dls_pipeline_create(&r->pipeline, &r->ctx, r->pipe, r->data, &o);
}

/* step twice and measure */
static dls_status step_twice(rank_state *r, dls_evaluation *e)
{
    const dls_pipeline_batch batch = {
        .tokens = r->ids, .targets = r->ids + MICROBATCHES * MICRO * T,
        .rows = MICROBATCHES * MICRO, .micro = MICRO, .loss_scale = 1,
        .losses = r->losses};
    DLS_TRY(dls_pipeline_step(r->pipeline, &batch, 1e-4, 1));
    DLS_TRY(dls_pipeline_step(r->pipeline, &batch, 1e-4, 2));
    return dls_pipeline_times(r->pipeline, e);
}

/* draw what was measured */
static dls_status predict(rank_state *r, const dls_evaluation *e, dls_evaluation *out)
{
    dls_schedule same = r->schedule;
    int64_t room[same.stages * (same.stages + 4)];
    dls_pipeline_mean_costs(&same, e, room, &same.options.cost);
    return dls_evaluate(&same, out);
}

static dls_status draw(const rank_state *r, const settings *s, const dls_evaluation *e)
{
    dls_drawing d;
    dls_text title = {0}, out = {0};
    char name[64];
    snprintf(name, sizeof name, "%s, measured", s->name);
    DLS_TRY(dls_draw_schedule(&r->schedule, e, &d));
    dls_draw_title(name, &r->schedule, &title);
    d.title = title.data;
    d.unit = 1000000; // ns of a ms
    d.unit_name = "ms";
    d.until = s->until * d.unit;
    DLS_TRY(dls_draw_svg(&d, &out));
    return dls_file_write(s->svg, out.data, out.size);
}

static dls_status run_rank(int rank, void *arg)
{
    const settings *s = arg;
    rank_state r = {0};
    dls_evaluation e, plan;
    DLS_TRY(open_rank(&r, s, rank));
    DLS_TRY(step_twice(&r, &e));
    if (rank == 0) {
        if (s->svg)
            DLS_TRY(draw(&r, s, &e));
        DLS_TRY(predict(&r, &e, &plan));
        int64_t most = 0;
        for (int i = 0; i < RANKS; i++)
            most = plan.peak[i] > most ? plan.peak[i] : most;
        printf("%-15s %8.3f %8.3f %8.3f %6.1f %% %8.1f\n", s->name,
               (double)plan.makespan / 1e6, (double)e.makespan / 1e6,
               (double)e.span / 1e6,
               100.0 * (double)(e.span - plan.ideal) / (double)plan.ideal,
               (double)most / (double)r.schedule.options.chunks);
        fflush(stdout);
    }
    return dls_comm_barrier(r.world);
}

int main(int argc, char **argv)
{
    settings s = {.name = argc > 2 ? argv[1] : "1f1b", .svg = argc > 4 ? argv[3] : NULL,
                  .chunks = argc > 2 ? atoi(argv[2]) : 1,
                  .until = argc > 4 ? atoi(argv[4]) : 0};
    setenv("DLS_KERNELS", "timed", 1);
    if (dls_run_ranks(RANKS, run_rank, &s) == DLS_OK)
        return 0;
    return fprintf(stderr, "%s\n", dls_status_message()), 1;
}
