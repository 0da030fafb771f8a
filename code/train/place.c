/* code/train/place.c: from chapters/07-together.md. Edit the chapter, or edit here and run "make untangle". */
/* Coordinates from the mesh, and the communicators along its axes. */
#include "train/place.h"

#include "layers/token_order.h"

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
    p->T = dls_token_count(s->order, c->model.context, s->context, s->context_rank);
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
    p.plain = p.replicas == world && !c->pipeline.schedule;
    cut_model(c, &p);
    *out = p;
    return DLS_OK;
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

dls_status dls_train_groups_open(dls_train_groups *g, const dls_train_place *p,
                                 dls_comm *comm)
{
    const dls_mesh *m = &p->mesh;
    const dls_sharding *s = &p->model.sharding;
    *g = (dls_train_groups){.plain = p->plain, .data = comm};
    if (p->plain)
        return DLS_OK;
    g->data = NULL;
    DLS_TRY(split_off(p, comm, DLS_AXES_DATA, &g->data));
    DLS_TRY(split_off(p, comm, DLS_BIT(DLS_AXIS_PP), &g->pipe));
    DLS_TRY(dls_mesh_split(m, comm, DLS_BIT(DLS_AXIS_TP), &g->tensor));
    DLS_TRY(dls_mesh_split(m, comm, DLS_BIT(DLS_AXIS_CP), &g->context));
    if (s->tensor == 1 && s->context == 1)
        return DLS_OK;
    g->cut = &g->axes;
    return dls_axes_open(&g->axes, s, p->model.kv_heads, g->tensor, g->context);
}

void dls_train_groups_close(dls_train_groups *g)
{
    if (g->cut)
        dls_axes_close(&g->axes);
    dls_comm_destroy(g->tensor);
    dls_comm_destroy(g->context);
    dls_comm_destroy(g->pipe);
    if (!g->plain)
        dls_comm_destroy(g->data);
    *g = (dls_train_groups){0};
}
