/* code/train/search.c: from chapters/07-planner-search.md. Edit the chapter, or edit here and run "make untangle". */
/* Enumerate, refuse, bound, sort, play. */
#include "train/search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/layout.h"
#include "train/pipelined.h"

/* list the candidates */
/* What a candidate chooses; the rest is the base's. */
typedef struct choice {
    short tp, cp, pp, micro;
    signed char sequence, schedule, chunks, zero, recompute;
    double bound;
} choice;

static const char *const schedules[] = {NULL, "1f1b", "interleaved", "zb-h1", "zb-v"};
enum { SCHEDULES = sizeof schedules / sizeof *schedules };

typedef struct hunt {
    dls_layout_search *s;
    dls_planner *planner;
    choice *list;
    size_t n, room;
    double least;           // bytes of the smallest that did not fit
    dls_train_config smallest;
} hunt;

static dls_status note_candidate(hunt *h, const choice *c)
{
    size_t room = h->room ? 2 * h->room : 4096;
    if (h->n == h->room) {
        choice *more = realloc(h->list, room * sizeof *more);
        if (!more)
            return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu layouts", room);
        h->list = more;
        h->room = room;
    }
    h->list[h->n++] = *c;
    return DLS_OK;
}

static void apply_choice(const dls_layout_search *s, const choice *x,
                         dls_train_config *c)
{
    *c = *s->base;
    c->mesh.size[DLS_AXIS_TP] = c->sharding.tensor = x->tp;
    c->mesh.size[DLS_AXIS_CP] = c->sharding.context = x->cp;
    c->mesh.size[DLS_AXIS_PP] = x->pp;
    c->mesh.size[DLS_AXIS_DP] = s->world / (x->tp * x->cp * x->pp);
    c->sharding.sequence = x->sequence;
    c->micro_batch = x->micro;
    c->pipeline.schedule = schedules[x->schedule];
    c->pipeline.chunks = x->chunks;
    c->sharded = x->zero > 0;
    c->zero.stage = x->zero;
    c->model.recompute = (dls_recompute)x->recompute;
}

/* bound a candidate */
/* The costs of the three kinds of units, recorded once per way to cut them. */
static dls_status record_units(hunt *h, const dls_train_config *c, dls_planned_unit u[3])
{
    int L = c->model.layers, cp = c->mesh.size[DLS_AXIS_CP];
    dls_transformer_config m = c->model;
    m.sharding = c->sharding;
    dls_planned_pass pass = {&m, c->dtype, c->micro_batch, c->model.context / cp, 0};
    DLS_TRY(dls_planner_unit(h->planner, &pass, 0, 1, &u[0]));
    DLS_TRY(dls_planner_unit(h->planner, &pass, 1, 2, &u[1]));
    return dls_planner_unit(h->planner, &pass, L + 1, L + 2, &u[2]);
}

static double pass_of(const dls_planned_unit u[3], int layers, int i)
{
    const dls_planned_unit *is = &u[i == 0 ? 0 : i <= layers ? 1 : 2];
    return is->F.device + is->B.device;
}

/* The passes of the rank that has most to do, and the bubble of a pipeline of its kind:
 * but for the imbalance of one micro-batch, no step is shorter. */
static dls_status shortest(const choice *x, const dls_train_config *c,
                           const dls_planned_unit u[3], int m, double *seconds)
{
    int L = c->model.layers, stages = x->pp * x->chunks, first[stages + 1];
    double all = 0, most = 0, rank[x->pp], fill = x->pp - 1;
    const double bubble[SCHEDULES] = {0, fill, fill / x->chunks, fill / 3, 0};
    first[0] = 0;
    first[stages] = L + 2;
    if (c->pipeline.schedule)
        DLS_TRY(dls_pipelined_partition(c, stages, first));
    memset(rank, 0, sizeof rank);
    for (int s = 0; s < stages; s++)
        for (int i = first[s], r; i < first[s + 1]; i++) {
            r = s < x->pp || x->schedule != 4 ? s % x->pp : 2 * x->pp - 1 - s;
            rank[r] += pass_of(u, L, i);
            all += pass_of(u, L, i);
            most = rank[r] > most ? rank[r] : most;
        }
    *seconds = m * most + bubble[x->schedule] * all / x->pp;
    return DLS_OK;
}

/* At least what a rank takes for parameters and for the passes under way on the first. */
static double least_bytes(const dls_train_config *c, const choice *x,
                          const dls_planned_unit u[3], int m)
{
    double value = (double)dls_dtype_size(c->dtype);
    double wide = (double)dls_dtype_size(dls_dtype_accumulator(c->dtype));
    double state = (wide == value ? 2 : 3) * wide;
    double ways = (double)c->mesh.size[DLS_AXIS_DP] * x->cp;
    double blocks = (double)c->model.layers / x->pp;
    double n = blocks * (double)u[1].elements
        + (x->pp == 1 ? (double)(u[0].elements + u[2].elements) : 0);
    double slot = (double)(u[1].bytes.stash + u[1].bytes.early);
    double held = x->pp < m ? x->pp : m;
    return n * (value / (x->zero == 3 ? ways : 1) + wide / (x->zero >= 2 ? ways : 1)
                + state / (x->zero >= 1 ? ways : 1)) + blocks * slot * held;
}

/* enumerate the axes */
static dls_status consider(hunt *h, choice *x)
{
    dls_layout_search *s = h->s;
    dls_train_config c;
    dls_planned_unit u[3];
    s->considered++;
    apply_choice(s, x, &c);
    int dp = c.mesh.size[DLS_AXIS_DP], m = dls_train_microbatches(&c, dp);
    if (record_units(h, &c, u) != DLS_OK) {
        s->too_large++;
        return DLS_OK;
    }
    double bytes = least_bytes(&c, x, u, m);
    if (bytes > s->memory) {
        s->too_large++;
        if (h->least == 0 || bytes < h->least)
            h->smallest = c;
        h->least = h->least == 0 || bytes < h->least ? bytes : h->least;
        return DLS_OK;
    }
    if (shortest(x, &c, u, m, &x->bound) != DLS_OK) {
        s->refused++;           // more stages than units
        return DLS_OK;
    }
    return note_candidate(h, x);
}

/* enumerate the rest */
/* Chunks of a rank: as many as the schedule has, or 2, 3, 4 ... as blocks allow. */
static dls_status consider_chunks(hunt *h, choice *x)
{
    int per_rank = h->s->base->model.layers / x->pp;
    x->chunks = x->schedule == 4 ? 2 : 1;
    if (x->schedule != 2)
        return consider(h, x);
    for (x->chunks = 2; x->chunks <= 8 && x->chunks <= per_rank; x->chunks++)
        if (per_rank % x->chunks == 0)
            DLS_TRY(consider(h, x));
    return DLS_OK;
}

/* Whether the axes cut the model at all: asked of a batch of one pass, since the answer
 * makes a schedule. */
static int is_possible(hunt *h, choice x)
{
    dls_train_config c;
    x.schedule = x.pp > 1;
    x.chunks = 1;
    apply_choice(h->s, &x, &c);
    c.global_batch = c.micro_batch * c.mesh.size[DLS_AXIS_DP];
    return dls_train_check_shape(&c, h->s->world) == DLS_OK;
}

/* ZeRO beside a pipeline cuts the optimizer alone. */
static dls_status consider_ways(hunt *h, choice *x)
{
    int dp = h->s->world / (x->tp * x->cp * x->pp), most = x->pp > 1 ? 1 : 3;
    x->sequence = x->tp > 1;
    if (!is_possible(h, *x)) {
        h->s->refused++;
        return DLS_OK;
    }
    for (x->recompute = 0; x->recompute <= DLS_RECOMPUTE_FULL; x->recompute++)
        for (x->sequence = x->tp > 1; x->sequence >= 0; x->sequence--)
            for (x->zero = 0; x->zero <= (dp * x->cp > 1 ? most : 0); x->zero++)
                for (x->schedule = x->pp > 1;
                     x->schedule < (x->pp > 1 ? SCHEDULES : 1); x->schedule++)
                    DLS_TRY(consider_chunks(h, x));
    return DLS_OK;
}

static dls_status enumerate(hunt *h)
{
    const dls_layout_search *s = h->s;
    int node = dls_gpu_cluster()->gpus_per_node, L = s->base->model.layers;
    choice x = {0};
    for (int tp = 1; tp <= node && tp <= s->world; tp *= 2)
        for (int cp = 1; cp * tp <= s->world && cp <= 16; cp *= 2)
            for (int pp = 1; pp * cp * tp <= s->world && pp <= L; pp++) {
                int rest = s->world / (tp * cp * pp);
                if (rest * tp * cp * pp != s->world || rest > s->base->global_batch)
                    continue;
                for (int b = 1; b <= 8 && b * rest <= s->base->global_batch; b *= 2) {
                    x.tp = (short)tp;
                    x.cp = (short)cp;
                    x.pp = (short)pp;
                    x.micro = (short)b;
                    DLS_TRY(consider_ways(h, &x));
                }
            }
    return DLS_OK;
}

/* play the promising */
static int by_bound(const void *a, const void *b)
{
    double x = ((const choice *)a)->bound, y = ((const choice *)b)->bound;
    return (x > y) - (x < y);
}

/* Keeps the best, sorted. */
static void keep(dls_layout_search *s, const dls_found *f)
{
    int i = s->found < s->wanted ? s->found++ : s->wanted - 1;
    if (i == s->wanted - 1 && s->best[i].is.seconds > 0
        && s->best[i].is.seconds <= f->is.seconds)
        return;
    for (; i > 0 && s->best[i - 1].is.seconds > f->is.seconds; i--)
        s->best[i] = s->best[i - 1];
    s->best[i] = *f;
}

static dls_status play_one(hunt *h, const choice *x)
{
    dls_found f = {.bound = x->bound};
    dls_step_costs k;
    size_t bytes[DLS_MEM_PURPOSES];
    apply_choice(h->s, x, &f.c);
    if (dls_train_check_shape(&f.c, h->s->world) != DLS_OK) {
        h->s->refused++;
        return DLS_OK;
    }
    if (dls_predict_costs(h->planner, &f.c, h->s->world, &k) != DLS_OK)
        return DLS_OK;          // too large as a whole, or impossible after all
    h->s->played++;
    f.bytes = dls_predict_most(&k, bytes);
    dls_status s = DLS_OK;
    if ((double)f.bytes > h->s->memory)
        h->s->too_large++;
    else
        s = dls_predict_play(&k, 0, &f.is.seconds);
    if (s == DLS_OK && f.is.seconds > 0)
        keep(h->s, &f);
    dls_predict_costs_free(&k);
    return s;
}

/* search for layouts */
static dls_status hunt_for(hunt *h)
{
    dls_layout_search *s = h->s;
    DLS_TRY(enumerate(h));
    qsort(h->list, h->n, sizeof *h->list, by_bound);
    for (size_t i = 0; i < h->n; i++) {
        if (s->found == s->wanted
            && h->list[i].bound >= s->best[s->wanted - 1].is.seconds)
            break;              // nor can any behind it be better
        DLS_TRY(play_one(h, &h->list[i]));
    }
    for (int i = 0; i < s->found; i++)
        DLS_TRY(dls_predict_step(h->planner, &s->best[i].c, s->world, &s->best[i].is));
    return DLS_OK;
}

dls_status dls_search_layouts(dls_planner *planner, dls_layout_search *s)
{
    hunt h = {.s = s, .planner = planner};
    char text[DLS_LAYOUT_TEXT];
    s->found = 0;
    s->considered = s->refused = s->too_large = s->played = 0;
    dls_status status = hunt_for(&h);
    free(h.list);
    if (status != DLS_OK || s->found > 0)
        return status;
    if (h.least == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "none of %lld layouts of %d devices is possible; "
                        "the last: %s", (long long)s->considered, s->world,
                        dls_status_message());
    dls_layout_text(&h.smallest, text);
    return DLS_FAIL(DLS_ERR_INPUT, "--memory: none of %lld layouts of %d devices fits "
                    "into %.1f GB; the smallest takes %.1f GB: %s",
                    (long long)s->considered, s->world, s->memory / 1e9, h.least / 1e9,
                    text);
}

/* name a layout */
void dls_layout_text(const dls_train_config *c, char text[DLS_LAYOUT_TEXT])
{
    static const char *const recompute[] = {"", ", selective recompute",
                                            ", full recompute"};
    const int *n = c->mesh.size;
    int at = snprintf(text, DLS_LAYOUT_TEXT, "tp %d%s, cp %d, pp %d, dp %d, micro-batch "
                      "%d", n[DLS_AXIS_TP], c->sharding.sequence ? " sp" : "",
                      n[DLS_AXIS_CP], n[DLS_AXIS_PP], n[DLS_AXIS_DP], c->micro_batch);
    if (c->pipeline.schedule)
        at += snprintf(text + at, DLS_LAYOUT_TEXT - (size_t)at, ", %s",
                       c->pipeline.schedule);
    if (c->pipeline.schedule && c->pipeline.chunks > 1)
        at += snprintf(text + at, DLS_LAYOUT_TEXT - (size_t)at, " x %d",
                       c->pipeline.chunks);
    if (c->sharded)
        at += snprintf(text + at, DLS_LAYOUT_TEXT - (size_t)at, ", zero%d",
                       c->zero.stage);
    snprintf(text + at, DLS_LAYOUT_TEXT - (size_t)at, "%s",
             recompute[c->model.recompute]);
}
