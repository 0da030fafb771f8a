/* code/parallel/mesh_links.c: from chapters/07-mesh-command.md. Edit the chapter, or edit here and run "make untangle". */
/* Rings of all groups, their flows, and the slowest of each ring. */
#include "parallel/mesh_links.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* name a link */
const char *dls_mesh_link_name(dls_hop_kind kind)
{
    static const char *const names[] = {"NVLink", "NVLink", "PCIe", "CPU link", "network",
                                        "spine"};
    return names[kind];
}

/* let all rings flow */
static int next_in_ring(const dls_mesh *m, int rank, unsigned axes)
{
    int world = dls_mesh_world(m), next = rank;
    do
        next = (next + 1) % world;
    while (!dls_mesh_together(m, rank, next, axes));
    return next;
}

/* kind: of the farthest hop between the ends of a flow. */
static dls_status measure(const dls_cluster *c, const int (*flows)[2], int world,
                          int rank, dls_mesh_link *out)
{
    dls_hop hops[DLS_HOPS];
    int count;
    DLS_TRY(dls_cluster_flow(c, flows, world, rank, &out->alpha, &out->beta));
    DLS_TRY(dls_cluster_path(c, flows[rank][0], flows[rank][1], hops, &count));
    for (int i = 0; i < count; i++)
        out->kind = hops[i].kind > out->kind ? hops[i].kind : out->kind;
    return DLS_OK;
}

/* find the slowest of a ring */
static void join(const dls_mesh *m, const dls_cluster *c, unsigned axes, int rank,
                 const dls_mesh_link *flow, dls_mesh_link *out)
{
    int last = -1, node;
    *out = flow[rank];
    for (int r = 0; r < dls_mesh_world(m); r++) {
        if (!dls_mesh_together(m, rank, r, axes))
            continue;
        node = r / c->gpus_per_node;
        out->nodes += node != last;
        last = node;
        out->kind = flow[r].kind > out->kind ? flow[r].kind : out->kind;
        out->alpha = fmax(out->alpha, flow[r].alpha);
        out->beta = fmax(out->beta, flow[r].beta);
    }
}

dls_status dls_mesh_links(const dls_mesh *m, const dls_cluster *c, unsigned axes,
                          dls_mesh_link *out)
{
    int world = dls_mesh_world(m);
    dls_status s = DLS_OK;
    memset(out, 0, (size_t)world * sizeof *out);
    if (dls_mesh_group_size(m, axes) == 1)
        return DLS_OK;
    int (*flows)[2] = calloc((size_t)world, sizeof *flows);
    dls_mesh_link *flow = calloc((size_t)world, sizeof *flow);
    if (!flows || !flow)
        s = DLS_FAIL(DLS_ERR_MEMORY, "no memory for the flows of %d ranks", world);
    for (int r = 0; s == DLS_OK && r < world; r++) {
        flows[r][0] = r;
        flows[r][1] = next_in_ring(m, r, axes);
    }
    for (int r = 0; s == DLS_OK && r < world; r++)
        s = measure(c, (const int (*)[2])flows, world, r, &flow[r]);
    for (int r = 0; s == DLS_OK && r < world; r++)
        join(m, c, axes, r, flow, &out[r]);
    free(flows);
    free(flow);
    return s;
}

/* enlarge a cluster */
dls_status dls_mesh_enlarge(dls_cluster *c, int world)
{
    int nodes = (world + c->gpus_per_node - 1) / c->gpus_per_node;
    if (nodes <= c->nodes)
        return DLS_OK;
    if (c->inter.beta == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "cluster %s: expected a network for %d ranks, as "
                        "a node has %d GPUs", c->name, world, c->gpus_per_node);
    if (c->nodes_per_leaf >= c->nodes)
        c->nodes_per_leaf = nodes;
    c->nodes = nodes;
    return DLS_OK;
}
