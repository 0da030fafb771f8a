/* code/parallel/pipeline/check_stages.c: from chapters/05-pipeline-evaluate-check.md. Edit the chapter, or edit here and run "make untangle". */
/* The checker: shards are gathered while a stage computes, gradients reduced after. */
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/check_internal.h"

/* follow the shards of a rank */
/* Of one rank's stages: whether it is gathered, whether a step came before all of its
 * micro-batches, gradients that wait for a REDUCE and for a STEP. Of the schedule:
 * whether it shards at all, and whether it updates. */
typedef struct state {
    uint8_t *gathered, *early;      // [stages]
    int32_t *unreduced, *unstepped;  // [stages]
    int shards, updates;
} state;

/* follow a gather */
static dls_status gather(dls_check *c, int rank, const dls_action *a, state *now)
{
    uint8_t *gathered = &now->gathered[a->stage];
    if (a->kind == DLS_DO_UNSHARD && *gathered)
        return dls_check_fail(c, rank, a, "finds the stage gathered already");
    if (a->kind == DLS_DO_RESHARD && !*gathered)
        return dls_check_fail(c, rank, a, "finds the stage not gathered");
    *gathered = a->kind == DLS_DO_UNSHARD;
    return DLS_OK;
}


/* follow the updates of a rank */
static dls_status update(dls_check *c, int rank, const dls_action *a, state *now)
{
    if (a->kind == DLS_DO_REDUCE) {
        now->unreduced[a->stage] = 0;
        return DLS_OK;
    }
    if (now->unreduced[a->stage])
        return dls_check_fail(c, rank, a, "steps before its gradients are reduced");
    if (!now->unstepped[a->stage])
        return dls_check_fail(c, rank, a, "has no gradient");
    now->early[a->stage] = now->unstepped[a->stage] < c->s->step_every;
    now->unstepped[a->stage] = 0;
    return DLS_OK;
}

/* follow a gradient */
/* A schedule that steps every n micro-batches steps exactly then. */
static dls_status gradient(dls_check *c, int rank, const dls_action *a, state *now)
{
    int every = c->s->step_every;
    now->unreduced[a->stage]++;
    if (now->updates && every && now->unstepped[a->stage] == every)
        return dls_check_fail(c, rank, a, "comes where a step of its stage is missing");
    now->unstepped[a->stage]++;
    return now->early[a->stage]
        ? dls_check_fail(c, rank, a, "comes behind a step that was too early") : DLS_OK;
}

/* follow an action */
static dls_status follow(dls_check *c, int rank, const dls_action *a, state *now)
{
    if (a->kind == DLS_DO_UNSHARD || a->kind == DLS_DO_RESHARD)
        return gather(c, rank, a, now);
    if (a->kind == DLS_DO_REDUCE || a->kind == DLS_DO_STEP)
        return update(c, rank, a, now);
    if (!dls_action_computes(a))
        return DLS_OK;
    if (a->kind == DLS_DO_W || a->kind == DLS_DO_B)
        DLS_TRY(gradient(c, rank, a, now));
    return now->shards && !now->gathered[a->stage]
        ? dls_check_fail(c, rank, a, "computes while its shards are not gathered")
        : DLS_OK;
}

/* check what belongs to stages */
/* What a rank must not end with. */
static dls_status check_end(dls_check *c, int rank, int stage, const state *now)
{
    dls_action a = {DLS_DO_REDUCE, 0, (int16_t)stage, -1};
    if (now->updates && now->unreduced[stage])
        return dls_check_fail(c, rank, &a, "is missing behind the last gradient");
    a.kind = DLS_DO_STEP;
    if (now->updates && now->unstepped[stage])
        return dls_check_fail(c, rank, &a, "is missing behind the last gradient");
    a.kind = DLS_DO_RESHARD;
    return now->gathered[stage]
        ? dls_check_fail(c, rank, &a, "is missing behind the last use") : DLS_OK;
}

/* follow a rank */
static dls_status follow_rank(dls_check *c, int rank, state *now)
{
    const dls_actions *order = &c->s->order[rank];
    memset(now->gathered, 0, 2 * (size_t)c->s->stages);
    memset(now->unreduced, 0, 2 * (size_t)c->s->stages * sizeof *now->unreduced);
    for (size_t i = 0; i < order->n; i++)
        DLS_TRY(follow(c, rank, &order->list[i], now));
    for (int s = 0; s < c->s->stages; s++)
        DLS_TRY(check_end(c, rank, s, now));
    return DLS_OK;
}

/* see what a schedule promises */
static state look(const dls_schedule *s)
{
    state now = {0};
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            int kind = s->order[r].list[i].kind;
            now.shards |= kind == DLS_DO_UNSHARD;
            now.updates |= kind == DLS_DO_REDUCE || kind == DLS_DO_STEP;
        }
    return now;
}

/* check the stages of all ranks */
dls_status dls_check_stages(dls_check *c)
{
    size_t stages = (size_t)c->s->stages;
    state now = look(c->s);
    dls_status status = DLS_OK;
    now.gathered = malloc(2 * stages);
    now.unreduced = malloc(2 * stages * sizeof *now.unreduced);
    if (!now.gathered || !now.unreduced)
        status = DLS_FAIL(DLS_ERR_MEMORY, "no memory to check %d stages", c->s->stages);
    now.early = now.gathered + stages;
    now.unstepped = now.unreduced + stages;
    for (int r = 0; status == DLS_OK && r < c->s->options.ranks; r++)
        status = follow_rank(c, r, &now);
    free(now.gathered);
    free(now.unreduced);
    return status;
}
