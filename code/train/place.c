/* code/train/place.c: from chapters/07-together.md. Edit the chapter, or edit here and run "make untangle". */
/* Coordinates from the mesh, and the communicators along its axes. */
#include "train/place.h"

#include <string.h>

#include "layers/token_order.h"
#include "parallel/expert/copies.h"

/* find the place of a rank */
static int number_in(const dls_mesh *m, int rank, unsigned axes)
{
    int ranks[dls_mesh_group_size(m, axes)], i = 0;
    dls_mesh_group_ranks(m, rank, axes, ranks);
    while (ranks[i] != rank)
        i++;
    return i;
}

static void cut_model(const dls_train_config *c, dls_train_place *p)
{
    const dls_mesh *m = &p->mesh;
    dls_sharding *s = &p->model.sharding;
    p->model = c->model;
    *s = c->sharding;
    s->tensor = m->size[DLS_AXIS_TP];
    s->tensor_rank = p->tensor_rank;
    s->context = m->size[DLS_AXIS_CP];
    s->context_rank = dls_mesh_coordinate(m, p->rank, DLS_AXIS_CP);
    s->expert = m->ep;
    s->expert_rank = dls_mesh_coordinate(m, p->rank, DLS_AXIS_EP);
    s->expert_tensor = m->etp;
    s->expert_tensor_rank = dls_mesh_coordinate(m, p->rank, DLS_AXIS_ETP);
    p->T = dls_token_count(s->order, c->model.context, s->context, s->context_rank);
}

int dls_train_experts_apart(const dls_train_config *c, const dls_mesh *m, int rank)
{
    unsigned data = DLS_AXES_DATA, edp = DLS_BIT(DLS_AXIS_EDP);
    int n = dls_mesh_group_size(m, data);
    if (c->model.moe.experts == 0)
        return 0;
    if (n != dls_mesh_group_size(m, edp))
        return 1;
    int a[n], b[n];
    dls_mesh_group_ranks(m, rank, data, a);
    dls_mesh_group_ranks(m, rank, edp, b);
    return memcmp(a, b, sizeof a) != 0;
}

dls_status dls_train_place_of(const dls_train_config *c, int rank, int world,
                              dls_train_place *out)
{
    dls_train_place p = {.mesh = c->mesh, .rank = rank, .world = world};
    dls_mesh *m = &p.mesh;
    DLS_TRY(dls_mesh_fit(m, world));
    p.stage_rank = dls_mesh_coordinate(m, rank, DLS_AXIS_PP);
    p.replica = dls_mesh_coordinate(m, rank, DLS_AXIS_DP);
    p.replicas = m->size[DLS_AXIS_DP];
    p.tensor_rank = dls_mesh_coordinate(m, rank, DLS_AXIS_TP);
    p.holders = dls_mesh_group_size(m, DLS_AXES_DATA);
    p.holder = number_in(m, rank, DLS_AXES_DATA);
    p.apart = dls_train_experts_apart(c, m, rank);
    p.expert_holder = p.apart ? number_in(m, rank, DLS_BIT(DLS_AXIS_EDP)) : p.holder;
    p.together = c->model.moe.experts > 0 && p.replicas > 1
        && (m->ep * m->etp > 1 || c->model.moe.aux_batch > 0);
    p.plain = p.replicas == world && !c->pipeline.schedule && !p.apart;
    cut_model(c, &p);
    *out = p;
    return DLS_OK;
}

int dls_train_passes_end(const dls_train_config *c, const dls_train_place *p)
{
    return p->together ? (c->global_batch + p->replicas - 1) / p->replicas
                       : dls_train_rows_of(c, p->replica, p->replicas);
}

dls_status dls_train_positions(const dls_train_place *p, int *positions)
{
    const dls_sharding *s = &p->model.sharding;
    return dls_token_positions(s->order, p->model.context, s->context, s->context_rank,
                               positions);
}

/* open the groups of a rank */
/* As dls_mesh_split, but a group of one is a communicator, too. */
static dls_status split_off(const dls_train_place *p, dls_comm *comm, unsigned axes,
                            dls_comm **out)
{
    DLS_TRY(dls_mesh_split(&p->mesh, comm, axes, out));
    return *out ? DLS_OK : dls_comm_split(comm, p->rank, 0, out);
}

static dls_status open_dense(dls_train_groups *g, const dls_train_place *p,
                             dls_comm *comm)
{
    const dls_mesh *m = &p->mesh;
    g->data = NULL;
    DLS_TRY(split_off(p, comm, DLS_AXES_DATA, &g->data));
    DLS_TRY(split_off(p, comm, DLS_BIT(DLS_AXIS_PP), &g->pipe));
    DLS_TRY(dls_mesh_split(m, comm, DLS_BIT(DLS_AXIS_TP), &g->tensor));
    return dls_mesh_split(m, comm, DLS_BIT(DLS_AXIS_CP), &g->context);
}


static dls_status open_experts(dls_train_groups *g, const dls_train_place *p,
                               dls_comm *comm)
{
    const dls_mesh *m = &p->mesh;
    unsigned stage = DLS_AXES_DATA | DLS_BIT(DLS_AXIS_TP);
    if (p->apart)
        DLS_TRY(split_off(p, comm, DLS_BIT(DLS_AXIS_EDP), &g->expert_data));
    DLS_TRY(dls_mesh_split(m, comm, DLS_BIT(DLS_AXIS_EP), &g->expert));
    DLS_TRY(dls_mesh_split(m, comm, DLS_BIT(DLS_AXIS_ETP), &g->expert_tensor));
    return dls_mesh_split(m, comm, stage, &g->rows);
}

dls_status dls_train_groups_open(dls_train_groups *g, const dls_train_place *p,
                                 dls_comm *comm)
{
    const dls_sharding *s = &p->model.sharding;
    *g = (dls_train_groups){.plain = p->plain, .data = comm};
    if (!p->plain)
        DLS_TRY(open_dense(g, p, comm));
    g->expert_data = g->data;
    if (p->model.moe.experts > 0)
        DLS_TRY(open_experts(g, p, comm));
    if (!dls_sharding_travels(s) && !g->rows)
        return DLS_OK;
    g->cut = &g->axes;
    DLS_TRY(dls_axes_open(&g->axes, s, p->model.kv_heads, g->tensor, g->context));
    DLS_TRY(dls_axes_add_experts(&g->axes, g->expert, g->expert_tensor, g->rows));
    dls_axes_add_copies(&g->axes, g->data, g->expert_data);
    return DLS_OK;
}

void dls_train_groups_close(dls_train_groups *g)
{
    if (g->cut)
        dls_axes_close(&g->axes);
    dls_comm_destroy(g->expert);
    dls_comm_destroy(g->expert_tensor);
    dls_comm_destroy(g->rows);
    if (g->expert_data != g->data)
        dls_comm_destroy(g->expert_data);
    dls_comm_destroy(g->tensor);
    dls_comm_destroy(g->context);
    dls_comm_destroy(g->pipe);
    if (!g->plain)
        dls_comm_destroy(g->data);
    *g = (dls_train_groups){0};
}
