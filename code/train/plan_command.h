/* code/train/plan_command.h: from chapters/07-planner-search.md. Edit the chapter, or edit here and run "make untangle". */
/* dls plan: what a model takes, before anything is bought or started. */
#ifndef DLS_TRAIN_PLAN_COMMAND_H
#define DLS_TRAIN_PLAN_COMMAND_H

#include "parallel/data/plan_command.h"
#include "train/search.h"

#ifdef __cplusplus
extern "C" {
#endif

dls_status dls_plan_command(int argc, char **argv, int *exit_code);

/* say what a plan is asked */
/* The words of the command line. */
typedef struct dls_plan_asked {
    dls_plan_wanted data;       // the tables of data parallelism alone
    const char *model, *run, *cluster;
    dls_arg_list set;
    int64_t batch, sequences, first;
    double memory, link;
    int search;
} dls_plan_asked;

/* The sizing rules. Bytes, seconds. */
typedef struct dls_sizes {
    double parameters, infer, kv_token, cache, load, train, flops_token;
} dls_sizes;

/* sequences: served at once; link: GB/s that the weights are read with. */
void dls_size_model(const dls_transformer_config *c, double sequences, double link,
                    dls_sizes *out);

/* FLOPs of a step of so many sequences, the formula of Narayanan and others 2021. */
double dls_size_megatron_flops(const dls_transformer_config *c, double sequences);

/* The same as counted by the operations that are enqueued. */
dls_status dls_size_counted_flops(dls_planner *planner, const dls_transformer_config *c,
                                  double *flops);

/* The run that a search varies. */
void dls_plan_base(const dls_transformer_config *model, int batch, dls_train_config *c);

/* The three kinds of plans: sizes of a model, one run, the best of all layouts. */
dls_status dls_plan_sizes(const dls_plan_asked *w);
dls_status dls_plan_run(const dls_plan_asked *w);
dls_status dls_plan_search(const dls_plan_asked *w);

#ifdef __cplusplus
}
#endif
#endif
