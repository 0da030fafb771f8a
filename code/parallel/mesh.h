/* code/parallel/mesh.h: from chapters/07-mesh.md. Edit the chapter, or edit here and run "make untangle". */
/* The mesh: which rank does what along each axis of parallelism, and who is with whom.
 *
 *   rank = tp + TP * (cp + CP * (pp + PP * dp))      in the usual order, nearest first
 *
 * A group over a set of axes: the ranks that agree in all the other coordinates.
 * Everything here but dls_mesh_split is a function of a few numbers: no state, no
 * messages, the same answer on every rank. */
#ifndef DLS_PARALLEL_MESH_H
#define DLS_PARALLEL_MESH_H
#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name the axes */
typedef enum dls_axis {
    DLS_AXIS_TP, DLS_AXIS_CP, DLS_AXIS_PP, DLS_AXIS_DP,
    DLS_AXES,                                           /* those of the dense mesh */
    DLS_AXIS_ETP = DLS_AXES, DLS_AXIS_EP, DLS_AXIS_EDP, /* with pp: the expert mesh */
    DLS_AXES_ALL
} dls_axis;

#define DLS_BIT(axis) (1u << (axis))
/* Ranks with the same parameters: gradients are summed over these. */
#define DLS_AXES_DATA (DLS_BIT(DLS_AXIS_DP) | DLS_BIT(DLS_AXIS_CP))
/* Ranks with different ones: squares of norms are summed over these. */
#define DLS_AXES_MODEL (DLS_BIT(DLS_AXIS_TP) | DLS_BIT(DLS_AXIS_PP))

const char *dls_axis_name(dls_axis axis); /* "tp" */

/* define the mesh */
typedef struct dls_mesh {
    int size[DLS_AXES];
    dls_axis order[DLS_AXES];   /* nearest first */
    int ep, etp;                /* see the expert mesh */
} dls_mesh;

/* declare making a mesh */
enum { DLS_MESH_MOST = 1 << 20, DLS_ORDER_TEXT = 16 };

/* Enters an order such as "tp,cp,pp,dp", nearest first. DLS_ERR_INPUT. */
dls_status dls_mesh_set_order(dls_mesh *m, const char *text);
void dls_mesh_order_text(const dls_mesh *m, char text[DLS_ORDER_TEXT]);

/* Completes a mesh for `world` ranks and checks it: sizes of 0 become 1, a dp of 0 what
 * the world leaves, an order of zeros tp, cp, pp, dp. DLS_ERR_INPUT with the field, what
 * was expected and the nearest value that works. */
dls_status dls_mesh_fit(dls_mesh *m, int world);

/* The same for a complete mesh. */
dls_status dls_mesh_check(const dls_mesh *m, int world);

/* The fewest ranks that tp, cp, pp, ep and etp can have, with dp free: pp times the least
 * common multiple of tp cp and etp ep. */
int64_t dls_mesh_least(const dls_mesh *m);

/* The divisor of n nearest to `wanted`; of two the smaller. */
int64_t dls_divisor_near(int64_t n, int64_t wanted);

/* declare coordinates */
int dls_mesh_size(const dls_mesh *m, dls_axis axis); /* of any of the seven axes */
int dls_mesh_world(const dls_mesh *m);
int dls_mesh_coordinate(const dls_mesh *m, int rank, dls_axis axis);
int dls_mesh_rank(const dls_mesh *m, const int at[DLS_AXES]); /* the inverse */

/* declare groups */
/* `axes`: bits of the dense mesh, or of etp, ep, edp and pp; not of both. */
int dls_mesh_group_size(const dls_mesh *m, unsigned axes);

/* 1: ranks a and b are in one group over these axes. */
int dls_mesh_together(const dls_mesh *m, int a, int b, unsigned axes);

/* The ranks of this rank's group, ascending; returns their number. */
int dls_mesh_group_ranks(const dls_mesh *m, int rank, unsigned axes, int *ranks);

/* The group's communicator, numbered as dls_mesh_group_ranks; NULL for a group of one.
 * Collective over comm, which is the world of the mesh. */
dls_status dls_mesh_split(const dls_mesh *m, dls_comm *comm, unsigned axes,
                          dls_comm **out);

#ifdef __cplusplus
}
#endif
#endif
