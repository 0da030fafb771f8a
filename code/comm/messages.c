/* code/comm/messages.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Sends, receives, and groups of them: operations whose only step is given. */
#include <stdio.h>

#include "comm/comm_private.h"

/* add a message to an operation */
typedef struct note {
    void *buf;
    size_t count;
    int dtype, peer, sends;
    const char *file;
    int line;
} note;

static dls_status check(const dls_comm *comm, const note *n)
{
    if (n->peer < 0 || n->peer >= comm->world || n->peer == comm->rank)
        return DLS_FAIL(DLS_ERR_INPUT, "%s rank %d: expected another rank of 0 to %d",
                        n->sends ? "send to" : "recv from", n->peer, comm->world - 1);
    if (dls_comm_type_size(n->dtype) == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "element type %d: expected f32, f64, bf16, f16, "
                        "i32, i64 or u8", n->dtype);
    if (!n->buf && n->count)
        return DLS_FAIL(DLS_ERR_INPUT, "a buffer of %zu elements is NULL", n->count);
    return DLS_OK;
}

static dls_status add(dls_comm_op *op, const note *n)
{
    dls_comm *comm = op->comm;
    size_t bytes = n->count * dls_comm_type_size(n->dtype);
    int *used = n->sends ? &op->step.sends : &op->step.receives;
    uint64_t *messages = n->sends ? &comm->out[n->peer].messages
                                  : &comm->in[n->peer].messages;
    dls_message header = {.magic = 0x6d736731, .kind = DLS_MESSAGE_SEND_RECV,
                          .dtype = (uint8_t)n->dtype, .root = -1, .count = n->count,
                          .number = *messages};
    if (*used == DLS_COMM_RANKS)
        return DLS_FAIL(DLS_ERR_STATE, "a group has at most %d sends and %d receives",
                        DLS_COMM_RANKS, DLS_COMM_RANKS);
    dls_message_site(header.site, sizeof header.site, n->file, n->line);
    ++*messages;
    /* describe one message */
    if (n->sends) {
        op->out[*used] = (dls_outgoing){.to = comm->member[n->peer], .header = header,
                                        .from = n->buf};
        dls_step_send(&op->step, n->peer, DLS_IN, 0, bytes);
    } else {
        op->in[*used] = (dls_incoming){.from = comm->member[n->peer], .into = n->buf,
                                       .expected = header};
        dls_step_receive(&op->step, n->peer, DLS_OUT, 0, bytes);
    }
    if (op->step.sends + op->step.receives > 1)
        return DLS_OK;
    op->ours = header; // the first speaks for the group
    op->peer = comm->member[n->peer];
    op->receives = !n->sends;
    return DLS_OK;
}

/* call send and receive */
static dls_status message(dls_comm *comm, const note *n, cudaStream_t stream)
{
    DLS_TRY(check(comm, n));
    if (comm->group && comm->group->step.sends + comm->group->step.receives == 0)
        comm->group_stream = stream;
    if (comm->group && comm->group_stream != stream)
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: the messages of a group are on one stream",
                        n->file, n->line);
    if (comm->group)
        return add(comm->group, n);
    dls_comm_op *op = dls_engine_new(comm);
    if (!op)
        return DLS_ERR_MEMORY;
    op->element = 1;
    op->shape.count = n->count * dls_comm_type_size(n->dtype);
    dls_status status = add(op, n);
    return status == DLS_OK ? dls_engine_enqueue(op, stream, n->file, n->line) : status;
}

dls_status dls_comm_send_at(dls_comm *comm, const void *buf, size_t count, int dtype,
                            int peer, cudaStream_t stream, const char *file, int line)
{
    note n = {(void *)buf, count, dtype, peer, 1, file, line};
    return message(comm, &n, stream);
}

dls_status dls_comm_recv_at(dls_comm *comm, void *buf, size_t count, int dtype,
                            int peer, cudaStream_t stream, const char *file, int line)
{
    note n = {buf, count, dtype, peer, 0, file, line};
    return message(comm, &n, stream);
}

/* group messages */
dls_status dls_comm_group_begin(dls_comm *comm)
{
    if (comm->group)
        return DLS_FAIL(DLS_ERR_STATE, "a group of messages inside another");
    comm->group = dls_engine_new(comm);
    if (!comm->group)
        return DLS_ERR_MEMORY;
    comm->group->element = 1;
    return DLS_OK;
}

dls_status dls_comm_group_end(dls_comm *comm)
{
    dls_comm_op *op = comm->group;
    if (!op)
        return DLS_FAIL(DLS_ERR_STATE, "the end of a group that was not begun");
    comm->group = NULL;
    if (op->step.sends + op->step.receives == 0) {
        dls_engine_drop(op);
        return DLS_OK;
    }
    for (int i = 0; i < op->step.sends; i++)
        op->shape.count += op->step.send[i].count;
    return dls_engine_enqueue(op, comm->group_stream, __FILE__, __LINE__);
}
