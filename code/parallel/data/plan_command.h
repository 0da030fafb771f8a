/* code/parallel/data/plan_command.h: from chapters/04-data-parallelism-zero-plan.md. Edit the chapter, or edit here and run "make untangle". */
/* Tables of dls plan: the memory of a device and the messages of a step. */
#ifndef DLS_PARALLEL_DATA_PLAN_COMMAND_H
#define DLS_PARALLEL_DATA_PLAN_COMMAND_H

#include "base/args.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* say what is wanted */
/* What the options say; zeros: not given. */
typedef struct dls_plan_wanted {
    dls_arg_list parameters, gpus;
    const char *config;
    int64_t prefetch;
    double largest;
    int deepspeed, offload, narrow, json;
} dls_plan_wanted;

/* Prints the table that is wanted. DLS_ERR_INPUT: options that contradict each other. */
dls_status dls_plan_data(const dls_plan_wanted *w);

#ifdef __cplusplus
}
#endif
#endif
