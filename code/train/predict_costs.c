/* code/train/predict_costs.c: from chapters/07-planner-time.md. Edit the chapter, or edit here and run "make untangle". */
/* Recording the stages of a layout, and asking communicators that are only imagined. */
#include <stdlib.h>
#include <string.h>

#include "comm/scratch.h"
#include "kernels/kernels.h"
#include "parallel/data/plan.h"
#include "parallel/data/shards.h"
#include "train/layout.h"
#include "train/pipelined.h"
#include "train/predict.h"
#include "train/replicated.h"
#include "train/sharded.h"

/* refuse what is not predicted */
/* Beside a pipeline the player knows no messages between the passes of a stage. */
static dls_status is_predicted_way(const dls_train_config *c)
{
    if (!c->pipeline.schedule || !c->sharded || c->zero.stage < 2)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "data_parallel: expected ddp or zero1 for a "
                    "prediction beside a pipeline, got zero%d; the nearest is zero1",
                    c->zero.stage);
}

static dls_status is_predicted(const dls_train_config *c)
{
    const dls_schedule_entry *e = c->pipeline.schedule
        ? dls_schedule_find(c->pipeline.schedule) : NULL;
    if (e && (e->step_every != 0 || e->placement == DLS_PLACE_BOTH))
        return DLS_FAIL(DLS_ERR_INPUT, "pipeline.schedule: expected one with a single "
                        "step and one copy of each stage, got %s", e->name);
    if (c->pipeline.post_validation)
        return DLS_FAIL(DLS_ERR_INPUT, "pipeline.post_validation: expected false for a "
                        "prediction");
    if (c->ddp.hook.choice != DLS_HOOK_NONE)
        return DLS_FAIL(DLS_ERR_INPUT, "ddp.hook: expected none for a prediction");
    if (c->sharded && (c->zero.offload || c->hybrid || c->zero.shard_size
                       || c->zero.narrow_gradients))
        return DLS_FAIL(DLS_ERR_INPUT, "zero: expected neither offload, hybrid, "
                        "shard_size nor narrow_gradients for a prediction");
    return is_predicted_way(c);
}

/* find the schedule of a layout */
/* Without a pipeline: one stage, whose passes alternate. */
static dls_status find_schedule(dls_step_costs *k)
{
    const dls_train_config *c = k->c;
    const char *name = c->pipeline.schedule;
    int m = (k->rows + c->micro_batch - 1) / c->micro_batch;
    int dp = k->mesh.size[DLS_AXIS_DP];
    k->microbatches = m > 0 ? m : 1;
    dls_schedule_options o = dls_schedule_defaults(
        name ? name : "1f1b", k->mesh.size[DLS_AXIS_PP],
        name ? dls_train_microbatches(c, dp) : k->microbatches);
    o.chunks = name ? c->pipeline.chunks : 0;
    DLS_TRY(dls_schedule_make(&o, &k->schedule));
    k->first = calloc((size_t)k->schedule.stages + 1, sizeof *k->first);
    if (!k->first)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d stages", k->schedule.stages);
    k->first[1] = c->model.layers + 2;
    return c->pipeline.schedule
        ? dls_pipelined_partition(c, k->schedule.stages, k->first) : DLS_OK;
}

static int splits(const dls_schedule *s)
{
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++)
            if (s->order[r].list[i].kind == DLS_DO_I)
                return 1;
    return 0;
}

/* ask a group of the mesh */
/* 1: every replica lies on its nodes as the first one does. */
static int is_regular(const dls_step_costs *k)
{
    int node = dls_gpu_cluster()->gpus_per_node;
    int replica = dls_mesh_world(&k->mesh) / k->mesh.size[DLS_AXIS_DP];
    return node % replica == 0 || replica % node == 0 || k->mesh.size[DLS_AXIS_DP] == 1;
}

/* Seconds of a collective in the group of the first rank over some axes. */
static dls_status group_seconds(dls_step_costs *k, unsigned axes,
                                const char *operation, size_t count, int dtype,
                                double *seconds)
{
    int n = dls_mesh_group_size(&k->mesh, axes);
    *seconds = 0;
    if (n == 1 || count == 0)
        return DLS_OK;
    if (axes == DLS_AXES_DATA)
        return dls_planner_talk(k->planner, k->sharers, n, operation, count, dtype,
                                seconds, &k->scratch);
    int *member = calloc((size_t)n, sizeof *member);
    if (!member)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a group of %d", n);
    dls_mesh_group_ranks(&k->mesh, 0, axes, member);
    dls_status s = dls_planner_talk(k->planner, member, n, operation, count, dtype,
                                    seconds, NULL);
    free(member);
    return s;
}

/* record the stages */
static dls_status record_stage(dls_planner *planner, dls_step_costs *k,
                               const dls_transformer_config *m, int from, int to,
                               dls_planned_unit *full, dls_planned_unit *rest)
{
    int left = k->rows - (k->microbatches - 1) * k->c->micro_batch;
    dls_planned_pass pass = {m, k->c->dtype, k->c->micro_batch, k->T,
                             splits(&k->schedule)};
    dls_transformer_config other = *m;
    dls_planned_unit last;
    DLS_TRY(dls_planner_unit(planner, &pass, from, to, full));
    if (m->sharding.tensor > 1) {       // counts what is cut alone: more stretches
        other.sharding.tensor_rank = m->sharding.tensor - 1;
        pass.model = &other;
        DLS_TRY(dls_planner_unit(planner, &pass, from, to, &last));
        full->square = last.square;
        pass.model = m;
    }
    pass.B = left > 0 ? left : 1;
    return dls_planner_unit(planner, &pass, from, to, rest);
}

static dls_transformer_config cut_model(const dls_step_costs *k)
{
    dls_transformer_config m = k->c->model;
    m.sharding = k->c->sharding;
    m.sharding.tensor_rank = 0;
    m.sharding.context_rank = m.sharding.order == DLS_TOKENS_CONTIGUOUS
        && m.sharding.context > 1 ? m.sharding.context - 1 : 0;   // it has most to do
    m.unplaced = 0;
    return m;
}

static dls_status record_stages(dls_planner *planner, dls_step_costs *k)
{
    dls_transformer_config m = cut_model(k);
    k->stage = calloc((size_t)k->schedule.stages, sizeof *k->stage);
    if (!k->stage)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d stages", k->schedule.stages);
    for (int s = 0; s < k->schedule.stages; s++)
        DLS_TRY(record_stage(planner, k, &m, k->first[s], k->first[s + 1],
                             &k->stage[s].full, &k->stage[s].rest));
    if (k->c->pipeline.schedule)
        return DLS_OK;
    k->unit = calloc(2 * ((size_t)m.layers + 2), sizeof *k->unit);
    if (!k->unit)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d units", m.layers + 2);
    k->unit_rest = k->unit + m.layers + 2;
    for (int u = 0; u < m.layers + 2; u++)
        DLS_TRY(record_stage(planner, k, &m, u, u + 1, &k->unit[u], &k->unit_rest[u]));
    return DLS_OK;
}

/* list the sums of a stage */
/* Stretches of equal decay in a rank's slice of a unit: zero_step.c launches for each. */
static int stretches_of(const dls_params *set, const dls_shard_unit *unit, int rank)
{
    size_t first, count;
    int n = 0, decay = -1;
    dls_shard_slice(unit, rank, &first, &count);
    for (int i = 0; i < unit->params; i++) {
        const dls_param *p = &set->items[unit->param + i];
        if (p->offset + p->count <= first || p->offset >= first + count)
            continue;
        n += p->decay != decay;
        decay = p->decay;
    }
    return n;
}

/* The rank with most of them, which the others wait for. */
static int busiest_rank(const dls_params *set, const dls_shard_unit *units, int n,
                        int ways)
{
    int most = -1, busiest = 0;
    for (int r = 0; r < ways && r < 64; r++) {
        int sum = 0;
        for (int u = 0; u < n; u++)
            sum += stretches_of(set, &units[u], r);
        busiest = sum > most ? r : busiest;
        most = sum > most ? sum : most;
    }
    return busiest;
}

/* ZeRO: unit by unit, the last first; and the values back, if they stay whole. */
static dls_status add_slices(dls_step_costs *k, dls_stage_costs *g, const dls_params *set)
{
    dls_dtype dtype = k->c->dtype, wide = dls_dtype_accumulator(dtype);
    int ways = dls_mesh_group_size(&k->mesh, DLS_AXES_DATA), n = 0;
    dls_shard_unit *units = calloc((size_t)set->n + 1, sizeof *units);
    dls_status s = units ? dls_shard_plan(set->items, set->n, ways, 0, units, &n)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory to plan %d units", set->n);
    g->sum = calloc((size_t)n + 1, sizeof *g->sum);
    int busiest = s == DLS_OK ? busiest_rank(set, units, n, ways) : 0;
    for (int u = n - 1; s == DLS_OK && g->sum && u >= 0; u--) {
        dls_grad_sum *sum = &g->sum[g->sums++];
        sum->unit = u;
        sum->held = units[u].held;
        sum->stretches = stretches_of(set, &units[u], busiest);
        s = group_seconds(k, DLS_AXES_DATA, "reduce_scatter", units[u].slice, (int)wide,
                          &sum->seconds);
        if (s == DLS_OK)
            s = group_seconds(k, DLS_AXES_DATA, "all_gather", units[u].slice, (int)dtype,
                              &sum->back);
    }
    free(units);
    return s;
}

/* DDP: bucket by bucket, each behind the unit of its first parameter. */
static dls_status add_buckets(dls_step_costs *k, dls_stage_costs *g,
                              const dls_params *set)
{
    dls_dtype wide = dls_dtype_accumulator(k->c->dtype);
    dls_bucket *b = calloc((size_t)set->n + 1, sizeof *b);
    int n = 0;
    dls_status s = b ? dls_bucket_plan(set->items, set->n, dls_dtype_size(wide),
                                       k->c->ddp.first_bucket_bytes,
                                       k->c->ddp.bucket_bytes, b, &n)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory to plan buckets");
    g->sum = calloc((size_t)n + 1, sizeof *g->sum);
    for (int i = 0; s == DLS_OK && g->sum && i < n; i++) {
        dls_grad_sum *sum = &g->sum[g->sums++];
        sum->unit = set->items[b[i].param].unit;
        s = group_seconds(k, DLS_AXES_DATA, "all_reduce", b[i].count, (int)wide,
                          &sum->seconds);
    }
    free(b);
    return s;
}

static dls_status add_sums(dls_step_costs *k, int stage)
{
    dls_transformer_config m = cut_model(k);
    dls_stage_costs *g = &k->stage[stage];
    dls_dtype wide = dls_dtype_accumulator(k->c->dtype);
    dls_params set = {0};
    if (k->ways == 1 && !k->c->sharded)
        return DLS_OK;
    if (!k->c->sharded && k->c->pipeline.schedule) {
        g->sum = calloc(1, sizeof *g->sum);
        g->sums = g->sum != NULL;
        return g->sum ? group_seconds(k, DLS_AXES_DATA, "all_reduce", g->full.elements,
                                      (int)wide, &g->sum->seconds) : DLS_ERR_MEMORY;
    }
    m.from_unit = k->first[stage];
    m.to_unit = k->first[stage + 1];
    dls_status s = dls_transformer_list(&m, &set);
    for (int i = 0; k->c->pipeline.schedule && i < set.n; i++)
        set.items[i].unit -= m.from_unit;
    if (s == DLS_OK)
        s = (k->c->sharded ? add_slices : add_buckets)(k, g, &set);
    dls_params_free(&set);
    return s;
}

/* measure the hops */
static dls_status measure_replica(dls_step_costs *k, int replica)
{
    int n = k->mesh.size[DLS_AXIS_PP], at[DLS_AXES] = {0}, rank[n];
    dls_link_spec *hop = k->hop + (size_t)replica * n * n;
    at[DLS_AXIS_DP] = replica;
    for (at[DLS_AXIS_PP] = 0; at[DLS_AXIS_PP] < n; at[DLS_AXIS_PP]++)
        rank[at[DLS_AXIS_PP]] = dls_mesh_rank(&k->mesh, at);
    for (int i = 0; i < n * n; i++)
        if (i / n != i % n)
            DLS_TRY(dls_cluster_link(dls_gpu_cluster(), rank[i / n], rank[i % n],
                                     &hop[i].alpha, &hop[i].beta));
    return DLS_OK;
}

static dls_status measure_hops(dls_step_costs *k)
{
    size_t n = (size_t)k->mesh.size[DLS_AXIS_PP];
    k->hop = calloc(n * n * (size_t)k->replicas, sizeof *k->hop);
    if (!k->hop)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu ranks of a pipeline", n);
    for (int r = 0; r < k->replicas; r++)
        DLS_TRY(measure_replica(k, r));
    return DLS_OK;
}

/* The sums that wait for all: of squares, and of a tied table. */
static dls_status add_common(dls_step_costs *k)
{
    const dls_schedule *s = &k->schedule;
    int last = s->stages - 1, cut = k->c->sharded;
    double data = 0, tensor;
    DLS_TRY(group_seconds(k, DLS_AXES_MODEL, "all_reduce", 1, (int)DLS_F64, &k->norm));
    if (cut && k->ways > 1)
        DLS_TRY(group_seconds(k, DLS_AXES_DATA, "all_reduce", 1, (int)DLS_F64, &data));
    k->norm += data;
    k->tied_stages = k->c->model.tied_head && last > 0
        && dls_schedule_rank(s, 0, 0) != dls_schedule_rank(s, last, 0);
    if (!k->tied_stages)
        return DLS_OK;
    size_t elements = (size_t)k->c->model.vocabulary * k->c->model.channels
        / (size_t)k->mesh.size[DLS_AXIS_TP];
    int at[DLS_AXES] = {0}, pair[2];
    pair[0] = dls_mesh_rank(&k->mesh, at);
    at[DLS_AXIS_PP] = dls_schedule_rank(s, last, 0);
    pair[1] = dls_mesh_rank(&k->mesh, at);
    tensor = 0;
    DLS_TRY(dls_planner_talk(k->planner, pair, 2, "all_reduce", elements,
                             (int)dls_dtype_accumulator(k->c->dtype), &tensor,
                             &k->tied_scratch));
    k->tied = tensor;
    return DLS_OK;
}

/* record what the trainer adds */
static dls_part one_launch(const dls_device_spec *d, double seconds)
{
    return (dls_part){.device = seconds, .host = d->launch,
                      .late = d->launch_latency + seconds};
}

/* The losses of a pass into the meter. */
static dls_status record_meter(dls_planner *planner, size_t losses, dls_part *out)
{
    dls_ctx wide = dls_ctx_accumulator(&planner->ctx);
    char *m = planner->memory;
    DLS_TRY(dls_planner_begin(planner));
    dls_status s = dls_sum(&wide, m, m, losses);
    if (s == DLS_OK)
        s = dls_add(&wide, m, m, m, 1);
    dls_status ended = dls_planner_end(planner, out);
    return s != DLS_OK ? s : ended;
}

static dls_status record_trainer(dls_planner *planner, dls_step_costs *k, int world)
{
    const dls_device_spec *d = &k->device;
    size_t ids = 2 * (size_t)k->rows * k->c->model.context * sizeof(int);
    int staged = k->c->pipeline.schedule != NULL;
    size_t losses = (size_t)k->T * (staged ? k->rows : k->c->micro_batch);
    double upload = d->host_latency
        + (double)ids / dls_cluster_host_bandwidth(dls_gpu_cluster(), 0, world);
    dls_part little = one_launch(d, dls_cluster_duration(d, DLS_WORK_COPY, 0, 16)), sum;
    dls_part clear = one_launch(d, dls_cluster_duration(d, DLS_WORK_COPY, 0,
                                                        (double)losses * 4));
    k->before = dls_part_then(little, one_launch(d, upload));
    k->pass = dls_part_nothing();
    k->behind = little;
    DLS_TRY(record_meter(planner, losses, &sum));
    if (staged) {
        k->before = dls_part_then(k->before, clear);
        k->behind = dls_part_then(sum, little);
    } else {
        k->pass = sum;
    }
    return DLS_OK;
}

/* collect the costs */
/* The data axis of a rank of the pipeline. */
static void find_sharers(dls_step_costs *k, int rank)
{
    int at[DLS_AXES] = {0};
    at[DLS_AXIS_PP] = k->replicas > 1 ? rank : 0;
    dls_mesh_group_ranks(&k->mesh, dls_mesh_rank(&k->mesh, at), DLS_AXES_DATA,
                         k->sharers);
}

static dls_status list_sums(dls_step_costs *k)
{
    k->ways = dls_mesh_group_size(&k->mesh, DLS_AXES_DATA);
    k->sharers = calloc((size_t)k->ways, sizeof *k->sharers);
    if (!k->sharers)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a group of %d", k->ways);
    for (int s = 0; s < k->schedule.stages; s++) {
        find_sharers(k, dls_schedule_rank(&k->schedule, s, 0));
        DLS_TRY(add_sums(k, s));
    }
    find_sharers(k, 0);
    return DLS_OK;
}

static dls_status collect(dls_planner *planner, dls_step_costs *k, int world)
{
    const dls_train_config *c = k->c;
    int cp = c->sharding.context > 1 ? c->sharding.context : 1;
    DLS_TRY(is_predicted(c));
    DLS_TRY(dls_mesh_fit(&k->mesh, world));
    k->T = c->model.context / cp;
    for (int i = 0, dp = k->mesh.size[DLS_AXIS_DP]; i < dp; i++) {
        int rows = dls_train_rows_of(c, i, dp);
        k->rows = rows > k->rows ? rows : k->rows;      // the others wait for these
    }
    k->replicas = is_regular(k) ? 1 : k->mesh.size[DLS_AXIS_DP];
    DLS_TRY(find_schedule(k));
    DLS_TRY(record_stages(planner, k));
    DLS_TRY(list_sums(k));
    DLS_TRY(measure_hops(k));
    DLS_TRY(add_common(k));
    int slices = c->sharding.sequence && c->sharding.tensor > 1 ? c->sharding.tensor : 1;
    k->row_bytes = (double)k->T * c->model.channels * dls_dtype_size(c->dtype) / slices;
    return record_trainer(planner, k, world);
}

dls_status dls_predict_costs(dls_planner *planner, const dls_train_config *c, int world,
                             dls_step_costs *out)
{
    *out = (dls_step_costs){.c = c, .planner = planner, .mesh = c->mesh,
                            .device = dls_gpu_cluster()->device};
    if (c->model.moe.experts > 0 && !c->model.moe.balanced)
        return DLS_FAIL(DLS_ERR_INPUT, "model.moe.balanced: the planner expected true, so "
                        "that a step takes the same time whoever is chosen, got false");
    dls_status s = collect(planner, out, world);
    if (s != DLS_OK)
        dls_predict_costs_free(out);
    return s;
}

void dls_predict_costs_free(dls_step_costs *k)
{
    for (int s = 0; k->stage && s < k->schedule.stages; s++)
        free(k->stage[s].sum);
    free(k->stage);
    free(k->unit);
    free(k->hop);
    free(k->sharers);
    free(k->first);
    dls_schedule_free(&k->schedule);
    *k = (dls_step_costs){0};
}
