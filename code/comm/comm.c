/* code/comm/comm.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The communicator: who we are, and the collectives as calls of the engine. */
#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "comm/comm_private.h"
#include "vgpu/gpu.h"

enum { BROADCAST_BLOCK = 128 << 10 }; // bytes

static dls_comm *the_communicator;    // a process has one mailbox per peer, hence one

/* read who we are */
static dls_status read_number(const char *name, int least, int most, int fallback,
                              int *out)
{
    const char *text = getenv(name);
    char *end;
    *out = fallback;
    if (!text || !*text)
        return DLS_OK;
    long value = strtol(text, &end, 10);
    if (*end || value < least || value > most)
        return DLS_FAIL(DLS_ERR_INPUT, "%s=%s: expected a number from %d to %d", name,
                        text, least, most);
    *out = (int)value;
    return DLS_OK;
}

static dls_status join_world(dls_comm *comm)
{
    int fd;
    DLS_TRY(read_number("DLS_WORLD_SIZE", 1, DLS_LOCAL_MAX_RANKS, 1, &comm->world));
    DLS_TRY(read_number("DLS_RANK", 0, comm->world - 1, comm->world > 1 ? -1 : 0,
                        &comm->rank));
    if (comm->world == 1)
        return DLS_OK;
    DLS_TRY(read_number("DLS_ARENA_FD", 0, 1 << 20, -1, &fd));
    if (comm->rank < 0 || fd < 0)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "DLS_WORLD_SIZE=%d but %s is not set; start the ranks "
                        "with `dls run -n %d`", comm->world,
                        comm->rank < 0 ? "DLS_RANK" : "DLS_ARENA_FD", comm->world);
    return dls_local_attach(fd, comm->rank, comm->world, &comm->local);
}

/* sleep while the device is idle */
int dls_comm_give_up(dls_comm *comm)
{
    char text[DLS_LOCAL_TEXT];
    snprintf(text, sizeof text, "failed: %.1700s", dls_status_message());
    dls_local_fail(&comm->local, comm->rank, DLS_ERR_COMM, text, 0);
    return -DLS_ERR_COMM;
}

static int sleep_while_idle(void *arg)
{
    dls_note_see();
#ifndef DLS_BACKEND_cuda
    return dls_deadlock_sleep(arg);
#else
    dls_comm *comm = arg;
    if (dls_local_quiet(&comm->local))
        dls_local_sleep(&comm->local, 0.1);
    return 0;
#endif
}

static dls_status open_device(dls_comm *comm)
{
    DLS_CUDA(cudaStreamCreateWithFlags(&comm->stream, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(comm->stream, "host waits"));
    dls_gpu_set_idle(sleep_while_idle, comm);
    return DLS_OK;
}

/* create a communicator */
dls_status dls_comm_create(dls_comm **out, const dls_comm_options *options)
{
    dls_status status = DLS_OK;
    if (the_communicator)
        return DLS_FAIL(DLS_ERR_STATE, "this process has a communicator already");
    dls_comm *comm = calloc(1, sizeof *comm);
    if (!comm)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a communicator");
    comm->world = 1;
    pthread_mutex_init(&comm->lock, NULL);
    if (!options || !options->ignore_environment)
        DLS_TRY_GOTO(status, join_world(comm), fail);
    /* refuse a device that disagrees */
    if (comm->world > 1 && (dls_gpu_rank() != comm->rank ||
                            dls_gpu_world() != comm->world)) {
        status = DLS_FAIL(DLS_ERR_STATE,
                          "the device was initialised as rank %d of %d, the "
                          "communicator is rank %d of %d", dls_gpu_rank(),
                          dls_gpu_world(), comm->rank, comm->world);
        goto fail;
    }
    dls_log_set_rank(comm->rank, comm->world);
    if (comm->world > 1) {
        DLS_TRY_GOTO(status, dls_note_open(comm->rank, comm->world), fail);
        DLS_TRY_GOTO(status, open_device(comm), fail);
    }
    *out = the_communicator = comm;
    return DLS_OK;
fail:
    dls_note_close();
    dls_local_detach(&comm->local);
    free(comm);
    return status;
}

void dls_comm_destroy(dls_comm *comm)
{
    if (!comm)
        return;
    if (comm->world > 1) {
        dls_gpu_set_idle(NULL, NULL);
        cudaStreamDestroy(comm->stream);
        dls_note_close();
        dls_local_done(&comm->local, comm->rank);
        dls_local_detach(&comm->local);
    }
    the_communicator = NULL;
    free(comm);
}

/* answer simple questions */
int dls_comm_rank(const dls_comm *comm)
{
    return comm->rank;
}

int dls_comm_size(const dls_comm *comm)
{
    return comm->world;
}

dls_comm_statistics dls_comm_stats(const dls_comm *comm)
{
    return comm->stats;
}

/* prepare an operation */
static dls_status prepare(dls_comm_op *op, dls_comm *comm, dls_message_kind kind,
                          void *buf, size_t count, int dtype, const char *file, int line)
{
    if (dls_comm_type_size(dtype) == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "element type %d: expected f32, f64 or i32",
                        dtype);
    if (!buf && count)
        return DLS_FAIL(DLS_ERR_INPUT, "a buffer of %zu elements is NULL", count);
    *op = (dls_comm_op){.comm = comm, .buffer = buf, .element = dls_comm_type_size(dtype),
                        .to = -1, .from = -1};
    op->shape = (dls_shape){.rank = comm->rank, .world = comm->world, .count = count};
    op->ours = (dls_message){.magic = 0x6d736731, .kind = (uint8_t)kind,
                             .dtype = (uint8_t)dtype, .root = -1, .count = count};
    snprintf(op->ours.site, sizeof op->ours.site, "%s:%d", file, line);
    return DLS_OK;
}

/* enqueue a collective */
dls_status dls_comm_all_reduce_at(dls_comm *comm, void *buf, size_t count, int dtype,
                                  dls_reduce reduce, cudaStream_t stream,
                                  const char *file, int line)
{
    dls_comm_op op;
    if (comm->world == 1)
        return DLS_OK; // the sum of one is itself
    DLS_TRY(prepare(&op, comm, DLS_MESSAGE_ALL_REDUCE, buf, count, dtype, file, line));
    op.algorithm = dls_ring_all_reduce;
    op.reduce = reduce;
    op.ours.reduce = (uint8_t)reduce;
    op.ours.number = comm->collectives++;
    op.to = (comm->rank + 1) % comm->world;
    op.from = (comm->rank + comm->world - 1) % comm->world;
    return dls_engine_enqueue(&op, stream, file, line);
}

dls_status dls_comm_broadcast_at(dls_comm *comm, void *buf, size_t count, int dtype,
                                 int root, cudaStream_t stream, const char *file,
                                 int line)
{
    dls_comm_op op;
    if (root < 0 || root >= comm->world)
        return DLS_FAIL(DLS_ERR_INPUT, "broadcast from rank %d: there are %d ranks", root,
                        comm->world);
    if (comm->world == 1)
        return DLS_OK;
    DLS_TRY(prepare(&op, comm, DLS_MESSAGE_BROADCAST, buf, count, dtype, file, line));
    op.algorithm = dls_chain_broadcast;
    op.shape.root = root;
    op.shape.block = BROADCAST_BLOCK / op.element;
    op.ours.root = root;
    op.ours.number = comm->collectives++;
    int next = (comm->rank + 1) % comm->world;
    op.to = next == root ? -1 : next;
    op.from = comm->rank == root ? -1 : (comm->rank + comm->world - 1) % comm->world;
    return dls_engine_enqueue(&op, stream, file, line);
}

/* enqueue a message */
static dls_status message(dls_comm *comm, void *buf, size_t count, int dtype, int peer,
                          int sends, cudaStream_t stream, const char *file, int line)
{
    dls_comm_op op;
    if (peer < 0 || peer >= comm->world || peer == comm->rank)
        return DLS_FAIL(DLS_ERR_INPUT, "%s rank %d: expected another rank of 0 to %d",
                        sends ? "send to" : "recv from", peer, comm->world - 1);
    DLS_TRY(prepare(&op, comm, DLS_MESSAGE_SEND_RECV, buf, count, dtype, file, line));
    op.algorithm = sends ? dls_send_step : dls_recv_step;
    op.ours.number = sends ? comm->out[peer].messages++ : comm->in[peer].messages++;
    if (sends)
        op.to = peer;
    else
        op.from = peer;
    return dls_engine_enqueue(&op, stream, file, line);
}

dls_status dls_comm_send_at(dls_comm *comm, const void *buf, size_t count, int dtype,
                            int peer, cudaStream_t stream, const char *file, int line)
{
    return message(comm, (void *)buf, count, dtype, peer, 1, stream, file, line);
}

dls_status dls_comm_recv_at(dls_comm *comm, void *buf, size_t count, int dtype,
                            int peer, cudaStream_t stream, const char *file, int line)
{
    return message(comm, buf, count, dtype, peer, 0, stream, file, line);
}
