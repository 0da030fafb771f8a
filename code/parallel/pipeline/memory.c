/* code/parallel/pipeline/memory.c: from chapters/07-together-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* The host's side of a step, and of nothing else: the order of the calls decides. */
#include "parallel/pipeline/memory.h"

#include <stdlib.h>

#include "parallel/pipeline/pairs.h"

/* keep the state of a replay */
/* Blocks of one size that go round in a stage: how many there are, how many are idle. */
typedef struct circle { size_t bytes; int idle; } circle;

typedef struct replay {
    const dls_replay *r;
    size_t now, most;
    circle (*circles)[4];       /* [stages] one for each kind of block at most */
    char *arrived[2];           /* [stages * microbatches]: rows wait here, F and B */
    int idle, buffers;          /* of messages */
} replay;

static size_t place(const replay *p, int stage, int microbatch)
{
    return (size_t)stage * p->r->schedule->options.microbatches + microbatch;
}

static int is_here(const replay *p, int stage)
{
    const dls_schedule *s = p->r->schedule;
    return dls_schedule_rank(s, stage, 0) == p->r->rank
        || dls_schedule_rank(s, stage, 1) == p->r->rank;
}

/* take and give in a replay */
static void take(replay *p, int stage, size_t bytes)
{
    circle *c = p->circles[stage];
    while (p->r->cut && c->bytes && c->bytes != bytes)
        c++;
    if (bytes == 0)
        return;
    if (p->r->cut && c->bytes && c->idle > 0) {
        c->idle--;
        return;
    }
    c->bytes = bytes;
    p->now += bytes;
    p->most = p->now > p->most ? p->now : p->most;
}

static void give(replay *p, int stage, size_t bytes)
{
    circle *c = p->circles[stage];
    while (p->r->cut && c->bytes != bytes && bytes)
        c++;
    if (p->r->cut)
        c->idle += bytes > 0;
    else
        p->now -= bytes;
}

/* replay a message */
static void take_buffer(replay *p)
{
    enum { SPARE = 2 };         /* as in p2p.c */
    if (p->idle <= SPARE)
        p->buffers++;
    else
        p->idle--;
}

/* The stage that a pass hands its rows to, or -1. */
static int receiver(const replay *p, const dls_action *a)
{
    int to = a->kind == DLS_DO_F ? a->stage + 1 : a->stage - 1;
    return a->kind == DLS_DO_W || to == p->r->schedule->stages ? -1 : to;
}

/* Behind the pass: what it has read is given back, what it hands on has arrived. */
static void hand_on(replay *p, const dls_action *a)
{
    int way = a->kind != DLS_DO_F, to = receiver(p, a);
    char *in = &p->arrived[way][place(p, a->stage, a->microbatch)];
    if (a->kind == DLS_DO_W)
        return;
    p->idle += *in;
    *in = 0;
    if (to >= 0 && dls_schedule_rank(p->r->schedule, to, a->microbatch) == p->r->rank)
        p->arrived[way][place(p, to, a->microbatch)] = 1;
}

static void receive(replay *p, const dls_action *a, int way)
{
    take_buffer(p);
    p->arrived[way][place(p, a->stage, a->microbatch)] = 1;
}

/* replay an action */
static void forget(replay *p, const dls_action *a, int early)
{
    const dls_stage_bytes *b = &p->r->bytes[a->stage];
    give(p, a->stage, b->stash);
    if (early)
        give(p, a->stage, b->early);
}

static void replay_slot(replay *p, const dls_action *a)
{
    const dls_stage_bytes *b = &p->r->bytes[a->stage];
    if (a->kind == DLS_DO_F) {
        take(p, a->stage, b->stash);
        take(p, a->stage, b->early);
    } else if (a->kind == DLS_DO_W) {
        forget(p, a, 0);
        give(p, a->stage, b->gradients);
    } else if (a->kind == DLS_DO_B) {
        forget(p, a, 1);
    } else {
        give(p, a->stage, b->early);
        take(p, a->stage, b->gradients);
    }
}

static void replay_passes(replay *p, const dls_action *a, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (receiver(p, a + k) >= 0)
            take_buffer(p);
    for (size_t k = 0; k < n; k++)
        replay_slot(p, a + k);
    for (size_t k = 0; k < n; k++)
        hand_on(p, a + k);
}

static int has_rows(const replay *p, int microbatch)
{
    return p->r->together || (int64_t)microbatch * p->r->micro < p->r->rows;
}

static void replay_action(replay *p, const dls_action *a)
{
    if (a->microbatch >= 0 && !has_rows(p, a->microbatch))
        return;
    switch (a->kind) {
    case DLS_DO_F: case DLS_DO_I: case DLS_DO_B:
    case DLS_DO_W: replay_passes(p, a, 1); break;
    case DLS_DO_SEND_F: case DLS_DO_SEND_B: p->idle++; break;
    case DLS_DO_RECV_F: receive(p, a, 0); break;
    case DLS_DO_RECV_B: receive(p, a, 1); break;
    default: break;
    }
}

static void replay_list(replay *p, const dls_actions *list)
{
    for (size_t i = 0, n; i < list->n; i += n) {
        const dls_action *a = &list->list[i];
        n = dls_pair_size(list, i);
        if (n == 2 && has_rows(p, a->microbatch) && has_rows(p, a[1].microbatch))
            replay_passes(p, a, 2);
        else
            for (size_t k = 0; k < n; k++)
                replay_action(p, a + k);
    }
}

/* replay steps and an evaluation */
static void replay_evaluation(replay *p)
{
    const dls_schedule *s = p->r->schedule;
    for (int i = 0; i < s->stages; i++) {
        dls_action a = {DLS_DO_F, 0, (int16_t)i, 0};
        if (dls_schedule_rank(s, i, 0) != p->r->rank)
            continue;
        if (i > 0 && dls_schedule_rank(s, i - 1, 0) != p->r->rank)
            receive(p, &a, 0);
        replay_passes(p, &a, 1);
        forget(p, &a, 1);
        if (i + 1 < s->stages && dls_schedule_rank(s, i + 1, 0) != p->r->rank)
            p->idle++;
    }
}

static void replay_all(replay *p)
{
    const dls_schedule *s = p->r->schedule;
    const dls_actions *list = &s->order[p->r->rank];
    for (int i = 0; i < s->stages; i++)
        if (is_here(p, i)) {
            take(p, i, p->r->bytes[i].working);
            take(p, i, p->r->bytes[i].gradients);
            if (dls_schedule_pairs_within(s, p->r->rank, i))
                take(p, i, p->r->bytes[i].working);
        }
    for (int n = 0; n < p->r->steps; n++)
        replay_list(p, list);
    if (p->r->evaluates)
        replay_evaluation(p);
}

dls_status dls_pipeline_replay(const dls_replay *r, dls_replayed *out)
{
    const dls_schedule *s = r->schedule;
    size_t n = (size_t)s->stages * s->options.microbatches;
    replay p = {.r = r, .circles = calloc((size_t)s->stages, sizeof *p.circles),
                .arrived = {calloc(n, 1), calloc(n, 1)}};
    int ok = p.circles && p.arrived[0] && p.arrived[1];
    if (ok)
        replay_all(&p);
    *out = (dls_replayed){p.most, p.buffers};
    free(p.circles);
    free(p.arrived[0]);
    free(p.arrived[1]);
    return ok ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory to replay a schedule");
}
