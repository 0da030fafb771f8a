/* code/parallel/pipeline/check.c: from chapters/05-pipeline-evaluate-check.md. Edit the chapter, or edit here and run "make untangle". */
/* The checker: places, counts, order on a rank, waits between ranks, memory. */
#include "parallel/pipeline/check.h"

#include <stdlib.h>

#include "parallel/pipeline/check_internal.h"
#include "parallel/pipeline/evaluate.h"

/* find where each pass stands */
dls_status dls_check_fail(dls_check *c, int rank, const dls_action *a, const char *why)
{
    char text[DLS_ACTION_TEXT];
    dls_action_text(a, text);
    c->rank = rank;
    return DLS_FAIL(DLS_ERR_INPUT, "rank %d: %s %s", rank, text, why);
}

/* note a pass */
/* Notes one pass of `a`, which may be there only once. */
static dls_status note(dls_check *c, int rank, size_t i, int pass)
{
    const dls_action *a = &c->s->order[rank].list[i];
    uint32_t *place = &c->place[dls_pass_index(c->s, pass, a->stage, a->microbatch)];
    char text[DLS_ACTION_TEXT];
    if (!*place) {
        *place = (uint32_t)i + 1;
        return DLS_OK;
    }
    const dls_action *other = &c->s->order[rank].list[*place - 1];
    dls_action_text(other, text);
    dls_check_fail(c, rank, a, other->kind == a->kind ? "stands there twice: as action"
                                                      : "repeats what has been done by");
    if (other->kind != a->kind)
        return DLS_FAIL(DLS_ERR_INPUT, "%s %s", dls_status_message(), text);
    return DLS_FAIL(DLS_ERR_INPUT, "%s %d and as action %zu of the list",
                    dls_status_message(), (int)*place, i + 1);
}

/* refuse a stage on the wrong rank */
static dls_status check_rank(dls_check *c, int rank, const dls_action *a)
{
    const dls_schedule *s = c->s;
    int home = dls_schedule_rank(s, a->stage, a->microbatch < 0 ? 0 : a->microbatch);
    int mirror = s->placement == DLS_PLACE_BOTH && a->microbatch < 0
        ? dls_schedule_rank(s, a->stage, 1) : home;
    if (rank == home || rank == mirror)
        return DLS_OK;
    dls_check_fail(c, rank, a, "is on the wrong rank:");
    return DLS_FAIL(DLS_ERR_INPUT, "%s stage %d lives on rank %d", dls_status_message(),
                    a->stage, home);
}

/* refuse a mixed pair */
/* What runs together is messages, or one F and one I or B. */
static int fit(const dls_action *a, const dls_action *b)
{
    if (!dls_action_computes(a))
        return a->kind < DLS_DO_UNSHARD && b->kind < DLS_DO_UNSHARD &&
               !dls_action_computes(b);
    return dls_action_computes(b) && !b->paired && a->kind != DLS_DO_W &&
           b->kind != DLS_DO_W && (a->kind == DLS_DO_F) != (b->kind == DLS_DO_F);
}

static dls_status check_pair(dls_check *c, int rank, size_t i)
{
    const dls_actions *order = &c->s->order[rank];
    const dls_action *a = &order->list[i];
    if (!a->paired || (i + 1 < order->n && fit(a, a + 1)))
        return DLS_OK;
    return dls_check_fail(c, rank, a, "is paired with nothing that fits");
}

/* note all passes */
static dls_status note_passes(dls_check *c, int *backward)
{
    for (int r = 0; r < c->s->options.ranks; r++)
        for (size_t i = 0; i < c->s->order[r].n; i++) {
            const dls_action *a = &c->s->order[r].list[i];
            DLS_TRY(check_rank(c, r, a));
            DLS_TRY(check_pair(c, r, i));
            *backward |= dls_action_computes(a) && a->kind != DLS_DO_F;
            if (a->kind == DLS_DO_F)
                DLS_TRY(note(c, r, i, DLS_PASS_F));
            if (a->kind == DLS_DO_I || a->kind == DLS_DO_B)
                DLS_TRY(note(c, r, i, DLS_PASS_I));
            if (a->kind == DLS_DO_W || a->kind == DLS_DO_B)
                DLS_TRY(note(c, r, i, DLS_PASS_W));
        }
    return DLS_OK;
}

/* refuse a pass that is missing */
static dls_status check_complete(dls_check *c, int backward)
{
    static const uint8_t kinds[DLS_PASSES] = {DLS_DO_F, DLS_DO_I, DLS_DO_W};
    const dls_schedule *s = c->s;
    size_t at = 0;
    for (int pass = 0; pass < (backward ? DLS_PASSES : 1); pass++)
        for (int stage = 0; stage < s->stages; stage++)
            for (int i = 0; i < s->options.microbatches; i++, at++) {
                dls_action a = {kinds[pass], 0, (int16_t)stage, i};
                if (c->place[at])
                    continue;
                size_t weights = dls_pass_index(s, DLS_PASS_W, stage, i);
                if (pass == DLS_PASS_I && !c->place[weights])
                    a.kind = DLS_DO_B;
                return dls_check_fail(c, dls_schedule_rank(s, stage, i), &a,
                                      "is missing");
            }
    return DLS_OK;
}

/* refuse a wrong order on a rank */
/* What `a` needs of its own stage stands before it. */
static dls_status check_own(dls_check *c, int rank, size_t i)
{
    const dls_action *a = &c->s->order[rank].list[i];
    int pass = a->kind == DLS_DO_W ? DLS_PASS_I : DLS_PASS_F;
    if (a->kind == DLS_DO_F || !dls_action_computes(a))
        return DLS_OK;
    size_t place = c->place[dls_pass_index(c->s, pass, a->stage, a->microbatch)];
    if (place && place <= i)
        return DLS_OK;
    char text[DLS_ACTION_TEXT];
    dls_action_text(&c->s->order[rank].list[place - 1], text);
    dls_check_fail(c, rank, a, "stands before");
    return DLS_FAIL(DLS_ERR_INPUT, "%s %s, which it needs", dls_status_message(), text);
}

/* check the order on every rank */
static dls_status check_order(dls_check *c)
{
    for (int r = 0; r < c->s->options.ranks; r++)
        for (size_t i = 0; i < c->s->order[r].n; i++)
            DLS_TRY(check_own(c, r, i));
    return DLS_OK;
}

/* tell a cycle of waits */
/* "rank 0 waits at 0B0 for 1B0, which rank 1 has behind 1F1": one link of the chain;
 * the rank it leads to. */
static int tell_wait(dls_check *c, const dls_walk *w, int rank, int first)
{
    char at[DLS_ACTION_TEXT], lacks[DLS_ACTION_TEXT], behind[DLS_ACTION_TEXT];
    dls_action waits, needs;
    dls_walk_blocked(w, rank, &waits, &needs);
    int next = dls_schedule_rank(c->s, needs.stage, needs.microbatch);
    int pass = needs.kind == DLS_DO_F ? DLS_PASS_F : DLS_PASS_I;
    const dls_actions *order = &c->s->order[next];
    size_t place = c->place[dls_pass_index(c->s, pass, needs.stage, needs.microbatch)];
    dls_action_text(&waits, at);
    dls_action_text(&order->list[place - 1], lacks);
    dls_action_text(&order->list[w->at[next]], behind);
    DLS_FAIL(DLS_ERR_INPUT, "%s rank %d waits at %s for %s, which rank %d has behind "
             "%s%s", first ? "ranks wait for each other:" : dls_status_message(), rank,
             at, lacks, next, behind, next == c->rank ? "" : ";");
    return next;
}

/* follow the stuck ranks */
enum { MOST_LINKS = 16 };

/* Every stuck rank waits for one other: following them leads into the cycle. */
static dls_status tell_cycle(dls_check *c, const dls_walk *w, int rank)
{
    int ranks = c->s->options.ranks, links = 0;
    for (int i = 0; i < ranks; i++) {
        dls_action waits, needs;
        dls_walk_blocked(w, rank, &waits, &needs);
        rank = dls_schedule_rank(c->s, needs.stage, needs.microbatch);
    }
    c->rank = rank;
    int next = tell_wait(c, w, rank, 1);
    while (next != c->rank && ++links < MOST_LINKS)
        next = tell_wait(c, w, next, 0);
    if (next != c->rank)
        return DLS_FAIL(DLS_ERR_INPUT, "%s and so on", dls_status_message());
    return DLS_ERR_INPUT;
}

/* look for waits */
static dls_status check_waits(dls_check *c)
{
    dls_walk w;
    dls_unit unit;
    DLS_TRY(dls_walk_open(c->s, &w));
    while (dls_walk_next(&w, &unit))
        continue;
    int rank = dls_walk_stuck(&w);
    dls_status status = rank < 0 ? DLS_OK : tell_cycle(c, &w, rank);
    dls_walk_close(&w);
    return status;
}

/* refuse too much memory */
static dls_status check_memory(dls_check *c, int rank)
{
    const dls_pipeline_memory *m = &c->s->options.memory;
    const dls_actions *order = &c->s->order[rank];
    int64_t held = 0, limit = c->s->options.limit;
    for (size_t i = 0, n; limit && i < order->n; i += n) {
        n = dls_actions_unit(order, i);
        for (size_t k = 0; k < n; k++) {
            held += dls_action_takes(m, &order->list[i + k]);
            if (held <= limit)
                continue;
            dls_check_fail(c, rank, &order->list[i + k], "raises the memory to");
            return DLS_FAIL(DLS_ERR_INPUT, "%s %lld, where a forward holds %lld and the "
                            "limit is %lld", dls_status_message(), (long long)held,
                            (long long)m->hold, (long long)limit);
        }
        for (size_t k = 0; k < n; k++)
            held -= dls_action_frees(m, &order->list[i + k]);
    }
    return DLS_OK;
}

/* check a schedule */
static dls_status check_all(dls_check *c)
{
    int backward = c->s->backward;
    DLS_TRY(note_passes(c, &backward));
    DLS_TRY(check_complete(c, backward));
    DLS_TRY(check_order(c));
    DLS_TRY(check_waits(c));
    for (int r = 0; r < c->s->options.ranks; r++)
        DLS_TRY(check_memory(c, r));
    DLS_TRY(dls_check_stages(c));
    return dls_check_messages(c);
}

/* check all of it */
dls_status dls_schedule_check(const dls_schedule *s, int *rank)
{
    dls_check c = {.s = s, .rank = -1};
    dls_walk walk;
    dls_status status = dls_walk_open(s, &walk);  // refuses fields out of range
    if (status == DLS_OK) {
        c.place = calloc(dls_pass_index(s, DLS_PASSES, 0, 0), sizeof *c.place);
        status = c.place ? check_all(&c)
                         : DLS_FAIL(DLS_ERR_MEMORY, "no memory to check %d stages",
                                    s->stages);
        free(c.place);
        dls_walk_close(&walk);
    }
    if (rank)
        *rank = c.rank;
    return status;
}
