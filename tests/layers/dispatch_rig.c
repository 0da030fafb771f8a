/* tests/layers/dispatch_rig.c: from chapters/08-dispatch-proof.md. Edit the chapter, or edit here and run "make untangle". */
/* Making a dispatch whose rows carry their origin; see dispatch_rig.h. */
#include "dispatch_rig.h"

#include <stdlib.h>

#include "base/rng.h"
#include "tensor/bf16.h"

/* choose experts by pattern */
int dispatch_tokens(const dispatch_case *c, int rank)
{
    int last = c->ep * c->etp - 1;
    if (c->pattern == NOBODY || (c->pattern == LAST_RANK_ONLY && rank != last) ||
        (c->pattern == ODD_RANKS_EMPTY && rank % 2 == 1))
        return 0;
    return c->tokens - (c->pattern == AT_RANDOM ? rank % 3 : 0);
}

int dispatch_choice(const dispatch_case *c, int rank, int token, int choice)
{
    uint32_t word = dls_rng_u32(8, (uint64_t)rank, (uint64_t)token);
    int E = c->experts, first = (int)(word % E);
    if (c->pattern == ALL_TO_ONE)
        first = E / 2;
    if (c->pattern == FIRST_EXPERTS)
        first = token % 2;
    return (first + choice) % E;
}

void dispatch_counts(const dispatch_case *c, int rank, int *counts)
{
    memset(counts, 0, sizeof(int) * c->experts);
    for (int i = 0; i < dispatch_tokens(c, rank); i++)
        for (int j = 0; j < c->chosen; j++)
            counts[dispatch_choice(c, rank, i, j)]++;
}

/* write the origin */
double dispatch_get(const dispatch_case *c, const void *x, size_t i)
{
    return c->dtype == DLS_F64   ? ((const double *)x)[i]
           : c->dtype == DLS_F32 ? ((const float *)x)[i]
                                 : dls_widen_bf16(((const dls_bfloat16 *)x)[i]);
}

void dispatch_set(const dispatch_case *c, void *x, size_t i, double value)
{
    if (c->dtype == DLS_F64)
        ((double *)x)[i] = value;
    else if (c->dtype == DLS_F32)
        ((float *)x)[i] = (float)value;
    else
        ((dls_bfloat16 *)x)[i] = dls_narrow_bf16((float)value);
}

double dispatch_element(const dispatch_case *c, int rank, int expert, int i, int column)
{
    for (int token = 0; token < dispatch_tokens(c, rank); token++)
        for (int choice = 0; choice < c->chosen; choice++) {
            int origin[] = {rank, token, choice, expert};
            if (dispatch_choice(c, rank, token, choice) != expert || i-- > 0)
                continue;
            return column < ORIGIN_COLUMNS
                       ? origin[column]
                       : (rank + 3 * token + 5 * choice + 7 * column) % 31 - 15;
        }
    return NAN;
}

/* make the dispatch rig */
dls_status dispatch_open(dispatch_groups *g, int ep, int etp, dls_comm *world)
{
    int rank = dls_comm_rank(world);
    dls_sharding s = {.expert = ep, .expert_rank = rank / etp, .expert_tensor = etp,
                      .expert_tensor_rank = rank % etp};
    *g = (dispatch_groups){.world = world};
    if (ep > 1)
        DLS_TRY(dls_comm_split(world, rank % etp, rank, &g->expert));
    if (etp > 1)
        DLS_TRY(dls_comm_split(world, rank / etp, rank, &g->expert_tensor));
    DLS_TRY(dls_axes_open(&g->axes, &s, 1, NULL, NULL));
    return dls_axes_add_experts(&g->axes, g->expert, g->expert_tensor, world);
}

void dispatch_close(dispatch_groups *g)
{
    dls_axes_close(&g->axes);
    dls_comm_destroy(g->expert);
    dls_comm_destroy(g->expert_tensor);
}

static dls_status make_buffers(dispatch_rig *r)
{
    size_t row = r->c->columns * dls_dtype_size(r->c->dtype);
    DLS_TRY(test_buffer(&r->counts, sizeof(int) * r->c->experts));
    DLS_TRY(test_buffer(&r->sent, r->d.sent_room * row));
    DLS_TRY(test_buffer(&r->back, (r->d.sent_room + 1) * row));
    DLS_TRY(test_buffer(&r->arrived, (r->d.room + 1) * row));
    DLS_TRY(test_buffer(&r->activations, dls_plan_bytes(&r->plan)));
    r->host = malloc(r->plan.host);
    return r->host ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory for routes");
}

dls_status dispatch_begin(dispatch_rig *r, const dispatch_case *c, dispatch_groups *g)
{
    dls_moe moe = {.experts = c->experts, .chosen = c->chosen};
    *r = (dispatch_rig){.c = c, .axes = &g->axes, .rank = dls_comm_rank(g->world)};
    g->axes.sharding.wire = c->wire;
    g->axes.sharding.dispatch = c->way;
    DLS_TRY(dls_ctx_create(&r->ctx, 0, c->dtype));
    r->plan = (dls_plan){.max_B = 1, .max_T = c->tokens, .dtype = c->dtype};
    dls_dispatch_plan(&r->d, &r->plan, &g->axes.sharding, &moe, c->tokens, c->tokens,
                      c->columns);
    DLS_TRY(make_buffers(r));
    r->pass = (dls_pass){.ctx = &r->ctx, .axes = r->axes, .B = 1, .T = c->tokens,
                         .host = r->host};
    dls_pass_regions(&r->pass, &r->plan, r->activations);
    return DLS_OK;
}

void dispatch_end(dispatch_rig *r)
{
    void *all[] = {r->counts, r->sent, r->back, r->arrived, r->activations};
    for (int i = 0; i < 5; i++)
        cudaFree(all[i]);
    free(r->host);
    dls_ctx_destroy(&r->ctx);
}
