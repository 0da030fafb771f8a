/* tests/parallel/pipeline_meeting.c: from chapters/05-pipeline-evaluate-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Ranks that meet at their messages: slow, and plain enough to be seen right. */
#include "pipeline_meeting.h"

#include <criterion/criterion.h>
#include <string.h>

enum { RANKS = 4, STAGES = 8, BATCHES = 8, LIST = 512 };

typedef struct world {
    const dls_schedule *s;
    size_t at[RANKS];
    char met[RANKS][LIST];                       // of the messages of the current unit
    char there[RANKS][2][STAGES][BATCHES];       // results of F, and of I or B
    int forward[STAGES][BATCHES], inputs[STAGES][BATCHES], weights[STAGES][BATCHES];
} world;

/* compute when everything is there */
static int sends(const dls_action *a)
{
    return a->kind == DLS_DO_SEND_F || a->kind == DLS_DO_SEND_B;
}

static int talks(const dls_action *a)
{
    return sends(a) || a->kind == DLS_DO_RECV_F || a->kind == DLS_DO_RECV_B;
}

/* 0 when the action lacks something. */
static int compute(world *w, int r, const dls_action *a)
{
    int s = a->stage, i = a->microbatch;
    char (*f)[BATCHES] = w->there[r][0], (*b)[BATCHES] = w->there[r][1];
    if (a->kind == DLS_DO_F) {
        w->forward[s][i]++;
        f[s][i] = 1;
        return s == 0 || f[s - 1][i];
    }
    if (a->kind == DLS_DO_W) {
        w->weights[s][i]++;
        return b[s][i];
    }
    w->inputs[s][i]++;
    w->weights[s][i] += a->kind == DLS_DO_B;
    b[s][i] = 1;
    return f[s][i] && (s + 1 == w->s->stages || b[s + 1][i]);
}

/* meet at a message */
/* Where a message comes from or goes to, or -1. */
static int other_end(const world *w, const dls_action *a)
{
    int up = a->kind == DLS_DO_SEND_F || a->kind == DLS_DO_RECV_B;
    int stage = a->stage + (up ? 1 : -1);
    return stage < 0 || stage >= w->s->stages
        ? -1 : dls_schedule_rank(w->s, stage, a->microbatch);
}

static size_t unit_end(const dls_actions *a, size_t at)
{
    while (at + 1 < a->n && a->list[at].paired)
        at++;
    return at + 1;
}

/* The first message of r's unit that is not yet met, to or from that peer. */
static const dls_action *first(world *w, int r, int peer, int sending)
{
    const dls_actions *o = &w->s->order[r];
    if (w->at[r] == o->n)
        return NULL;
    for (size_t i = w->at[r]; i < unit_end(o, w->at[r]); i++)
        if (talks(&o->list[i]) && !w->met[r][i] && sends(&o->list[i]) == sending &&
            other_end(w, &o->list[i]) == peer)
            return &o->list[i];
    return NULL;
}
/* One message from a to b; 1 if it moved, -1 if the two are not the same. */
static int meet(world *w, int a, int b)
{
    const dls_action *from = first(w, a, b, 1), *to = first(w, b, a, 0);
    if (!from || !to)
        return 0;
    int back = from->kind == DLS_DO_SEND_B;
    if (back != (to->kind == DLS_DO_RECV_B) || from->microbatch != to->microbatch ||
        from->stage + (back ? -1 : 1) != to->stage)
        return -1;
    if (!w->there[a][back][from->stage][from->microbatch])
        return -1;
    w->there[b][back][from->stage][from->microbatch] = 1;
    w->met[a][from - w->s->order[a].list] = w->met[b][to - w->s->order[b].list] = 1;
    return 1;
}

/* run until nothing moves */
/* 1: the rank went on; 0: it stands; -1: something is wrong. */
static int go_on(world *w, int r)
{
    const dls_actions *o = &w->s->order[r];
    if (w->at[r] == o->n)
        return 0;
    size_t end = unit_end(o, w->at[r]);
    for (size_t i = w->at[r]; i < end; i++) {
        if (talks(&o->list[i]) && (other_end(w, &o->list[i]) < 0 ||
                                   other_end(w, &o->list[i]) == r))
            return -1;
        if (talks(&o->list[i]) && !w->met[r][i])
            return 0;
    }
    for (size_t i = w->at[r]; i < end; i++)
        if (o->list[i].kind <= DLS_DO_B && !compute(w, r, &o->list[i]))
            return -1;
    w->at[r] = end;
    return 1;
}

static int run(world *w)
{
    int ranks = w->s->options.ranks, moved = 1;
    while (moved) {
        moved = 0;
        for (int a = 0; a < ranks; a++) {
            int went = go_on(w, a);
            for (int b = 0; b < ranks && went >= 0; b++) {
                int met = a == b ? 0 : meet(w, a, b);
                went = met < 0 ? -1 : went | met;
            }
            if (went < 0)
                return 0;
            moved |= went;
        }
    }
    return 1;
}
int meeting_ends(const dls_schedule *s)
{
    static world w;
    memset(&w, 0, sizeof w);
    w.s = s;
    cr_assert(s->options.ranks <= RANKS && s->stages <= STAGES &&
              s->options.microbatches <= BATCHES);
    if (!run(&w))
        return 0;
    for (int r = 0; r < s->options.ranks; r++)
        if (w.at[r] != s->order[r].n)
            return 0;
    for (int k = 0; k < s->stages; k++)
        for (int i = 0; i < s->options.microbatches; i++)
            if (w.forward[k][i] != 1 || w.inputs[k][i] != s->backward ||
                w.weights[k][i] != s->backward)
                return 0;
    return 1;
}
