/* code/comm/scratch.h: from chapters/04-data-parallelism-ddp-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Scratch memory of collectives, before they are called. */
#ifndef DLS_COMM_SCRATCH_H
#define DLS_COMM_SCRATCH_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare scratch memory */
/* Bytes that one call of an operation ("all_reduce") takes on its stream; 0: none. */
dls_status dls_comm_scratch_bytes(dls_comm *comm, const char *operation, size_t count,
                            int dtype, size_t *bytes);

/* The same for whatever count from 1 to `most`: never too little. */
dls_status dls_comm_scratch_within(dls_comm *comm, const char *operation, size_t most,
                                   int dtype, size_t *bytes);

size_t dls_comm_piece(size_t bytes); // as much as is taken for so many; 0 for 0

/* Takes a piece for the calls on this stream now, unless it has one as large. */
dls_status dls_comm_reserve(dls_comm *comm, size_t bytes, cudaStream_t stream);

/* Rank `rank` of n, which are first, first + stride, ... of a world on the cluster that
 * is described: for the questions above and below. What is called on it moves nothing,
 * and takes its time while operations are recorded (vgpu/record.h). */
dls_status dls_comm_imagine(dls_comm **out, int rank, int first, int stride, int n);

/* Virtual seconds that an operation takes when all ranks begin together. */
dls_status dls_comm_seconds(dls_comm *comm, const char *operation, size_t count,
                            int dtype, double *seconds);

/* The same in a group of n ranks of the world, of which there may be any number. */
dls_status dls_imagined_seconds(const int *member, int n, const char *operation,
                                size_t count, int dtype, double *seconds);

/* The scratch memory of such a call; and what a communicator that is imagined would have
 * taken for the calls so far (NULL: 0). */
dls_status dls_imagined_bytes(const int *member, int n, const char *operation,
                              size_t count, int dtype, size_t *bytes);
size_t dls_imagined_scratch(const dls_comm *comm);

/* The same of any n ranks, ascending. */
dls_status dls_comm_imagine_ranks(dls_comm **out, int rank, const int *member, int n);
int dls_comm_is_imagined(const dls_comm *comm); // NULL: 0

#ifdef __cplusplus
}
#endif
#endif
