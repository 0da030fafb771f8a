/* code/parallel/mesh_command.h: from chapters/07-mesh-command.md. Edit the chapter, or edit here and run "make untangle". */
/* dls mesh, and the drawing of a mesh. */
#ifndef DLS_PARALLEL_MESH_COMMAND_H
#define DLS_PARALLEL_MESH_COMMAND_H
#include "parallel/mesh.h"
#include "vgpu/cluster.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `dls mesh`; the contract of a subcommand is in cli/command.h. */
dls_status dls_mesh_command(int argc, char **argv, int *exit_code);

/* Writes an SVG with a panel for each axis that has groups. DLS_ERR_IO. */
dls_status dls_mesh_draw(const dls_mesh *m, const dls_cluster *c, const char *path);

#ifdef __cplusplus
}
#endif
#endif
