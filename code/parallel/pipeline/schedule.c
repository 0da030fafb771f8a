/* code/parallel/pipeline/schedule.c: from chapters/05-pipeline-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Making a schedule: placement, options, and the call of the generator. */
#include "parallel/pipeline/schedule.h"

#include <stdlib.h>
#include <string.h>

/* place a stage */
/* V: odd chunks run against the direction. Both: odd micro-batches do. */
static int is_mirrored(dls_placement placement, int chunk, int microbatch)
{
    return (placement == DLS_PLACE_V && chunk % 2) ||
           (placement == DLS_PLACE_BOTH && microbatch % 2 == 1);
}

/* find a rank and a stage */
int dls_placement_rank(dls_placement placement, int ranks, int stage, int microbatch)
{
    int rank = stage % ranks;
    return is_mirrored(placement, stage / ranks, microbatch) ? ranks - 1 - rank : rank;
}

int dls_placement_stage(dls_placement placement, int ranks, int rank, int chunk,
                        int microbatch)
{
    int mirrored = is_mirrored(placement, chunk, microbatch);
    return chunk * ranks + (mirrored ? ranks - 1 - rank : rank);
}

int dls_schedule_rank(const dls_schedule *s, int stage, int microbatch)
{
    return dls_placement_rank(s->placement, s->options.ranks, stage, microbatch);
}

/* default the options */
dls_schedule_options dls_schedule_defaults(const char *name, int ranks,
                                           int microbatches)
{
    return (dls_schedule_options){
        .name = name, .ranks = ranks, .microbatches = microbatches,
        .cost = {.F = 1, .I = 1, .W = 1}, .memory = {1, 1}};
}

/* check the options */
static dls_status check_range(const char *what, int64_t value, int64_t low, int64_t high)
{
    if (value >= low && value <= high)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a number from %lld to %lld, got %lld",
                    what, (long long)low, (long long)high, (long long)value);
}

/* check the options of a schedule */
/* The limits keep every index in its field and a mistyped number from eating memory. */
static dls_status check_options(const dls_schedule_options *o)
{
    DLS_TRY(check_range("stages", o->ranks, 1, 4096));
    DLS_TRY(check_range("micro-batches", o->microbatches, 1, 1 << 20));
    DLS_TRY(check_range("chunks", o->chunks, 1, INT16_MAX / o->ranks));
    DLS_TRY(check_range("group", o->group, 1, 1 << 20));
    DLS_TRY(check_range("limit", o->limit, 0, INT64_MAX));
    int64_t passes = (int64_t)o->ranks * o->chunks * o->microbatches;
    if (passes > 1 << 22)
        return DLS_FAIL(DLS_ERR_INPUT, "%d stages x %d chunks x %d micro-batches are "
                        "%lld passes: expected at most %d", o->ranks, o->chunks,
                        o->microbatches, (long long)passes, 1 << 22);
    return DLS_OK;
}

/* open and close a schedule */
dls_status dls_schedule_empty(const dls_schedule_options *o, dls_placement placement,
                              dls_schedule *out)
{
    *out = (dls_schedule){.options = *o, .placement = placement};
    if (!out->options.group)
        out->options.group = o->ranks;
    DLS_TRY(check_options(&out->options));
    out->stages = o->ranks * o->chunks;
    out->order = calloc((size_t)o->ranks, sizeof *out->order);
    if (!out->order)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the lists of %d ranks", o->ranks);
    return DLS_OK;
}

/* free a schedule */
void dls_schedule_free(dls_schedule *s)
{
    for (int r = 0; s->order && r < s->options.ranks; r++)
        dls_actions_free(&s->order[r]);
    free(s->order);
    *s = (dls_schedule){0};
}

/* make a schedule */
static dls_status generate(const dls_schedule_entry *e, dls_schedule *s)
{
    if (e->plan)
        return e->plan(&s->options, s->order);
    for (int r = 0; r < s->options.ranks; r++)
        DLS_TRY(e->generate(&s->options, r, &s->order[r]));
    return DLS_OK;
}

/* look for a backward */
static int has_backward(const dls_schedule *s)
{
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++)
            if (s->order[r].list[i].kind == DLS_DO_B ||
                s->order[r].list[i].kind == DLS_DO_I)
                return 1;
    return 0;
}

/* look for pairs */
int dls_schedule_pairs(const dls_schedule *s)
{
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++)
            if (s->order[r].list[i].paired && dls_action_computes(&s->order[r].list[i]))
                return 1;
    return 0;
}

/* make it from the table */
dls_status dls_schedule_make(const dls_schedule_options *o, dls_schedule *out)
{
    const dls_schedule_entry *e = dls_schedule_find(o->name);
    dls_schedule_options filled = *o;
    *out = (dls_schedule){0};
    if (!e)
        return DLS_FAIL(DLS_ERR_INPUT, "no schedule '%s'", o->name);
    if (!o->chunks)
        filled.chunks = e->chunks ? e->chunks : 2;
    if (e->chunks && filled.chunks != e->chunks)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected %d chunk%s, got %d", e->name,
                        e->chunks, e->chunks == 1 ? "" : "s", o->chunks);
    filled.name = e->name;
    dls_status status = dls_schedule_empty(&filled, e->placement, out);
    if (status == DLS_OK) {
        out->step_every = e->step_every < 0 ? out->options.group : e->step_every;
        status = generate(e, out);
        out->backward = has_backward(out);
    }
    if (status != DLS_OK)
        dls_schedule_free(out);
    return status;
}
