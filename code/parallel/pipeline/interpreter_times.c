/* code/parallel/pipeline/interpreter_times.c: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* When the actions of a step ran, on all ranks' common clock. */
#include "parallel/pipeline/interpreter_private.h"

#include <math.h>
#include <stdlib.h>

#include "parallel/pipeline/walk.h"
#include "vgpu/gpu.h"

/* mark the stream */
dls_status dls_pipeline_mark(dls_pipeline *p, size_t i)
{
    DLS_CUDA(cudaEventRecord(p->mark[i], p->ctx->stream));
    return DLS_OK;
}

dls_status dls_pipeline_mark_base(dls_pipeline *p)
{
    DLS_TRY(dls_ctx_sync(p->ctx));
    DLS_TRY(dls_comm_barrier(p->pipe));
    p->base_time = dls_gpu_host_time();
    DLS_CUDA(cudaEventRecord(p->base, p->ctx->stream));
    return DLS_OK;
}

/* Start and end of action i, in ns. Of sends, receives and updates, too: of what they
 * put on the compute stream. */
static dls_status read_marks(const dls_pipeline *p, size_t i, int64_t *start,
                             int64_t *end)
{
    float from, to;
    DLS_CUDA(cudaEventElapsedTime(&from, p->base, p->mark[2 * i]));
    DLS_CUDA(cudaEventElapsedTime(&to, p->base, p->mark[2 * i + 1]));
    *start = llround(p->base_time * 1e9 + from * 1e6);
    *end = llround(p->base_time * 1e9 + to * 1e6);
    return DLS_OK;
}

/* collect the times */
static size_t longest_list(const dls_schedule *s)
{
    size_t n = 0;
    for (int r = 0; r < s->options.ranks; r++)
        n = s->order[r].n > n ? s->order[r].n : n;
    return n;
}

static dls_status own_times(const dls_pipeline *p, int64_t *mine)
{
    const dls_actions *list = &p->o.schedule->order[p->rank];
    int64_t last = 0;
    for (size_t i = 0; i < list->n; i++) {
        int m = list->list[i].microbatch;
        mine[2 * i] = mine[2 * i + 1] = last;
        if (m < 0 || (int64_t)m * p->batch->micro < p->batch->rows)
            DLS_TRY(read_marks(p, i, &mine[2 * i], &mine[2 * i + 1]));
        last = mine[2 * i + 1];
    }
    return DLS_OK;
}

static void fill_evaluation(const dls_schedule *s, const int64_t *all, size_t n,
                            dls_evaluation *e)
{
    int64_t zero = INT64_MAX;
    for (int r = 0; r < e->ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            int64_t start = all[2 * (r * n + i)];
            if (dls_action_computes(&s->order[r].list[i]) && start < zero)
                zero = start;
        }
    for (int r = 0; r < e->ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            e->start[r][i] = all[2 * (r * n + i)] - zero;
            e->end[r][i] = all[2 * (r * n + i) + 1] - zero;
        }
    dls_evaluation_sum(s, e);
}

dls_status dls_pipeline_times(dls_pipeline *p, dls_evaluation *out)
{
    const dls_schedule *s = p->o.schedule;
    size_t n = longest_list(s), bytes = 2 * n * sizeof(int64_t);
    *out = (dls_evaluation){0};
    if (!p->mark)
        return DLS_FAIL(DLS_ERR_STATE, "this pipeline does not measure");
    DLS_TRY(dls_ctx_sync(p->ctx));
    int64_t *mine = calloc(1, bytes + 1);
    int64_t *all = calloc((size_t)s->options.ranks, bytes + 1);
    dls_status status = mine && all ? own_times(p, mine)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for the times of %zu actions", n);
    if (status == DLS_OK)
        status = dls_comm_all_gather_host(p->pipe, mine, bytes, all);
    if (status == DLS_OK)
        status = dls_evaluation_empty(s, out);
    if (status == DLS_OK)
        fill_evaluation(s, all, n, out);
    free(mine);
    free(all);
    return status;
}

/* average the costs */
static int column_of(const dls_action *a)
{
    return a->kind == DLS_DO_F ? 0 : a->kind == DLS_DO_W ? 2 : 1;
}

/* The mean time of actions of a kind in a stage; those in pairs are no part of it. */
static int64_t mean_of(const dls_schedule *s, const dls_evaluation *e, int kind,
                       int stage)
{
    int64_t sum = 0, n = 0;
    for (int r = 0; r < e->ranks; r++)
        for (size_t k = 0, size; k < s->order[r].n; k += size) {
            const dls_action *a = &s->order[r].list[k];
            size = dls_pair_size(&s->order[r], k);
            if (size == 2 || a->kind != kind || a->stage != stage)
                continue;
            sum += e->end[r][k] - e->start[r][k];
            n++;
        }
    return n ? (sum + n / 2) / n : 0;
}

static void mean_times(const dls_schedule *s, const dls_evaluation *e, int64_t *of_stage,
                       int64_t *of_B)
{
    for (int i = 0; i < s->stages; i++) {
        int64_t *t = of_stage + 3 * i;
        t[0] = mean_of(s, e, DLS_DO_F, i);
        t[1] = mean_of(s, e, DLS_DO_I, i);
        t[2] = mean_of(s, e, DLS_DO_W, i);
        of_B[i] = mean_of(s, e, DLS_DO_B, i);
        of_B[i] = of_B[i] ? of_B[i] : t[1] + t[2];
    }
}

static void mean_pairs(const dls_schedule *s, const dls_evaluation *e, int64_t *of_pair)
{
    for (int i = 0; i < s->stages * s->stages; i++) {
        int64_t sum = 0, n = 0;
        for (int r = 0; r < e->ranks; r++)
            for (size_t k = 0; k < s->order[r].n; k++) {
                const dls_action *a = &s->order[r].list[k];
                if (dls_pair_size(&s->order[r], k) != 2
                    || a->stage * s->stages + a[1].stage != i)
                    continue;
                sum += e->end[r][k] - e->start[r][k];
                n++;
            }
        of_pair[i] = n ? (sum + n / 2) / n : 0;
    }
}

/* The unit that has a stage's F, I or B of a micro-batch, and its place in the unit. */
static size_t find(const dls_schedule *s, const dls_action *want, dls_unit *unit)
{
    int r = dls_schedule_rank(s, want->stage, want->microbatch);
    const dls_actions *order = &s->order[r];
    for (size_t i = 0, n; i < order->n; i += n) {
        n = dls_actions_unit(order, i);
        *unit = (dls_unit){r, i, n};
        for (size_t k = 0; k < n; k++) {
            const dls_action *a = &order->list[i + k];
            if (a->stage == want->stage && a->microbatch == want->microbatch
                && dls_action_computes(a) && column_of(a) == column_of(want))
                return k;
        }
    }
    return 0;       // there is one: the schedule was run
}

/* The time between an input's end on another rank and the start of `a`; -1: its input
 * comes from no other rank. *ahead: how many results left before it, together with it. */
static int64_t gap_before(const dls_schedule *s, const dls_evaluation *e, int rank,
                          size_t i, size_t *ahead)
{
    const dls_action *a = &s->order[rank].list[i];
    dls_action from = *a;
    dls_unit unit;
    from.stage += a->kind == DLS_DO_F ? -1 : 1;
    if (!dls_action_computes(a) || a->kind == DLS_DO_W || from.stage < 0
        || from.stage >= s->stages
        || dls_schedule_rank(s, from.stage, from.microbatch) == rank)
        return -1;
    size_t k = find(s, &from, &unit);
    *ahead = dls_unit_ahead(s, &unit, k);
    return e->start[rank][i] - e->end[unit.rank][unit.first + k];
}

static int64_t least_gap(const dls_schedule *s, const dls_evaluation *e, int second)
{
    int64_t least = INT64_MAX;
    for (int r = 0; r < e->ranks; r++)
        for (size_t i = 0, ahead; i < s->order[r].n; i++) {
            int64_t gap = gap_before(s, e, r, i, &ahead);
            if (gap >= 0 && (ahead > 0) == second && gap < least)
                least = gap;
        }
    return least == INT64_MAX ? 0 : least;
}

void dls_pipeline_mean_costs(const dls_schedule *s, const dls_evaluation *measured,
                             int64_t *room, dls_pipeline_costs *out)
{
    int64_t *of_B = room + 3 * s->stages, *of_pair = of_B + s->stages;
    int64_t hop = least_gap(s, measured, 0), second = least_gap(s, measured, 1);
    mean_times(s, measured, room, of_B);
    mean_pairs(s, measured, of_pair);
    *out = (dls_pipeline_costs){.hop = hop, .wire = second > hop ? second - hop : 0,
                                .of_stage = room, .of_B = of_B, .of_pair = of_pair};
}
