/* code/train/predict_play.c: from chapters/07-planner-time.md. Edit the chapter, or edit here and run "make untangle". */
/* All ranks of one pipeline in one process, action by action, with two clocks each. The
 * replicas do the same at the same time, and the ranks of tensor and context axis too.
 */
#include <math.h>
#include <stdlib.h>

#include "parallel/pipeline/walk.h"
#include "train/predict.h"

/* keep the clocks of the ranks */
/* Of a rank: the host's clock, when its device and its stream for sums are free. */
typedef struct clock { double host, free, wire; int left; } clock;

typedef struct player {
    const dls_step_costs *k;
    int without, n;         // ranks of the pipeline
    const dls_link_spec *hop;   // [n * n] of the replica that is played
    double launch, latency;
    clock *rank;            // [n]
    double *to, *sent;      // [n * n]: a stream to another rank; its last departure
    double *arrived;        // [2 * stages * microbatches]: forward, backward
    double *values;         // [largest number of sums]: when a unit's values are there
} player;

static void close_player(player *p)
{
    free(p->rank);
    free(p->to);
    free(p->arrived);
    free(p->values);
}

static dls_status open_player(player *p)
{
    const dls_step_costs *k = p->k;
    size_t n = (size_t)p->n, passes = (size_t)k->schedule.stages * k->microbatches;
    p->rank = calloc(n, sizeof *p->rank);
    p->to = calloc(2 * n * n, sizeof *p->to);
    p->sent = p->to ? p->to + n * n : NULL;
    p->arrived = calloc(2 * passes, sizeof *p->arrived);
    p->values = calloc((size_t)k->c->model.layers + 2, sizeof *p->values);
    if (p->rank && p->to && p->arrived && p->values)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_MEMORY, "no memory to play %zu passes", passes);
}

/* launch and sum */
static void run(const player *p, clock *c, const dls_part *part)
{
    dls_part is = *part;
    if (p->without & DLS_WITHOUT_TALK)
        is.device -= is.talk;
    if (p->without & DLS_WITHOUT_LAUNCHES)
        is.late = -INFINITY;
    dls_part_run(&is, &c->host, &c->free);
}

/* A collective on a stream that is free at `ready`: its end. Two launches. */
static double talk(const player *p, clock *c, double ready, double seconds)
{
    double post = c->host + p->latency, exchange = post + p->launch;
    c->host += 2 * p->launch;
    if (p->without & DLS_WITHOUT_LAUNCHES)
        return ready + seconds;
    return fmax(fmax(ready, post) + seconds, exchange);
}

static double data_seconds(const player *p, double seconds)
{
    return p->without & DLS_WITHOUT_DATA ? 0 : seconds;
}

/* `launches` kernels that take `seconds` together, or as long as the shortest ones. */
static void run_kernels(const player *p, clock *c, int launches, double seconds)
{
    double least = launches * p->k->device.least_kernel;
    dls_part all = {.device = fmax(seconds, least), .host = launches * p->launch};
    all.late = fmax(p->latency + all.device,
                    all.host - p->launch + p->latency + all.device / launches);
    if (launches > 0)
        run(p, c, &all);
}

/* pass a message */
static double *arrival(const player *p, int backward, int stage, int microbatch)
{
    const dls_step_costs *k = p->k;
    return &p->arrived[((size_t)backward * k->schedule.stages + stage) * k->microbatches
                       + microbatch];
}

static double rows_of(const dls_step_costs *k, int microbatch)
{
    int left = k->rows - microbatch * k->c->micro_batch;
    return left < k->c->micro_batch ? left : k->c->micro_batch;
}

/* What stage `stage` has made goes to the rank of stage `next`. */
static void send(const player *p, int r, int backward, int stage, int next,
                 int microbatch)
{
    const dls_step_costs *k = p->k;
    clock *c = &p->rank[r];
    double *there = arrival(p, backward, next, microbatch);
    int to = dls_schedule_rank(&k->schedule, next, microbatch);
    (void)stage;
    *there = c->free;
    if (to == r)
        return;
    double *stream = &p->to[r * p->n + to], *last = &p->sent[r * p->n + to];
    double post = c->host + p->latency, exchange = post + p->launch;
    int eager = p->without & DLS_WITHOUT_LAUNCHES;
    const dls_link_spec *hop = &p->hop[r * p->n + to];
    double wire = hop->beta * k->row_bytes * rows_of(k, microbatch);
    double departure = fmax(fmax(*stream, c->free), eager ? 0 : post);
    c->host += 2 * p->launch;
    if (p->without & DLS_WITHOUT_HOPS)
        return;
    departure = fmax(departure, *last);
    *last = departure + wire;
    *stream = fmax(*last, eager ? 0 : exchange);
    *there = departure + hop->alpha + wire;
}

/* The rank's stream goes on when the message is there; two launches for receiving. */
static void receive(const player *p, int r, int backward, int stage, int from,
                    int microbatch)
{
    clock *c = &p->rank[r];
    double there = *arrival(p, backward, stage, microbatch);
    if (from != r) {
        double exchange = c->host + p->latency + p->launch;
        c->host += 2 * p->launch;
        if (!(p->without & DLS_WITHOUT_LAUNCHES))
            there = fmax(there, exchange);
    }
    c->free = fmax(c->free, there);
}

/* play a pass */
static const dls_planned_unit *unit_of(const dls_step_costs *k, int stage, int microbatch)
{
    int whole = rows_of(k, microbatch) == k->c->micro_batch;
    return whole ? &k->stage[stage].full : &k->stage[stage].rest;
}

/* The sums of a stage, one after another, on the stream beside the computation. */
static void sum_stage(const player *p, int r, const dls_stage_costs *g)
{
    clock *c = &p->rank[r];
    run(p, c, &g->full.finish);
    for (int i = 0; i < g->sums && p->k->ways > 1; i++)
        c->wire = talk(p, c, fmax(c->wire, c->free), data_seconds(p, g->sum[i].seconds));
}

/* play the passes of a whole model */
static int is_zero(const dls_step_costs *k, int stage)
{
    return k->c->sharded && k->ways > 1 && k->c->zero.stage >= stage;
}

/* A unit whose values are elsewhere is gathered, one ahead of its use, into the buffer
 * that the unit before has left at `left`. What another unit uses as well stays. */
static void gather(const player *p, clock *c, int u, double left, int again)
{
    const dls_stage_costs *g = &p->k->stage[0];
    if (u < 0 || u >= g->sums || (g->sum[g->sums - 1 - u].held && again))
        return;
    double seconds = data_seconds(p, g->sum[g->sums - 1 - u].back);
    c->wire = p->values[u] = talk(p, c, fmax(c->wire, left), seconds);
}

/* Bytes that a stream of the device goes through, in one launch. */
static double pass_over(const player *p, clock *c, double ready, double bytes)
{
    double takes = dls_cluster_duration(&p->k->device, DLS_WORK_ELEMENTWISE, 0, bytes);
    double launched = c->host + p->latency;
    c->host += p->launch;
    return (p->without & DLS_WITHOUT_LAUNCHES ? ready : fmax(ready, launched)) + takes;
}

/* The gradient of unit u is complete: what is to be summed with it. */
static void sum_behind(const player *p, clock *c, const dls_stage_costs *g, int u,
                       int last)
{
    int scatters = is_zero(p->k, 2);
    for (int i = 0; i < g->sums && p->k->ways > 1 && (last || scatters); i++) {
        if (g->sum[i].unit != u)
            continue;
        c->wire = talk(p, c, fmax(c->wire, c->free), data_seconds(p, g->sum[i].seconds));
        double slice = (double)p->k->unit[u].elements
            / p->k->ways;
        if (scatters)
            c->wire = pass_over(p, c, c->wire, 12 * slice);
    }
}

static void pass_unit(const player *p, clock *c, int u, int ahead, int again,
                      const dls_part *part)
{
    double left = c->free;
    c->free = fmax(c->free, p->values[u]);
    if (is_zero(p->k, 3))
        gather(p, c, ahead, left, again);
    run(p, c, part);
}

/* Forward or backward of all units; the last backward of a step sums gradients. */
static void pass_units(const player *p, int backward, int microbatch)
{
    const dls_step_costs *k = p->k;
    clock *c = &p->rank[0];
    int units = k->c->model.layers + 2;
    int whole = rows_of(k, microbatch) == k->c->micro_batch;
    const dls_planned_unit *unit = whole ? k->unit : k->unit_rest;
    const dls_stage_costs *g = &k->stage[0];
    int last = microbatch == k->microbatches - 1;
    int again = backward || microbatch > 0;
    double given[2] = {0, 0};           // when the two gradient buffers are free again
    if (is_zero(k, 3))
        gather(p, c, backward ? units - 1 : 0, c->free, again);
    for (int i = 0; i < units; i++) {
        int u = backward ? units - 1 - i : i;
        if (backward && is_zero(k, 2)) {
            c->free = fmax(c->free, given[i % 2]);
            c->free = pass_over(p, c, c->free, 4.0 * (double)k->unit[u].elements);
        }
        pass_unit(p, c, u, backward ? u - 1 : u + 1, again,
                  backward ? &unit[u].B : &unit[u].F);
        if (backward && last)
            run(p, c, &unit[u].finish);
        if (backward)
            sum_behind(p, c, g, u, last);
        given[i % 2] = c->wire;
    }
}

/* play an action */
/* A stage keeps its own copy of what it was sent. */
static void keep_rows(const player *p, int r, int microbatch)
{
    double bytes = 2 * p->k->row_bytes * rows_of(p->k, microbatch);
    run_kernels(p, &p->rank[r], 1,
                dls_cluster_duration(&p->k->device, DLS_WORK_COPY, 0, bytes));
}

static void forward(const player *p, int r, const dls_action *a)
{
    const dls_step_costs *k = p->k;
    int from = a->stage > 0 ? dls_schedule_rank(&k->schedule, a->stage - 1, a->microbatch)
                            : r;
    receive(p, r, 0, a->stage, from, a->microbatch);
    if (a->stage > 0)
        keep_rows(p, r, a->microbatch);
    if (k->unit)
        pass_units(p, 0, a->microbatch);
    else
        run(p, &p->rank[r], &unit_of(k, a->stage, a->microbatch)->F);
    if (a->stage + 1 < k->schedule.stages)
        send(p, r, 0, a->stage, a->stage + 1, a->microbatch);
    run(p, &p->rank[r], &k->pass);
}

static void backward(const player *p, int r, const dls_action *a)
{
    const dls_step_costs *k = p->k;
    const dls_planned_unit *u = unit_of(k, a->stage, a->microbatch);
    int last = k->schedule.stages - 1;
    int from = a->stage < last
        ? dls_schedule_rank(&k->schedule, a->stage + 1, a->microbatch) : r;
    receive(p, r, 1, a->stage, from, a->microbatch);
    if (a->kind == DLS_DO_I && a->stage < last)
        keep_rows(p, r, a->microbatch);
    if (k->unit)
        pass_units(p, 1, a->microbatch);
    else
        run(p, &p->rank[r], a->kind == DLS_DO_I ? &u->I : &u->B);
    if (a->stage > 0)
        send(p, r, 1, a->stage, a->stage - 1, a->microbatch);
}

/* Actions that end a stage's gradient are counted down: behind the last comes the sum. */
static void play_action(const player *p, int r, const dls_action *a, int *open)
{
    const dls_step_costs *k = p->k;
    if (a->microbatch >= k->microbatches || !dls_action_computes(a))
        return;
    if (a->kind == DLS_DO_F)
        forward(p, r, a);
    else if (a->kind == DLS_DO_W)
        run(p, &p->rank[r], &unit_of(k, a->stage, a->microbatch)->W);
    else
        backward(p, r, a);
    if (a->kind == DLS_DO_W || a->kind == DLS_DO_B)
        if (--open[a->stage] == 0 && !k->unit)
            sum_stage(p, r, &k->stage[a->stage]);
}

/* play the end of a step */
/* All ranks wait for each other: the sums of squares, or the table that two share. */
static void meet(player *p, int first, int step, double seconds)
{
    double latest = 0;
    for (int r = first; r < p->n; r += step) {
        clock *c = &p->rank[r];
        double post = p->without & DLS_WITHOUT_LAUNCHES ? 0 : c->host + p->latency;
        c->host += 2 * p->launch;
        latest = fmax(latest, fmax(c->free, post));
    }
    for (int r = first; r < p->n; r += step)
        p->rank[r].free = latest + seconds;
}

/* ZeRO updates a slice of each unit, and sends it while the next one is updated. */
static void update_slices(const player *p, clock *c, const dls_stage_costs *g)
{
    double share = 1.0 / p->k->ways;
    for (int u = 0; u < g->sums; u++) {
        const dls_grad_sum *sum = &g->sum[g->sums - 1 - u];
        run_kernels(p, c, sum->stretches, g->full.apply.device * share / g->sums);
        if (!is_zero(p->k, 3) && p->k->ways > 1)
            c->wire = p->values[u] = talk(p, c, fmax(c->wire, c->free),
                                          data_seconds(p, sum->back));
    }
}

static void end_step(player *p)
{
    const dls_step_costs *k = p->k;
    double tiny = dls_cluster_duration(&k->device, DLS_WORK_OTHER, 0, 32);
    dls_part one = {.device = tiny, .host = p->launch, .late = p->latency + tiny};
    for (int r = 0; r < p->n; r++)
        p->rank[r].free = fmax(p->rank[r].free, p->rank[r].wire);
    if (k->tied_stages)
        meet(p, 0, p->n - 1, k->tied);
    for (int s = 0; s < k->schedule.stages; s++) {
        clock *c = &p->rank[dls_schedule_rank(&k->schedule, s, 0)];
        const dls_stage_costs *g = &k->stage[s];
        if (k->c->sharded && g->sums)
            run_kernels(p, c, 2 * g->sums, g->full.square.device
                        / k->ways);
        else
            run(p, c, &g->full.square);
    }
    if (p->n > 1 || k->norm > 0)
        meet(p, 0, 1, k->norm);
    for (int r = 0; r < p->n; r++) {
        run(p, &p->rank[r], &one);      // the sum is cleared
        run(p, &p->rank[r], &one);      // and becomes a coefficient
    }
    for (int s = 0; s < k->schedule.stages; s++) {
        clock *c = &p->rank[dls_schedule_rank(&k->schedule, s, 0)];
        if (k->c->sharded && k->stage[s].sums)
            update_slices(p, c, &k->stage[s]);
        else
            run(p, c, &k->stage[s].full.apply);
    }
}

/* play steps */
static dls_status play_step(player *p, int *open)
{
    const dls_schedule *s = &p->k->schedule;
    dls_walk walk;
    dls_unit u;
    for (int r = 0; r < p->n; r++) {
        run(p, &p->rank[r], &p->k->before);
        if (p->k->c->sharded && !is_zero(p->k, 3) && p->k->c->pipeline.schedule)
            p->rank[r].free = fmax(p->rank[r].free, p->rank[r].wire);
    }
    for (int i = 0; i < s->stages; i++) {
        dls_part clear = p->k->stage[i].full.clear;
        if (is_zero(p->k, 2))       // its slice is all it has
            clear.device /= p->k->ways;
        run(p, &p->rank[dls_schedule_rank(s, i, 0)], &clear);
        open[i] = p->k->microbatches;
    }
    DLS_TRY(dls_walk_open(s, &walk));
    while (dls_walk_next(&walk, &u))
        for (size_t i = 0; i < u.count; i++)
            play_action(p, u.rank, &s->order[u.rank].list[u.first + i], open);
    dls_walk_close(&walk);
    end_step(p);
    for (int r = 0; r < p->n; r++)
        run(p, &p->rank[r], &p->k->behind);
    return DLS_OK;
}

static dls_status play_replica(const dls_step_costs *k, int without, int replica,
                               double *seconds)
{
    enum { STEPS = 3 };     // the second begins as every later one does
    player p = {.k = k, .without = without, .n = k->schedule.options.ranks,
                .launch = k->device.launch, .latency = k->device.launch_latency};
    int open[k->schedule.stages];
    double end[STEPS] = {0};
    p.hop = k->hop + (size_t)replica * p.n * p.n;
    dls_status s = open_player(&p);
    for (int i = 0; s == DLS_OK && i < STEPS; i++) {
        s = play_step(&p, open);
        for (int r = 0; r < p.n; r++)
            end[i] = fmax(end[i], p.rank[r].free);
    }
    *seconds = end[STEPS - 1] - end[STEPS - 2];
    close_player(&p);
    return s;
}

/* Replicas that lie differently on the nodes wait for the slowest at the end. */
dls_status dls_predict_play(const dls_step_costs *k, int without, double *seconds)
{
    double one;
    *seconds = 0;
    for (int r = 0; r < k->replicas; r++) {
        DLS_TRY(play_replica(k, without, r, &one));
        *seconds = fmax(*seconds, one);
    }
    return DLS_OK;
}
