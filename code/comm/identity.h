/* code/comm/identity.h: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* Who this process is among the ranks of a job, from the environment of what started it.
 * Rank and world size count over all hosts, local rank and local world on this one. */
#ifndef DLS_COMM_IDENTITY_H
#define DLS_COMM_IDENTITY_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare an identity */
enum { DLS_URL = 256 };

typedef struct dls_identity {
    int rank, world;             // 0 of 1 when nobody started several
    int local_rank, local_world; // -1: the launcher does not say
    const char *launcher;        // "dls run", "mpirun", "torchrun", "srun", ..., "nobody"
    char url[DLS_URL];           // of the rendezvous; "": not said
} dls_identity;

/* Reads the environment: DLS_RANK ..., else Open MPI's, MPICH's, torchrun's, Slurm's.
 * DLS_ERR_INPUT names the variable that is wrong. */
dls_status dls_identity_read(dls_identity *out);

/* The same, and sets DLS_RANK and DLS_WORLD_SIZE, which the device reads. Call it first
 * in a program that another launcher may start. */
dls_status dls_identity_adopt(dls_identity *out);

#ifdef __cplusplus
}
#endif
#endif
