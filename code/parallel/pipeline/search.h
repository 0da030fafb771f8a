/* code/parallel/pipeline/search.h: from chapters/05-pipeline-zero-bubble-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* The shortest schedule there is, by branch and bound: for small cases only. */
#ifndef DLS_PARALLEL_PIPELINE_SEARCH_H
#define DLS_PARALLEL_PIPELINE_SEARCH_H

#include "parallel/pipeline/auto.h"

/* define a search */
typedef struct dls_search {
    dls_auto now;         // the partial schedule
    int64_t best;         // the shortest span found
    uint8_t *best_rank, *best_kind;  // [passes]: in the order of placing
    uint8_t *path_rank, *path_kind;  // [passes]: of the partial one
    int placed, passes;
    int64_t nodes, most_nodes;
    uint64_t *seen;       // [seen_room]: states that are done with, by hash; 0: empty
    size_t seen_room, seen_count;
    int64_t *last_f, *last_i;  // [ranks]: room for the bound
} dls_search;

/* declare the search */
/* No completion of the partial schedule has a shorter span. */
int64_t dls_search_bound(dls_search *s);

/* Whether this state was met before; notes it. */
int dls_search_met(dls_search *s);

/* The best span below s->best, by trying all orders that matter. Errors: DLS_ERR_INPUT
 * when most_nodes were not enough. */
dls_status dls_search_run(dls_search *s);

dls_status dls_search_open(const dls_schedule_options *o, dls_search *s);
void dls_search_close(dls_search *s);

#endif
