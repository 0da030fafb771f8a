/* tests/parallel/hook_rig.h: from chapters/04-data-parallelism-hooks-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A few parameters whose gradients are a function of rank, step and element. */
#ifndef DLS_TESTS_PARALLEL_HOOK_RIG_H
#define DLS_TESTS_PARALLEL_HOOK_RIG_H

#include "../comm/world.h"

#include "base/rng.h"
#include "parallel/data/ddp.h"

/* set up the rig */
enum { RIG_PARAMS = 4, RIG_ELEMENTS = 40 * 60 + 60 + 33 * 3 + 50 * 40 };

typedef struct rig {
    dls_ctx ctx;
    dls_comm *comm;
    dls_ddp *ddp;
    dls_param params[RIG_PARAMS];
    int rank, world, integers;     // integers: gradients are small whole numbers
    unsigned frozen;               // bit p: parameter p is
    double *grads, *momentum;      // (RIG_ELEMENTS) device
    double *sum, *delivered;       // of all steps: what was due, and what came
    uint64_t predicted, sent;      // bytes of all steps; by formula, and by this rank
} rig;

static inline void rig_param(rig *r, int p, const char *name, size_t rows, size_t columns)
{
    dls_param *x = &r->params[p];
    snprintf(x->name, sizeof x->name, "%s", name);
    x->ndim = columns ? 2 : 1;
    x->shape[0] = rows;
    x->shape[1] = columns;
    x->count = rows * (columns ? columns : 1);
    x->offset = p ? x[-1].offset + x[-1].count : 0;
    x->frozen = (int)(r->frozen >> p & 1);
}

static inline dls_status rig_open(rig *r, const dls_ddp_options *options)
{
    *r = (rig){.integers = r->integers, .frozen = r->frozen};
    setenv("DLS_ALGORITHM", "all_reduce:ring,all_gather:ring,all_to_all:pairwise", 1);
    DLS_TRY(test_world(NULL, &r->comm));
    DLS_TRY(dls_ctx_create(&r->ctx, 0, DLS_F64));
    r->rank = dls_comm_rank(r->comm);
    r->world = dls_comm_size(r->comm);
    rig_param(r, 0, "first", 40, 60);
    rig_param(r, 1, "bias", 60, 0);
    rig_param(r, 2, "thin", 33, 3);
    rig_param(r, 3, "last", 50, 40);
    DLS_TRY(test_buffer(&r->grads, RIG_ELEMENTS * sizeof(double)));
    DLS_TRY(test_buffer(&r->momentum, RIG_ELEMENTS * sizeof(double)));
    memset(r->momentum, 0, RIG_ELEMENTS * sizeof(double));
    r->sum = calloc(RIG_ELEMENTS, sizeof(double));
    r->delivered = calloc(RIG_ELEMENTS, sizeof(double));
    dls_ddp_options o = *options;
    o.hook.momentum = o.hook.warmup ? r->momentum : NULL;
    return dls_ddp_create(&r->ddp, &r->ctx, r->params, RIG_PARAMS, r->grads, r->comm, &o);
}

static inline void rig_close(rig *r)
{
    dls_ddp_destroy(r->ddp);
    cudaFree(r->grads);
    cudaFree(r->momentum);
    free(r->sum);
    free(r->delivered);
    dls_ctx_destroy(&r->ctx);
    dls_comm_destroy(r->comm);
}

/* run a step of the rig */
static inline double rig_gradient(const rig *r, int rank, int step, int i)
{
    double x = dls_rng_normal(11, (uint64_t)(100 * rank + step), (uint64_t)i);
    return r->integers ? floor(2 * x) : x;
}

static inline dls_status rig_step(rig *r, int step)
{
    uint64_t before = dls_comm_stats(r->comm).wire_bytes;
    for (int i = 0; i < RIG_ELEMENTS; i++) {
        r->grads[i] = rig_gradient(r, r->rank, step, i);
        for (int k = 0; k < r->world; k++)
            r->sum[i] += rig_gradient(r, k, step, i);
    }
    r->predicted += dls_hook_wire_bytes(dls_ddp_hook(r->ddp));
    for (int p = RIG_PARAMS - 1; p >= 0; p--)
        DLS_TRY(dls_ddp_grad_ready(r->ddp, p));
    DLS_TRY(dls_ddp_finish(r->ddp));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    for (int i = 0; i < RIG_ELEMENTS; i++)
        r->delivered[i] += r->grads[i];
    r->sent += dls_comm_stats(r->comm).wire_bytes - before;
    return DLS_OK;
}

/* What all ranks' hooks still owe, element by element. */
static inline dls_status rig_owed(rig *r, double *owed)
{
    const dls_hook *h = dls_ddp_hook(r->ddp);
    double *all = malloc((size_t)r->world * RIG_ELEMENTS * sizeof(double));
    memset(owed, 0, RIG_ELEMENTS * sizeof(double));
    DLS_TRY(dls_comm_all_gather_host(r->comm, h->error, RIG_ELEMENTS * sizeof(double),
                                     all));
    for (int k = 0; k < r->world; k++)
        for (int i = 0; i < RIG_ELEMENTS; i++)
            owed[i] += all[k * RIG_ELEMENTS + i];
    free(all);
    return DLS_OK;
}

static inline dls_status rig_check_bytes(const rig *r)
{
    uint64_t all[r->world], sum = 0;
    DLS_TRY(dls_comm_all_gather_host(r->comm, &r->sent, sizeof r->sent, all));
    for (int k = 0; k < r->world; k++)
        sum += all[k];
    EXPECT(sum == r->predicted, "%d ranks sent %llu bytes, the formula says %llu",
           r->world, (unsigned long long)sum, (unsigned long long)r->predicted);
    return DLS_OK;
}

#endif
