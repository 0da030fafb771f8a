/* code/parallel/mesh_links.h: from chapters/07-mesh-command.md. Edit the chapter, or edit here and run "make untangle". */
/* Over which link the groups of a mesh talk, when rank r is GPU r of a cluster. */
#ifndef DLS_PARALLEL_MESH_LINKS_H
#define DLS_PARALLEL_MESH_LINKS_H
#include "parallel/mesh.h"
#include "vgpu/cluster.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the links of a mesh */
typedef struct dls_mesh_link {
    dls_hop_kind kind;          /* of the farthest hop: DLS_HOP_PORT ... DLS_HOP_SPINE */
    int nodes;                  /* on which the group has ranks */
    double alpha, beta;         /* s, s per byte: the slowest pair of neighbours' */
} dls_mesh_link;

/* out[rank] (the world): the link of that rank's group over these axes, while all groups
 * pass messages round their rings. A group of one: zeros. DLS_ERR_INPUT: the cluster has
 * fewer GPUs. */
dls_status dls_mesh_links(const dls_mesh *m, const dls_cluster *c, unsigned axes,
                          dls_mesh_link *out);

/* "NVLink", "PCIe", "CPU link", "network", "spine". */
const char *dls_mesh_link_name(dls_hop_kind kind);

/* Makes the cluster as many nodes larger as the world needs. DLS_ERR_INPUT: it has no
 * network. */
dls_status dls_mesh_enlarge(dls_cluster *c, int world);

#ifdef __cplusplus
}
#endif
#endif
