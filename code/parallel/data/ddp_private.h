/* code/parallel/data/ddp_private.h: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared by the sources of DDP, and by nobody else. */
#ifndef DLS_PARALLEL_DATA_DDP_PRIVATE_H
#define DLS_PARALLEL_DATA_DDP_PRIVATE_H

#include "parallel/data/ddp.h"
#include "parallel/data/plan.h"
#include "parallel/data/rows.h"

/* define the state of ddp */
typedef struct bucket_state {
    cudaEvent_t ready, begin, end;
    int missing; // gradients not yet reported in this step
} bucket_state;

struct dls_ddp {
    dls_ctx *ctx;
    dls_comm *comm;
    dls_ddp_options options;
    const dls_param *params;
    char *grads;
    dls_dtype dtype;              // of the gradients
    int nparams, nbuckets;
    int next;                     // how many buckets of the step are sent
    int finished;                 // a step has been finished
    dls_bucket *buckets;          // (nbuckets)
    bucket_state *states;         // (nbuckets)
    int *order;                   // (nbuckets) in which they are sent
    int *bucket_of;               // (nparams)
    char *reported;               // (nparams)
    dls_ctx wire;                 // communication: a stream, the gradients' type
    cudaEvent_t before, after;    // around the wait of the compute stream
    dls_hook_bucket *told;        // (nbuckets) the buckets as the hook sees them
    dls_hook *hook;
    /* keep what hard cases need */
    int held;                     // 1: no_sync
    int completed, *arrived;      // (nbuckets) buckets in the order of their completion
    char *used;                   // (nparams) in this step, on this rank
    int64_t examples, total;      // of this step on this rank; of the last, on all
    struct { void *data; size_t count; int dtype; } shared[8];
    int nshared;
    char *arrived_used;           // (nparams) in the last step, on any rank
    dls_rows *rows;               // of options.rows_of; NULL: none
};

/* ddp.c */
dls_status ddp_agree(const dls_ddp *d);                   // on the plan; collective
dls_status ddp_report(dls_ddp *d, int param, int used);   // a gradient is complete
dls_status ddp_report_the_rest(dls_ddp *d);               // of a pass that is over

/* ddp_plan.c: the buckets; and all that ends with them */
dls_status ddp_make_plan(dls_ddp *d);
void ddp_free_plan(dls_ddp *d);
dls_status ddp_reserve(dls_ddp *d);                       // scratch memory

/* ddp_hard.c: when all buckets of a step are sent */
dls_status ddp_settle(dls_ddp *d);

#endif
