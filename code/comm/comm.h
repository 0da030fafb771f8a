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
/* Element types: those of tensors, 16-bit floats, integers and bytes. */
enum { DLS_COMM_I32 = 64, DLS_COMM_I64, DLS_COMM_U8, DLS_COMM_F16 };
size_t dls_comm_type_size(int dtype);      // bytes; 0 for an unknown type
const char *dls_comm_type_name(int dtype); // "f32", "i32" ...; "?"

typedef enum dls_reduce { DLS_SUM, DLS_AVG, DLS_MIN, DLS_MAX, DLS_PROD } dls_reduce;

typedef struct dls_comm_options {
    int ignore_environment; // 1: a world of one rank, whatever the environment says
    const char *algorithm;  // "all_reduce:ring,broadcast:chain"; NULL: $DLS_ALGORITHM
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
 * in every run of the same algorithm (choose.h). */
#define dls_comm_all_reduce(comm, buf, count, dtype, op, stream) \
    dls_comm_all_reduce_at(comm, buf, count, dtype, op, stream, __FILE__, __LINE__)
dls_status dls_comm_all_reduce_at(dls_comm *comm, void *buf, size_t count,
                                  int dtype, dls_reduce op, cudaStream_t stream,
                                  const char *file, int line);

/* buf (count) on every rank := root's. */
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

/* declare the other collectives */
/* out (count) := this rank's block of the reduction of in (size * count). In place:
 * out == in + rank * count; the other blocks of in are left alone. */
#define dls_comm_reduce_scatter(comm, in, out, count, dtype, op, stream)          \
    dls_comm_reduce_scatter_at(comm, in, out, count, dtype, op, stream, __FILE__, \
                               __LINE__)
dls_status dls_comm_reduce_scatter_at(dls_comm *comm, const void *in, void *out,
                                      size_t count, int dtype, dls_reduce op,
                                      cudaStream_t stream, const char *file, int line);

/* out (size * count) := in (count) of ranks 0, 1, ...
 * In place: in == out + rank * count. */
#define dls_comm_all_gather(comm, in, out, count, dtype, stream) \
    dls_comm_all_gather_at(comm, in, out, count, dtype, stream, __FILE__, __LINE__)
dls_status dls_comm_all_gather_at(dls_comm *comm, const void *in, void *out, size_t count,
                                  int dtype, cudaStream_t stream, const char *file,
                                  int line);

/* buf (count) on the root := the reduction over all ranks; on the others it is
 * overwritten with something that has no meaning. */
#define dls_comm_reduce(comm, buf, count, dtype, op, root, stream) \
    dls_comm_reduce_at(comm, buf, count, dtype, op, root, stream, __FILE__, __LINE__)
dls_status dls_comm_reduce_at(dls_comm *comm, void *buf, size_t count, int dtype,
                              dls_reduce op, int root, cudaStream_t stream,
                              const char *file, int line);

/* out (size * count) on the root := in (count) of ranks 0, 1, ... Elsewhere out is not
 * looked at. In place at the root: in == out + root * count. */
#define dls_comm_gather(comm, in, out, count, dtype, root, stream) \
    dls_comm_gather_at(comm, in, out, count, dtype, root, stream, __FILE__, __LINE__)
dls_status dls_comm_gather_at(dls_comm *comm, const void *in, void *out, size_t count,
                              int dtype, int root, cudaStream_t stream, const char *file,
                              int line);

/* out (count) := block `rank` of the root's in (size * count). Elsewhere in is not looked
 * at. In place at the root: out == in + root * count. */
#define dls_comm_scatter(comm, in, out, count, dtype, root, stream) \
    dls_comm_scatter_at(comm, in, out, count, dtype, root, stream, __FILE__, __LINE__)
dls_status dls_comm_scatter_at(dls_comm *comm, const void *in, void *out, size_t count,
                               int dtype, int root, cudaStream_t stream, const char *file,
                               int line);

/* Block s of out (size * count) := block `rank` of in (size * count) of rank s. Not in
 * place. */
#define dls_comm_all_to_all(comm, in, out, count, dtype, stream) \
    dls_comm_all_to_all_at(comm, in, out, count, dtype, stream, __FILE__, __LINE__)
dls_status dls_comm_all_to_all_at(dls_comm *comm, const void *in, void *out, size_t count,
                                  int dtype, cudaStream_t stream, const char *file,
                                  int line);

/* The same with a size of its own for each pair: in_counts[r] elements at in +
 * in_offsets[r] go to rank r, out_counts[s] from rank s arrive at out + out_offsets[s];
 * all arrays (size) are copied. in_counts[r] here must equal out_counts[this] there. */
#define dls_comm_all_to_all_v(comm, in, in_counts, in_offsets, out, out_counts, \
                              out_offsets, dtype, stream)                       \
    dls_comm_all_to_all_v_at(comm, in, in_counts, in_offsets, out, out_counts,  \
                             out_offsets, dtype, stream, __FILE__, __LINE__)
dls_status dls_comm_all_to_all_v_at(dls_comm *comm, const void *in,
                                    const size_t *in_counts, const size_t *in_offsets,
                                    void *out, const size_t *out_counts,
                                    const size_t *out_offsets, int dtype,
                                    cudaStream_t stream, const char *file, int line);

/* Sends and receives called between begin and end, all on one stream, become one
 * operation, enqueued by end: they make progress together, in any order, so that two
 * ranks may exchange large messages. Only sends and receives; groups do not nest. */
dls_status dls_comm_group_begin(dls_comm *comm);
dls_status dls_comm_group_end(dls_comm *comm);

/* A communicator of the ranks that give the same color, numbered by key, equal keys by
 * rank. Collective over comm. color < 0: *out = NULL. It has channels of its own: its
 * operations do not wait for comm's, nor comm's for them. DLS_ERR_STATE: too many. */
dls_status dls_comm_split(dls_comm *comm, int color, int key, dls_comm **out);
int dls_comm_world_rank(const dls_comm *comm, int rank); // a member's rank in the world

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
