/* code/parallel/pipeline/pairs.c: from chapters/08-dualpipe-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Reading the order, finding pairs, and running one. */
#include "parallel/pipeline/pairs.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "parallel/pipeline/interpreter_private.h"

/* read the order of turns */
dls_status dls_pair_order_read(const char *what, const char *text, dls_pair_order *out)
{
    *out = (dls_pair_order){0};
    text = text ? text : "b f";
    for (const char *c = text; *c; c++) {
        if (*c == ' ')
            continue;
        if ((*c != 'b' && *c != 'f') || out->n == DLS_PAIR_TURNS)
            return DLS_FAIL(DLS_ERR_INPUT, "%s: expected up to %d letters b and f, as in "
                            "\"b f b f\", got \"%.80s\"", what, DLS_PAIR_TURNS, text);
        out->turn[out->n++] = *c == 'b' ? DLS_PAIR_BACKWARD : DLS_PAIR_FORWARD;
    }
    return out->n ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "%s: expected letters b and f, as in \"b f b f\", got "
                   "none", what);
}

/* find the pairs */
size_t dls_pair_size(const dls_actions *list, size_t at)
{
    const dls_action *a = &list->list[at];
    if (!a->paired || a->kind != DLS_DO_F || at + 1 == list->n)
        return 1;
    return a[1].kind == DLS_DO_B || a[1].kind == DLS_DO_I ? 2 : 1;
}

int dls_schedule_pairs_within(const dls_schedule *s, int rank, int stage)
{
    const dls_actions *order = &s->order[rank];
    for (size_t i = 0; i < order->n; i++)
        if (dls_pair_size(order, i) == 2 && order->list[i].stage == stage
            && order->list[i + 1].stage == stage)
            return 1;
    return 0;
}

/* run a pair */
typedef struct member {
    dls_pipeline *pipeline;
    const dls_action *action;
} member;

static dls_status run_member(void *arg)
{
    const member *m = arg;
    return dls_pipeline_pass(m->pipeline, m->action);
}

static dls_status at_point(void *self, dls_point point, int backward)
{
    (void)self, (void)point, (void)backward;
    return dls_coroutine_yield();
}

/* One turn; DLS_OK while both are well. */
static dls_status take_turn(dls_pairs *pairs, int turn)
{
    dls_coroutine *c = pairs->pass[turn];
    if (!dls_coroutine_alive(c))
        c = pairs->pass[1 - turn];
    dls_coroutine_resume(c, DLS_OK);
    return dls_coroutine_alive(c) ? DLS_OK : dls_coroutine_result(c);
}

/* A pass that waits at a point finds there that the other has failed, and returns. */
static void call_off(dls_pairs *pairs, dls_status status)
{
    for (int k = 0; k < 2; k++)
        while (dls_coroutine_alive(pairs->pass[k]))
            dls_coroutine_resume(pairs->pass[k], status);
}

dls_status dls_pairs_run(dls_pipeline *p, const dls_action *pair)
{
    dls_pairs *pairs = &p->pairs;
    member members[2] = {{p, pair}, {p, pair + 1}};
    dls_status s = DLS_OK;
    for (int k = 0; k < 2; k++)
        DLS_TRY(dls_coroutine_start(pairs->pass[k], run_member, &members[k]));
    for (int i = 0; s == DLS_OK && (dls_coroutine_alive(pairs->pass[0])
                                    || dls_coroutine_alive(pairs->pass[1])); i++)
        s = take_turn(pairs, pairs->order.turn[i % pairs->order.n]);
    call_off(pairs, s);
    return s;
}

/* open the pairs */
/* What the ranks of an expert group must have alike. */
typedef struct agreement {
    uint64_t order, list;
} agreement;

static agreement agreement_of(const dls_pipeline *p)
{
    const dls_actions *list = &p->o.schedule->order[p->rank];
    const dls_pair_order *order = &p->pairs.order;
    agreement a = {dls_hash64(order->turn, (size_t)order->n), 0};
    for (size_t i = 0; i < list->n; i++)
        if (dls_action_computes(&list->list[i])) {
            uint64_t both[2] = {a.list, dls_hash64(&list->list[i], sizeof(dls_action))};
            a.list = dls_hash64(both, sizeof both);
        }
    return a;
}

static dls_status agree(dls_pipeline *p)
{
    dls_comm *group = p->o.axes ? p->o.axes->expert : NULL;
    int n = group ? dls_comm_size(group) : 1;
    agreement mine = agreement_of(p), all[n];
    if (n == 1)
        return DLS_OK;
    DLS_TRY(dls_comm_all_gather_host(group, &mine, sizeof mine, all));
    for (int i = 0; i < n; i++) {
        if (all[i].order != all[0].order)
            return DLS_FAIL(DLS_ERR_INPUT, "ranks 0 and %d of an expert group run pairs "
                            "in different orders: expected one for all", i);
        if (all[i].list != all[0].list)
            return DLS_FAIL(DLS_ERR_INPUT, "ranks 0 and %d of an expert group have "
                            "different lists of passes: expected the same rank of the "
                            "same schedule", i);
    }
    return DLS_OK;
}

static int has_pairs(const dls_pipeline *p)
{
    const dls_actions *list = &p->o.schedule->order[p->rank];
    for (size_t i = 0; i < list->n; i++)
        if (dls_pair_size(list, i) == 2)
            return 1;
    return 0;
}

dls_status dls_pairs_open(dls_pipeline *p)
{
    DLS_TRY(dls_pair_order_read("pair order", p->o.pair_order, &p->pairs.order));
    DLS_TRY(agree(p));
    p->pairs.points.fn = at_point;
    for (int k = 0; has_pairs(p) && k < 2; k++)
        DLS_TRY(dls_coroutine_create(&p->pairs.pass[k]));
    for (int s = 0; s < p->stages; s++) {
        if (!p->stage[s])
            continue;
        p->stage[s]->model->pass.points = &p->pairs.points;
        if (dls_schedule_pairs_within(p->o.schedule, p->rank, s))
            DLS_TRY(dls_stage_pair(p->stage[s]));
    }
    return DLS_OK;
}

void dls_pairs_close(dls_pipeline *p)
{
    for (int k = 0; k < 2; k++)
        dls_coroutine_free(p->pairs.pass[k]);
}
