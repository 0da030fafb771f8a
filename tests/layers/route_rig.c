/* tests/layers/route_rig.c: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* See route_rig.h. */
#include "route_rig.h"

#include <stdlib.h>

#include "layers/dispatch.h"

/* open a route rig */
typedef struct rig {
    dls_ctx ctx;
    dls_params params;
    dls_build build;
    dls_plan plan;
    dls_pass pass;
    dls_routing routing;
    dls_balance balance;
    void *activations;
    double *x, *dx, *dweights;  // readable by the host
    int pending[1];
} rig;

static dls_status open_rig(rig *r, const route_layout *l, const dls_axes *axes, int B,
                           int T, int n)
{
    dls_sharding s = axes ? axes->sharding : (dls_sharding){0};
    *r = (rig){0};
    DLS_TRY(dls_ctx_create(&r->ctx, 0, DLS_F64));
    r->build.params = &r->params;
    r->build.sharding = s;
    int weight = dls_routing_param(&r->build, "a", ROUTE_C, &l->moe, 1);
    DLS_TRY(r->build.status);
    r->plan = (dls_plan){.max_B = B, .max_T = T, .dtype = DLS_F64};
    dls_routing_plan(&r->routing, &r->plan, &s, &l->moe, n, ROUTE_C, weight);
    DLS_TRY(dls_params_allocate(&r->params, &r->ctx));
    DLS_TRY(dls_params_initialise(&r->params, 3));
    DLS_TRY(dls_params_zero_grads(&r->params, &r->ctx));
    DLS_TRY(dls_balance_open(&r->balance, &r->ctx, r->plan.experts, ROUTE_E));
    DLS_TRY(test_buffer(&r->activations, dls_plan_bytes(&r->plan)));
    r->pass = (dls_pass){.ctx = &r->ctx, .params = &r->params, .axes = axes, .B = B,
                         .T = T, .T_whole = ROUTE_T, .loss_scale = 0.25,
                         .pending = r->pending, .tally = r->balance.tally};
    dls_pass_regions(&r->pass, &r->plan, r->activations);
    DLS_TRY(test_buffer(&r->x, ROUTE_ROWS * ROUTE_C * sizeof(double)));
    DLS_TRY(test_buffer(&r->dx, ROUTE_ROWS * ROUTE_C * sizeof(double)));
    return test_buffer(&r->dweights, ROUTE_ROWS * ROUTE_K * sizeof(double));
}
static void close_rig(rig *r)
{
    cudaFree(r->x);
    cudaFree(r->dx);
    cudaFree(r->dweights);
    cudaFree(r->activations);
    dls_balance_close(&r->balance);
    dls_build_free(&r->build);
    dls_params_free(&r->params);
    dls_ctx_destroy(&r->ctx);
}
/* fill a route rig */
/* A rank's rows: its tokens of its sequences, cut into bands along tp. *first: the number
 * in the pass of its first row. */
static void list_rows(const route_layout *l, int rank, int B, int T, int cut,
                      routed_rows *out, int *first)
{
    int t = cut ? l->tp : 1, at = cut ? rank % l->tp : 0;
    int c = cut ? rank / l->tp % l->cp : 0, d = cut ? rank / l->tp / l->cp : 0;
    *first = at * B * T / t;
    out->n = (at + 1) * B * T / t - *first;
    for (int i = 0; i < out->n; i++) {
        int number = *first + i;
        out->row[i] = (d * B + number / T) * ROUTE_T + c * T + number % T;
    }
}

static void fill_rows(rig *r, const routed_rows *out)
{
    for (int i = 0; i < out->n; i++)
        for (int j = 0; j < ROUTE_C; j++) {
            r->x[i * ROUTE_C + j] = dls_rng_normal(5, 1, out->row[i] * ROUTE_C + j);
            r->dx[i * ROUTE_C + j] = 0;
        }
    for (int i = 0; i < out->n; i++)
        for (int j = 0; j < ROUTE_K; j++)
            r->dweights[i * ROUTE_K + j] =
                dls_rng_normal(5, 2, out->row[i] * ROUTE_K + j);
}
/* run a route rig */
static void read_rig(const rig *r, routed_rows *out)
{
    dls_routed f = dls_routing_found(&r->routing, &r->pass);
    for (int i = 0; i < out->n * ROUTE_K; i++) {
        out->index[i] = f.index[i];
        out->kept[i] = f.place[i] >= 0;
        out->weight[i] = ((const double *)f.weights)[i];
    }
    memcpy(out->dx, r->dx, sizeof(double) * out->n * ROUTE_C);
    cudaMemcpy(out->dweight, r->params.grads, sizeof out->dweight,
               cudaMemcpyDeviceToHost);
    cudaMemcpy(out->tally, r->balance.tally, sizeof out->tally, cudaMemcpyDeviceToHost);
}

dls_status route_rows(const route_layout *l, const dls_axes *axes, int rank,
                      int sequences, routed_rows *out)
{
    rig r;
    int B = axes ? sequences / l->dp : sequences, T = axes ? ROUTE_T / l->cp : ROUTE_T;
    int first;
    list_rows(l, rank, B, T, axes != NULL, out, &first);
    DLS_TRY(open_rig(&r, l, axes, B, T, out->n));
    fill_rows(&r, out);
    if (l->losses_only > 0) {
        memset(r.dweights, 0, ROUTE_ROWS * ROUTE_K * sizeof(double));
        r.pass.loss_scale = l->losses_only;
    }
    DLS_TRY(dls_route(&r.routing, &r.pass, r.x, out->n, first));
    DLS_TRY(dls_route_back(&r.routing, &r.pass, 0, r.dx, r.dweights, out->n, first));
    DLS_TRY(dls_route_weight(&r.routing, &r.pass, r.x, out->n));
    r.pass.again = 1;           // once more: what was counted stays
    DLS_TRY(dls_route(&r.routing, &r.pass, r.x, out->n, first));
    DLS_TRY(dls_ctx_sync(&r.ctx));
    read_rig(&r, out);
    close_rig(&r);
    return DLS_OK;
}
