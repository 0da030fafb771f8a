/* code/train/layout_check.c: from chapters/07-mesh-refusals.md. Edit the chapter, or edit here and run "make untangle". */
/* Which layouts can work, and what would have worked. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention_ways.h"
#include "parallel/pipeline/partition.h"
#include "parallel/pipeline/schedule.h"
#include "train/layout.h"
#include "vgpu/gpu.h"

/* ask a question */
typedef struct question {
    const dls_train_config *c;
    const dls_mesh *mesh;
    int *tries;                 /* schedules that may still be made; NULL: any number */
    char expected[160];
} question;

typedef int rule(question *q); /* 1: broken, and what it expected is written down */

__attribute__((format(printf, 2, 3)))
static int broken(question *q, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(q->expected, sizeof q->expected, format, args);
    va_end(args);
    return 1;
}

/* ask about the tensor axis */
static int cuts_the_heads(question *q)
{
    int heads = q->c->model.heads;
    return heads % q->mesh->size[DLS_AXIS_TP] == 0 ? 0
        : broken(q, "a divisor of model.heads %d", heads);
}

static int shares_the_kv_heads(question *q)
{
    int tp = q->mesh->size[DLS_AXIS_TP], kv = q->c->model.kv_heads;
    return kv % tp == 0 || tp % kv == 0 ? 0
        : broken(q, "a divisor or a multiple of model.kv_heads %d", kv);
}

static int cuts_the_mlp(question *q)
{
    int hidden = q->c->model.hidden;
    return hidden % q->mesh->size[DLS_AXIS_TP] == 0 ? 0
        : broken(q, "a divisor of model.hidden %d", hidden);
}

static int cuts_the_rows(question *q)
{
    const int *s = q->mesh->size;
    int tokens = q->c->model.context / s[DLS_AXIS_CP];
    return !q->c->sharding.sequence || tokens % s[DLS_AXIS_TP] == 0 ? 0
        : broken(q, "a divisor of the %d tokens of a rank (model.context %d / cp %d), or "
                 "parallel.sequence false", tokens, q->c->model.context, s[DLS_AXIS_CP]);
}

/* ask about the context axis */
static int cuts_the_tokens(question *q)
{
    int T = q->c->model.context;
    return T % q->mesh->size[DLS_AXIS_CP] == 0 ? 0
        : broken(q, "a divisor of model.context %d", T);
}

static int spreads(question *q, int ranks)
{
    int tp = q->mesh->size[DLS_AXIS_TP], heads = q->c->model.heads / tp;
    int kv = q->c->model.kv_heads > tp ? q->c->model.kv_heads / tp : 1;
    return heads % ranks == 0 && (kv % ranks == 0 || ranks % kv == 0) ? 0
        : broken(q, "ranks among which Ulysses can deal out the %d heads of a tensor "
                 "rank and its %d of keys", heads, kv);
}

static int spreads_the_heads(question *q)
{
    return q->c->sharding.way == DLS_CONTEXT_ULYSSES
        && spreads(q, q->mesh->size[DLS_AXIS_CP]);
}

static int groups_the_ring(question *q)
{
    int cp = q->mesh->size[DLS_AXIS_CP], u = q->c->sharding.ulysses;
    if (cp % u != 0)
        return broken(q, "a divisor of parallel.cp %d", cp);
    return q->c->sharding.way == DLS_CONTEXT_RING && spreads(q, u);
}

static int deals_out_the_experts(question *q)
{
    int experts = q->c->model.moe.experts, ep = q->mesh->ep;
    if (experts == 0)
        return ep > 1 && broken(q, "1, as the model has no experts");
    return experts % ep != 0
        && broken(q, "a divisor of model.moe.experts %d", experts);
}

static int cuts_the_experts(question *q)
{
    int hidden = q->c->model.moe.hidden, etp = q->mesh->etp;
    if (q->c->model.moe.experts == 0)
        return etp > 1 && broken(q, "1, as the model has no experts");
    return hidden % etp != 0 && broken(q, "a divisor of model.moe.hidden %d", hidden);
}

/* ask about the stages */
static int chunks_of(const dls_train_config *c)
{
    const dls_schedule_entry *e = dls_schedule_find(c->pipeline.schedule);
    if (e->placement == DLS_PLACE_BOTH)
        return 1;
    return e->chunks ? e->chunks : c->pipeline.chunks ? c->pipeline.chunks : 2;
}

static int has_units(question *q)
{
    int layers = q->c->model.layers, pp = q->mesh->size[DLS_AXIS_PP];
    if (!q->c->pipeline.schedule || pp * chunks_of(q->c) <= layers + 2)
        return 0;
    return broken(q, "at most %d, as the %d layers, embedding and head are %d units and "
                  "a rank has %d stage%s", (layers + 2) / chunks_of(q->c), layers,
                  layers + 2, chunks_of(q->c), chunks_of(q->c) == 1 ? "" : "s");
}

/* ask about the batch */
int dls_train_microbatches(const dls_train_config *c, int replicas)
{
    int most = (c->global_batch + replicas - 1) / replicas;
    return c->pipeline.microbatches ? c->pipeline.microbatches
        : (most + c->micro_batch - 1) / c->micro_batch;
}

static int holds_the_batch(question *q)
{
    const dls_train_config *c = q->c;
    int dp = q->mesh->size[DLS_AXIS_DP], most = (c->global_batch + dp - 1) / dp;
    if (!c->pipeline.schedule
        || (int64_t)dls_train_microbatches(c, dp) * c->micro_batch >= most)
        return 0;
    return broken(q, "at least %d for the %d sequences of a pipeline (train.global_batch "
                  "%d / dp %d) in passes of train.micro_batch %d",
                  (most + c->micro_batch - 1) / c->micro_batch, most, c->global_batch, dp,
                  c->micro_batch);
}

static int fills_the_passes(question *q)
{
    const dls_train_config *c = q->c;
    const char *name = c->pipeline.schedule;
    int dp = q->mesh->size[DLS_AXIS_DP], m = dls_train_microbatches(c, dp);
    if (!name || dls_schedule_find(name)->step_every == 0
        || (int64_t)m * c->micro_batch * dp == c->global_batch)
        return 0;
    return broken(q, "full micro-batches for %s: a multiple of dp %d * train.micro_batch "
                  "%d", name, dp, c->micro_batch);
}

/* ask about the schedule */
static dls_status make_schedule(const dls_train_config *c, const dls_mesh *m,
                                dls_schedule *out)
{
    dls_schedule_options o = dls_schedule_defaults(
        c->pipeline.schedule, m->size[DLS_AXIS_PP],
        dls_train_microbatches(c, m->size[DLS_AXIS_DP]));
    o.chunks = c->pipeline.chunks;
    return dls_schedule_make(&o, out);
}

static int can_be_scheduled(question *q)
{
    dls_schedule s;
    if (!q->c->pipeline.schedule)
        return 0;
    if (q->tries)
        --*q->tries;
    if (make_schedule(q->c, q->mesh, &s) != DLS_OK)
        return broken(q, "what can be scheduled (%s)", dls_status_message());
    dls_schedule_free(&s);
    return 0;
}

/* list the settings */
#define PLACE(field) offsetof(dls_train_config, field)

typedef struct setting {
    const char *key;
    size_t place;               /* of an int in the configuration */
    rule *rules[5];
} setting;

static const setting settings[] = {
    {"parallel.tp", PLACE(mesh.size[DLS_AXIS_TP]),
     {cuts_the_heads, shares_the_kv_heads, cuts_the_mlp, cuts_the_rows}},
    {"parallel.cp", PLACE(mesh.size[DLS_AXIS_CP]), {cuts_the_tokens, spreads_the_heads}},
    {"parallel.ulysses", PLACE(sharding.ulysses), {groups_the_ring}},
    {"parallel.ep", PLACE(mesh.ep), {deals_out_the_experts}},
    {"parallel.etp", PLACE(mesh.etp), {cuts_the_experts}},
    {"pipeline.microbatches", PLACE(pipeline.microbatches),
     {holds_the_batch, can_be_scheduled}},
    {"train.global_batch", PLACE(global_batch), {fills_the_passes, can_be_scheduled}},
    {"parallel.pp", PLACE(mesh.size[DLS_AXIS_PP]), {has_units, can_be_scheduled}},
    {"pipeline.chunks", PLACE(pipeline.chunks), {has_units, can_be_scheduled}}};

static int *number(dls_train_config *c, const setting *s)
{
    return (int *)((char *)c + s->place);
}

static int is_broken(question *q, const setting *s)
{
    int any = 0;
    for (int i = 0; s->rules[i] && !any; i++)
        any = s->rules[i](q);
    return any;
}

/* find the nearest that works */
enum { FAR = 4096, TRIES = 64 };        /* how far a value is looked for; schedules */

static int works(dls_train_config *c, int world, const setting *s, int value, int *tries)
{
    dls_mesh mesh = c->mesh;
    question q = {.c = c, .mesh = &mesh, .tries = tries};
    int was = *number(c, s), good;
    if (value < 1)
        return 0;
    *number(c, s) = value;
    mesh = c->mesh;
    mesh.size[DLS_AXIS_DP] = 0;
    good = dls_mesh_fit(&mesh, world) == DLS_OK && !is_broken(&q, s);
    *number(c, s) = was;
    return good;
}

/* 0: none near. */
static int nearest(const dls_train_config *config, int world, const setting *s)
{
    dls_train_config c = *config;
    int value = *number(&c, s), tries = TRIES;
    for (int d = 1; d < FAR && tries > 0; d++) {
        if (works(&c, world, s, value - d, &tries))
            return value - d;
        if (works(&c, world, s, value + d, &tries))
            return value + d;
    }
    return 0;
}

/* check the shape */
/* helps 1: only what a value of this setting would mend. */
static dls_status check_setting(const dls_train_config *config, int world,
                                const dls_mesh *mesh, const setting *s, int helps)
{
    dls_train_config c = *config;
    question q = {.c = config, .mesh = mesh};
    int value = *number(&c, s), near;
    if (value == 0 || !is_broken(&q, s))
        return DLS_OK;
    near = nearest(config, world, s);
    if (near > 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected %s, got %d; the nearest that works "
                        "is %d", s->key, q.expected, value, near);
    return helps ? DLS_OK : DLS_FAIL(DLS_ERR_INPUT, "%s: expected %s, got %d", s->key,
                                     q.expected, value);
}

static dls_status check_context(const dls_train_config *c)
{
    static const char *const ways[] = {"ring", "ulysses", "gather"};
    const dls_sharding *s = &c->sharding;
    const dls_transformer_config *m = &c->model;
    int group = s->way == DLS_CONTEXT_ULYSSES ? s->context : s->ulysses;
    if (group == s->context)
        return DLS_OK;
    if (m->attention_dropout > 0)
        return DLS_FAIL(DLS_ERR_INPUT, "parallel.context: expected a way that has "
                        "model.attention_dropout %g, got %s; the nearest that works is "
                        "ulysses", m->attention_dropout, ways[s->way]);
    if (m->head_size > DLS_FLASH_LARGEST_HEAD)
        return DLS_FAIL(DLS_ERR_INPUT, "model.head_size: expected at most %d with "
                        "parallel.context %s, got %d", DLS_FLASH_LARGEST_HEAD,
                        ways[s->way], m->head_size);
    if (group > 1 && s->order == DLS_TOKENS_STRIPED)
        return DLS_FAIL(DLS_ERR_INPUT, "parallel.tokens: expected an order for groups of "
                        "%d in a ring, got striped; the nearest that works is zigzag",
                        group);
    return DLS_OK;
}

static dls_status check_units(const dls_train_config *c, int stages)
{
    const dls_train_pipeline *p = &c->pipeline;
    int first[stages + 1];
    if (p->given > 0 && p->given != stages)
        return DLS_FAIL(DLS_ERR_INPUT, "pipeline.units: expected %d numbers, got %d",
                        stages, p->given);
    if (p->given > 0
        && dls_partition_by_hand(p->units, c->model.layers, stages, first) != DLS_OK)
        return DLS_FAIL(DLS_ERR_INPUT, "pipeline.units: %s", dls_status_message());
    return DLS_OK;
}

static dls_status check_pipeline(const dls_train_config *c, const dls_mesh *m)
{
    dls_schedule s;
    if (make_schedule(c, m, &s) != DLS_OK)
        return DLS_FAIL(DLS_ERR_INPUT, "pipeline.schedule: %s", dls_status_message());
    int stages = s.stages, trains = s.backward;
    dls_schedule_free(&s);
    return trains ? check_units(c, stages)
        : DLS_FAIL(DLS_ERR_INPUT, "pipeline.schedule: %s does not train",
                   c->pipeline.schedule);
}

dls_status dls_train_check_shape(const dls_train_config *c, int world)
{
    dls_mesh mesh = c->mesh;
    DLS_TRY(dls_mesh_fit(&mesh, world));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        DLS_TRY(check_setting(c, world, &mesh, &settings[i], 1));
    DLS_TRY(check_context(c));
    DLS_TRY(dls_train_check_experts(c, &mesh));
    if (c->pipeline.schedule)
        DLS_TRY(check_pipeline(c, &mesh));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        DLS_TRY(check_setting(c, world, &mesh, &settings[i], 0));
    return DLS_OK;
}

/* check the memory */
/* The bytes of the rank that needs most. */
static dls_status most_bytes(const dls_train_config *c, const dls_mesh *m, double *most,
                             int *who)
{
    size_t bytes[DLS_MEM_PURPOSES];
    int at[DLS_AXES] = {0};
    *most = 0;
    for (; at[DLS_AXIS_PP] < m->size[DLS_AXIS_PP]; at[DLS_AXIS_PP]++) {
        int rank = dls_mesh_rank(m, at);
        double sum = 0;
        DLS_TRY(dls_train_predict_memory(c, rank, dls_mesh_world(m), bytes));
        for (int i = 0; i < DLS_MEM_PURPOSES; i++)
            sum += (double)bytes[i];
        if (sum > *most) {
            *most = sum;
            *who = rank;
        }
    }
    return DLS_OK;
}

/* The largest micro-batch that fits; 0: none. */
static dls_status fitting(const dls_train_config *config, const dls_mesh *m,
                          double capacity, double *least, int *fits)
{
    dls_train_config c = *config;
    int low = 0, high = c.micro_batch, who;
    c.micro_batch = 1;
    DLS_TRY(most_bytes(&c, m, least, &who));
    if (*least <= capacity)
        low = 1;
    while (low > 0 && low + 1 < high) {
        double most;
        c.micro_batch = low + (high - low) / 2;
        DLS_TRY(most_bytes(&c, m, &most, &who));
        *(most <= capacity ? &low : &high) = c.micro_batch;
    }
    *fits = low;
    return DLS_OK;
}
/* The next larger number of ranks on an axis with which all fits; 0: none. */
static dls_status fitting_ranks(const dls_train_config *config, int world,
                                double capacity, const setting *s, int *fits)
{
    dls_train_config c = *config;
    int tries = TRIES, who;
    c.mesh.size[DLS_AXIS_DP] = 0;
    if (strcmp(s->key, "parallel.pp") == 0 && !c.pipeline.schedule)
        c.pipeline.schedule = "1f1b";
    for (int v = *number(&c, s) + 1; v <= world && tries > 0; v++) {
        dls_train_config with = c;
        double most;
        *number(&with, s) = v;
        dls_mesh m = with.mesh;
        if (!works(&c, world, s, v, &tries) || dls_mesh_fit(&m, world) != DLS_OK
            || dls_train_check_shape(&with, world) != DLS_OK)
            continue;
        DLS_TRY(most_bytes(&with, &m, &most, &who));
        if (most <= capacity) {
            *fits = v;
            return DLS_OK;
        }
    }
    return DLS_OK;
}

static dls_status advise_ranks(const dls_train_config *c, int world, double capacity,
                               double most, double least)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const setting *s = &settings[i];
        dls_train_config copy = *c;
        int fits = 0;
        if (strcmp(s->key, "parallel.tp") != 0 && strcmp(s->key, "parallel.pp") != 0)
            continue;
        DLS_TRY(fitting_ranks(c, world, capacity, s, &fits));
        if (fits > 0)
            return DLS_FAIL(DLS_ERR_INPUT, "%s: expected what brings %.4g GB a rank "
                            "below %.4g GB, got %d; the nearest that works is %d", s->key,
                            most * 1e-9, capacity * 1e-9, *number(&copy, s), fits);
    }
    return DLS_FAIL(DLS_ERR_INPUT, "parallel: a rank needs %.4g GB of %.4g GB, and %.4g "
                    "GB with train.micro_batch 1: expected more ranks, or a later "
                    "data_parallel", most * 1e-9, capacity * 1e-9, least * 1e-9);
}

dls_status dls_train_check_memory(const dls_train_config *c, int world, double capacity)
{
    dls_mesh mesh = c->mesh;
    double most, least;
    int rank, fits;
    DLS_TRY(dls_mesh_fit(&mesh, world));
    DLS_TRY(most_bytes(c, &mesh, &most, &rank));
    if (most <= capacity)
        return DLS_OK;
    DLS_TRY(fitting(c, &mesh, capacity, &least, &fits));
    if (fits == 0)
        return advise_ranks(c, world, capacity, most, least);
    return DLS_FAIL(DLS_ERR_INPUT, "train.micro_batch: expected what fits into %.4g GB, "
                    "got %d, with which rank %d needs %.4g GB; the nearest that works is "
                    "%d",
                    capacity * 1e-9, c->micro_batch, rank, most * 1e-9, fits);
}

dls_status dls_train_check_layout(const dls_train_config *c, int world)
{
    DLS_TRY(dls_train_check_shape(c, world));
    return dls_train_check_memory(c, world, dls_gpu_cluster()->device.memory_bytes);
}
