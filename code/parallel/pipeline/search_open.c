/* code/parallel/pipeline/search_open.c: from chapters/05-pipeline-zero-bubble-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Room for a search, and giving it back. */
#include <stdlib.h>

#include "parallel/pipeline/search.h"

/* open a search */
void dls_search_close(dls_search *s)
{
    for (int r = 0; s->now.order && r < s->now.o->ranks; r++)
        dls_actions_free(&s->now.order[r]);
    free(s->now.order);
    free(s->now.rank);
    free(s->now.end);
    free(s->best_rank);
    free(s->seen);
    free(s->last_f);
    *s = (dls_search){0};
}
dls_status dls_search_open(const dls_schedule_options *o, dls_search *s)
{
    size_t p = (size_t)o->ranks, passes = 3 * p * (size_t)o->microbatches;
    *s = (dls_search){.now = {.o = o, .limit = o->limit}, .best = INT64_MAX,
                      .passes = (int)passes, .seen_room = 1 << 21,
                      .most_nodes = 4000000};
    if (passes > 512)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected at most 512 passes, got %zu",
                        o->name, passes);
    s->now.order = calloc(p, sizeof *s->now.order);
    s->now.rank = calloc(p, sizeof *s->now.rank);
    s->now.end = calloc(passes, sizeof *s->now.end);
    s->best_rank = calloc(4, passes);
    s->seen = calloc(s->seen_room, sizeof *s->seen);
    s->last_f = calloc(2 * p, sizeof *s->last_f);
    if (!s->now.order || !s->now.rank || !s->now.end || !s->best_rank || !s->seen ||
        !s->last_f)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a search");
    s->best_kind = s->best_rank + passes;
    s->path_rank = s->best_kind + passes;
    s->path_kind = s->path_rank + passes;
    s->last_i = s->last_f + p;
    return DLS_OK;
}
