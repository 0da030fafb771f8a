/* code/parallel/pipeline/request.h: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* What `dls schedule` was asked for: words into costs in ticks, and into a schedule. */
#ifndef DLS_PARALLEL_PIPELINE_REQUEST_H
#define DLS_PARALLEL_PIPELINE_REQUEST_H

#include "base/args.h"
#include "parallel/pipeline/exact.h"
#include "parallel/pipeline/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* say what was asked */
typedef struct dls_units {
    int64_t time;    // ticks per unit of time
    int64_t memory;  // units of memory per activation of a stage; with pairs, of a chunk
} dls_units;

typedef struct dls_request {
    const char *name, *costs, *overlap, *memory, *limit, *compare, *csv, *draw;
    int64_t ranks, microbatches, chunks, group, gathered;
    int json, order, list, terminal, lower;
    dls_arg_list stage_costs;
    int64_t stage[DLS_ARG_LIST_LIMIT];            // of each --stage-cost
    int64_t stage_ticks[3 * DLS_ARG_LIST_LIMIT];
    dls_schedule_options options;
    int64_t (*of_stage)[3];  // [stages], or NULL
    dls_units units;
} dls_request;

/* declare reading a request */
/* The words of the command line. Errors: DLS_ERR_INPUT, as of dls_args_parse. */
dls_status dls_request_read(dls_request *q, int argc, char **argv, int *helped);

/* The schedule of that name in the table, with the request's costs in its options. */
dls_status dls_request_make(dls_request *q, const char *name, dls_schedule *out);

/* The costs and memory of the request, for a schedule that was read: into its options. */
dls_status dls_request_price(dls_request *q, dls_schedule *s);

void dls_request_free(dls_request *q);

#ifdef __cplusplus
}
#endif
#endif
