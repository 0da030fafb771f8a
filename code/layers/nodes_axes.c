/* code/layers/nodes_axes.c: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* The groups within a node and across the nodes, split from the experts' group. */
#include "layers/dispatch_nodes.h"

#include "comm/comm.h"
#include "vgpu/gpu.h"

static int node_of(const dls_comm *c, int rank)
{
    return dls_comm_world_rank(c, rank) / dls_gpu_cluster()->gpus_per_node;
}

/* divide the group */
static dls_status divide(const dls_comm *c, int *per)
{
    int n = dls_comm_size(c), m = 1, odd = -1;
    while (m < n && node_of(c, m) == node_of(c, 0))
        m++;
    for (int r = m; r < n && odd < 0; r++)
        if (node_of(c, r) != node_of(c, r / m * m) ||
            (r % m == 0 && node_of(c, r) <= node_of(c, r - 1)))
            odd = r;
    if (odd < 0 && n % m)
        odd = n - 1;
    *per = m;
    return odd < 0 ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "dispatch over nodes: expected %d ranks of the expert "
                   "group on every node, in order, but its rank %d (of the world: %d) is "
                   "on node %d", m, odd, dls_comm_world_rank(c, odd), node_of(c, odd));
}

dls_status dls_axes_add_nodes(dls_axes *a)
{
    int per = 0, rank = a->sharding.expert_rank;
    if (!a->expert)
        return DLS_OK;
    DLS_TRY(divide(a->expert, &per));
    DLS_TRY(dls_comm_split(a->expert, rank / per, rank, &a->node));
    return dls_comm_split(a->expert, rank % per, rank, &a->across);
}
