/* code/parallel/pipeline/lower_messages.c: from chapters/05-pipeline-evaluate-lower.md. Edit the chapter, or edit here and run "make untangle". */
/* Sends and receives, placed by one clock for all ranks: what happens on two ranks at
 * once, a message, has one place among all that happens. */
#include <stdlib.h>

#include "parallel/pipeline/evaluate.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/walk.h"

/* define an event */
/* A unit that starts, or a message that leaves: list[at] of the rank makes it. Events
 * are ordered by time, at the same time by their turn in a walk, and a message comes
 * behind the unit that makes it. */
typedef struct event {
    int64_t time;
    uint32_t turn, message;  // message: 0 for a unit, else its number in the unit, from 1
    int rank;
    uint32_t at;
} event;

/* compare two events */
static int compare(const void *left, const void *right)
{
    const event *a = left, *b = right;
    if (a->time != b->time)
        return a->time < b->time ? -1 : 1;
    if (a->turn != b->turn)
        return a->turn < b->turn ? -1 : 1;
    return (a->message > b->message) - (a->message < b->message);
}

/* list the events */
typedef struct events { event *list; size_t n; } events;

/* add the events of a unit */
static void add_unit(const dls_schedule *s, const dls_evaluation *e, const dls_unit *u,
                     uint32_t turn, events *out)
{
    uint32_t first = (uint32_t)u->first;
    out->list[out->n++] = (event){e->start[u->rank][first], turn, 0, u->rank, first};
    for (uint32_t i = 0; i < u->count; i++) {
        int to = dls_action_feeds(s, &s->order[u->rank].list[first + i]);
        if (to >= 0 && to != u->rank)
            out->list[out->n++] = (event){e->end[u->rank][first], turn, i + 1, u->rank,
                                          first + i};
    }
}

/* list them along a walk */
static dls_status list_events(const dls_schedule *s, const dls_evaluation *e, events *out)
{
    dls_walk walk;
    dls_unit unit;
    size_t actions = 1;
    for (int r = 0; r < s->options.ranks; r++)
        actions += s->order[r].n;
    DLS_TRY(dls_walk_open(s, &walk));
    *out = (events){malloc(2 * actions * sizeof *out->list), 0};
    for (uint32_t turn = 0; out->list && dls_walk_next(&walk, &unit); turn++)
        add_unit(s, e, &unit, turn, out);
    dls_walk_close(&walk);
    return out->list ? DLS_OK
                     : DLS_FAIL(DLS_ERR_MEMORY, "no memory to sort %zu actions", actions);
}

/* write an event */
static dls_status write_event(const dls_schedule *in, const event *v, dls_schedule *out)
{
    const dls_actions *order = &in->order[v->rank];
    const dls_action *a = &order->list[v->at];
    if (v->message) {
        int backward = a->kind != DLS_DO_F, to = dls_action_feeds(in, a);
        DLS_TRY(dls_actions_add(&out->order[v->rank],
                                backward ? DLS_DO_SEND_B : DLS_DO_SEND_F, a->stage,
                                a->microbatch));
        return dls_actions_add(&out->order[to], backward ? DLS_DO_RECV_B : DLS_DO_RECV_F,
                               a->stage + (backward ? -1 : 1), a->microbatch);
    }
    dls_actions *list = &out->order[v->rank];
    for (size_t n = dls_actions_unit(order, v->at); n-- > 0; a++) {
        DLS_TRY(dls_actions_add(list, (dls_action_kind)a->kind, a->stage, a->microbatch));
        list->list[list->n - 1].paired = a->paired;
    }
    return DLS_OK;
}

/* put in the messages */
static dls_status refuse_messages(const dls_schedule *s)
{
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            int kind = s->order[r].list[i].kind;
            if (kind >= DLS_DO_SEND_F && kind <= DLS_DO_RECV_B)
                return DLS_FAIL(DLS_ERR_INPUT, "rank %d: the schedule has its messages "
                                "already", r);
        }
    return DLS_OK;
}

/* write all events in order */
dls_status dls_lower_messages(const dls_schedule *in, dls_schedule *out)
{
    dls_evaluation e;
    events all = {0};
    *out = (dls_schedule){0};
    DLS_TRY(refuse_messages(in));
    DLS_TRY(dls_evaluate(in, &e));
    dls_status status = list_events(in, &e, &all);
    if (status == DLS_OK)
        status = dls_schedule_empty(&in->options, in->placement, out);
    out->step_every = in->step_every;
    out->backward = in->backward;
    if (status == DLS_OK)
        qsort(all.list, all.n, sizeof *all.list, compare);
    for (size_t i = 0; status == DLS_OK && i < all.n; i++)
        status = write_event(in, &all.list[i], out);
    free(all.list);
    dls_evaluation_free(&e);
    if (status != DLS_OK)
        dls_schedule_free(out);
    return status;
}
