/* code/parallel/pipeline/schedule_exact.c: from chapters/05-pipeline-zero-bubble-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* The shortest span that any order has within the limit, found by trying all of them
 * that matter: what the heuristic is held against.
 */
#include "parallel/pipeline/schedules.h"
#include "parallel/pipeline/search.h"

/* write the best order */
static dls_status write_best(const dls_search *s, dls_actions *out)
{
    for (int r = 0; r < s->now.o->ranks; r++) {
        int count[3] = {0};
        out[r].n = 0;
        for (int i = 0; i < s->passes; i++)
            if (s->best_rank[i] == r)
                DLS_TRY(dls_actions_add(&out[r], (dls_action_kind)s->best_kind[i], r,
                                        count[s->best_kind[i]]++));
    }
    return DLS_OK;
}

/* search a schedule */
dls_status dls_schedule_exact(const dls_schedule_options *o, dls_actions *out)
{
    dls_search s;
    int64_t span;
    DLS_TRY(dls_auto_make(o, out, &span));
    dls_status status = dls_search_open(o, &s);
    if (status == DLS_OK) {
        if (!s.now.limit)
            s.now.limit = 2 * o->ranks * o->memory.hold;
        s.best = span;
        status = dls_search_run(&s);
    }
    if (status == DLS_OK && s.best < span)
        status = write_best(&s, out);
    dls_search_close(&s);
    return status;
}
