/* code/parallel/pipeline/draw_schedule.c: from chapters/05-pipeline-pictures.md. Edit the chapter, or edit here and run "make untangle". */
/* Boxes from a schedule and its times. See draw.h. */
#include <stdlib.h>

#include "parallel/pipeline/draw.h"

/* make a box of an action */
static dls_box box_of(const dls_schedule *s, const dls_evaluation *e, int rank, size_t i)
{
    const dls_action *a = &s->order[rank].list[i];
    int shade = s->placement == DLS_PLACE_BOTH ? a->microbatch % 2
                                               : a->stage / s->options.ranks;
    return (dls_box){
        .start = e->start[rank][i], .end = e->end[rank][i], .rank = rank,
        .stage = a->stage, .microbatch = a->microbatch, .kind = a->kind,
        .shade = (uint8_t)(shade < 0 ? 0 : shade > 9 ? 9 : shade),
        .half = a->paired ? 1 : i && a[-1].paired ? 2 : 0};
}

/* make boxes of a schedule */
dls_status dls_draw_schedule(const dls_schedule *s, const dls_evaluation *e,
                             dls_drawing *out)
{
    int shades = s->placement == DLS_PLACE_BOTH ? 2 : s->stages / s->options.ranks;
    size_t count = 0;
    for (int r = 0; r < s->options.ranks; r++)
        count += s->order[r].n;
    dls_box *boxes = malloc((count + 1) * sizeof *boxes);
    if (!boxes)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to draw %zu actions", count);
    *out = (dls_drawing){
        .title = "", .boxes = boxes, .ranks = s->options.ranks, .unit = 1,
        .unit_name = "", .shades = shades > 10 ? 10 : shades, .ideal = e->ideal,
        .lighter = s->placement == DLS_PLACE_BOTH ? "lighter: from the other end" : NULL,
        .hold = s->options.memory.hold, .keep = s->options.memory.keep,
        .one = s->options.memory.hold * s->options.chunks};
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++)
            boxes[out->count++] = box_of(s, e, r, i);
    return DLS_OK;
}

void dls_draw_free(dls_drawing *d)
{
    free((void *)d->boxes);
    *d = (dls_drawing){0};
}

void dls_draw_title(const char *name, const dls_schedule *s, dls_text *out)
{
    const dls_schedule_options *o = &s->options;
    dls_text_add(out, "%s: %d rank%s, %d micro-batch%s", name, o->ranks,
                 o->ranks == 1 ? "" : "s", o->microbatches,
                 o->microbatches == 1 ? "" : "es");
    if (o->chunks > 1)
        dls_text_add(out, ", %d chunks per rank", o->chunks);
}
