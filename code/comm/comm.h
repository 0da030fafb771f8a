/* code/comm/comm.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Communicators: collectives and messages between ranks, asynchronous on a stream.
 *
 * Every rank calls the same collectives in the same order with arguments that agree;
 * what disagrees is reported with both call sites, and what waits for ever as a deadlock.
 * A world of one rank has no messages: its collectives are no operations at all.
 * Buffers come from dls_gpu_alloc_shared and belong to the operation until it is done. */
#ifndef DLS_COMM_COMM_H
#define DLS_COMM_COMM_H

#include <stddef.h>
#include <stdint.h>
#include <cuda_runtime.h>

#include "base/status.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the communicator */
typedef struct dls_comm dls_comm;
/* Element types: those of tensors, and 32-bit integers for counts and flags. */
enum { DLS_COMM_I32 = 64 };
size_t dls_comm_type_size(int dtype);      // bytes; 0 for an unknown type
const char *dls_comm_type_name(int dtype); // "f32", "i32" ...; "?"

typedef enum dls_reduce { DLS_SUM, DLS_AVG, DLS_MIN, DLS_MAX } dls_reduce;

typedef struct dls_comm_options {
    int ignore_environment; // 1: a world of one rank, whatever the environment says
} dls_comm_options;

typedef struct dls_comm_statistics {
    uint64_t operations;  // enqueued operations that finished: collectives and messages
    uint64_t steps;       // of their algorithms
    uint64_t wire_bytes;  // sent by this rank, headers not counted
    double busy_seconds;  // virtual: from the moment an operation could start to its end
} dls_comm_statistics;

/* The world's communicator, from DLS_RANK, DLS_WORLD_SIZE, DLS_ARENA_FD; one rank
 * when DLS_WORLD_SIZE is unset. options may be NULL. One per process at a time.
 * DLS_ERR_INPUT: an environment that contradicts itself. */
dls_status dls_comm_create(dls_comm **out, const dls_comm_options *options);
void dls_comm_destroy(dls_comm *comm); // after its streams are synchronised; NULL is fine

int dls_comm_rank(const dls_comm *comm);
int dls_comm_size(const dls_comm *comm);
dls_comm_statistics dls_comm_stats(const dls_comm *comm);

/* declare the collectives */
/* buf (count) on every rank := the reduction over all ranks. Bit-identical everywhere and
 * in every run. Ring, Patarasuk and Yuan 2009: 2(n-1) steps, 2(n-1)/n of the bytes. */
#define dls_comm_all_reduce(comm, buf, count, dtype, op, stream) \
    dls_comm_all_reduce_at(comm, buf, count, dtype, op, stream, __FILE__, __LINE__)
dls_status dls_comm_all_reduce_at(dls_comm *comm, void *buf, size_t count,
                                  int dtype, dls_reduce op, cudaStream_t stream,
                                  const char *file, int line);

/* buf (count) on every rank := root's. A pipelined chain root, root+1, ... */
#define dls_comm_broadcast(comm, buf, count, dtype, root, stream) \
    dls_comm_broadcast_at(comm, buf, count, dtype, root, stream, __FILE__, __LINE__)
dls_status dls_comm_broadcast_at(dls_comm *comm, void *buf, size_t count,
                                 int dtype, int root, cudaStream_t stream,
                                 const char *file, int line);

/* buf (count) to or from rank `peer`. Messages from one rank to another arrive in the
 * order in which their sends were called. A send is complete when the bytes have left
 * buf. */
#define dls_comm_send(comm, buf, count, dtype, peer, stream) \
    dls_comm_send_at(comm, buf, count, dtype, peer, stream, __FILE__, __LINE__)
dls_status dls_comm_send_at(dls_comm *comm, const void *buf, size_t count,
                            int dtype, int peer, cudaStream_t stream,
                            const char *file, int line);

#define dls_comm_recv(comm, buf, count, dtype, peer, stream) \
    dls_comm_recv_at(comm, buf, count, dtype, peer, stream, __FILE__, __LINE__)
dls_status dls_comm_recv_at(dls_comm *comm, void *buf, size_t count, int dtype,
                            int peer, cudaStream_t stream, const char *file, int line);

/* declare the host collectives */
/* all (size * bytes) := the contributions of ranks 0, 1, ...; blocks the host thread
 * while the device keeps running. bytes must agree on all ranks. The hosts' virtual
 * clocks leave it no earlier than the last one entered. */
#define dls_comm_all_gather_host(comm, mine, bytes, all) \
    dls_comm_all_gather_host_at(comm, mine, bytes, all, __FILE__, __LINE__)
dls_status dls_comm_all_gather_host_at(dls_comm *comm, const void *mine, size_t bytes,
                                       void *all, const char *file, int line);

/* Returns on no rank before it was called on every rank. It does not wait for streams. */
#define dls_comm_barrier(comm) dls_comm_barrier_at(comm, __FILE__, __LINE__)
dls_status dls_comm_barrier_at(dls_comm *comm, const char *file, int line);

#ifdef __cplusplus
}
#endif
#endif
