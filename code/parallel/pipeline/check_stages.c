/* code/parallel/pipeline/check_stages.c: from chapters/05-pipeline-evaluate-check.md. Edit the chapter, or edit here and run "make untangle". */
/* The checker: shards are gathered while a stage computes, gradients reduced after. */
#include <stdlib.h>

#include "parallel/pipeline/check_internal.h"

/* follow the shards of a rank */
/* Of one rank's stages. Gathered: 0 before the first UNSHARD, 1 while, 2 after. */
typedef struct stage_state { uint8_t *gathered, *pending; int shards, reduces; } state;

/* A gradient not yet reduced makes a stage pending; a step must not find one. */
static dls_status follow(dls_check *c, int rank, const dls_action *a, state *now)
{
    uint8_t *gathered = &now->gathered[a->stage], *pending = &now->pending[a->stage];
    switch (a->kind) {
    case DLS_DO_UNSHARD:
        if (*gathered)
            return dls_check_fail(c, rank, a, "finds the stage gathered already");
        *gathered = 1;
        return DLS_OK;
    case DLS_DO_RESHARD:
        if (!*gathered)
            return dls_check_fail(c, rank, a, "finds the stage not gathered");
        *gathered = 0;
        return DLS_OK;
    case DLS_DO_STEP:
        return *pending && now->reduces
            ? dls_check_fail(c, rank, a, "steps before its gradients are reduced")
            : DLS_OK;
    case DLS_DO_REDUCE:
        *pending = 0;
        return DLS_OK;
    case DLS_DO_F: case DLS_DO_I: case DLS_DO_W: case DLS_DO_B:
        *pending |= a->kind == DLS_DO_W || a->kind == DLS_DO_B;
        return now->shards && !*gathered
            ? dls_check_fail(c, rank, a, "computes while its shards are not gathered")
            : DLS_OK;
    default: return DLS_OK;
    }
}

/* check what belongs to stages */
static dls_status follow_rank(dls_check *c, int rank, state *now)
{
    const dls_actions *order = &c->s->order[rank];
    for (size_t i = 0; i < order->n; i++)
        DLS_TRY(follow(c, rank, &order->list[i], now));
    for (int s = 0; s < c->s->stages; s++) {
        dls_action a = {DLS_DO_REDUCE, 0, (int16_t)s, -1};
        if (now->reduces && now->pending[s])
            return dls_check_fail(c, rank, &a, "is missing behind its last gradient");
        now->pending[s] = now->gathered[s] = 0;
    }
    return DLS_OK;
}

/* Which of the two a schedule has at all. */
static state look(const dls_schedule *s)
{
    state now = {0};
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            now.shards |= s->order[r].list[i].kind == DLS_DO_UNSHARD;
            now.reduces |= s->order[r].list[i].kind == DLS_DO_REDUCE;
        }
    return now;
}

dls_status dls_check_stages(dls_check *c)
{
    state now = look(c->s);
    dls_status status = DLS_OK;
    now.gathered = calloc(2 * (size_t)c->s->stages, 1);
    if (!now.gathered)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to check %d stages", c->s->stages);
    now.pending = now.gathered + c->s->stages;
    for (int r = 0; status == DLS_OK && r < c->s->options.ranks; r++)
        status = follow_rank(c, r, &now);
    free(now.gathered);
    return status;
}
