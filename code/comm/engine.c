/* code/comm/engine.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The engine: executes an algorithm's steps as an operation of a stream.
 *
 *   post      notes the virtual time at which the stream gets here
 *   exchange  ready(): moves bytes through the mailboxes, step by step, until all is done
 *             run():   tells the clock when that was
 *
 * All waiting happens in the device's executor, which asks ready() again whenever this
 * rank's bell has rung. Nothing here blocks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm_private.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* describe what an operation waits for */
static int awaited(const dls_comm_op *op);

void dls_engine_describe(const dls_comm_op *op, char *text, size_t size)
{
    char what[160];
    dls_message_describe(&op->ours, op->to < 0, what, sizeof what);
    snprintf(text, size, "waits in %s, step %d, for rank %d", what, op->k, awaited(op));
}

/* send what fits */
/* 1: something moved; 0: no room, or the step's sending is complete. */
static int announce(dls_comm_op *op, dls_mailbox *box)
{
    void *at;
    if (dls_mailbox_room(box, &at) < sizeof(dls_message))
        return 0;
    dls_message header = op->ours;
    header.step = op->messages_out;
    header.bytes = op->step.send_count * op->element;
    header.departure = op->now;
    memcpy(at, &header, sizeof header);
    dls_mailbox_publish(box, sizeof header);
    dls_local_ring(&op->comm->local, op->to);
    return op->announced = 1;
}

static int send_some(dls_comm_op *op)
{
    dls_mailbox *box = dls_local_box(&op->comm->local, op->comm->rank, op->to);
    const unsigned char *from = op->buffer + op->step.send_first * op->element;
    size_t total = op->step.send_count * op->element, n;
    int moved = 0;
    void *at;
    if (!op->announced && !(moved = announce(op, box)))
        return 0;
    /* copy pieces while there is room */
    while (op->sent < total && (n = dls_mailbox_room(box, &at)) > 0) {
        n = n < DLS_MAILBOX_PIECE ? n : DLS_MAILBOX_PIECE;
        n = n < total - op->sent ? n : total - op->sent;
        memcpy(at, from + op->sent, n);
        dls_mailbox_publish(box, n);
        dls_local_ring(&op->comm->local, op->to);
        op->sent += n;
        moved = 1;
    }
    return moved;
}

/* receive what is there */
/* 1: something moved; 0: nothing there, or all received; -1: not what we expect. */
static int hear(dls_comm_op *op, dls_mailbox *box)
{
    const void *at;
    if (dls_mailbox_waiting(box, &at) < sizeof(dls_message))
        return 0;
    memcpy(&op->theirs, at, sizeof op->theirs);
    dls_message expected = op->ours;
    expected.step = op->messages_in;
    expected.bytes = op->step.recv_count * op->element;
    if (dls_message_match(&expected, op->comm->rank, &op->theirs, op->from) != DLS_OK)
        return -1;
    dls_mailbox_release(box, sizeof op->theirs);
    dls_local_ring(&op->comm->local, op->from);
    return op->heard = 1;
}

static int receive_some(dls_comm_op *op)
{
    dls_mailbox *box = dls_local_box(&op->comm->local, op->from, op->comm->rank);
    unsigned char *into = op->buffer + op->step.recv_first * op->element;
    size_t total = op->step.recv_count * op->element, n;
    int moved = 0;
    const void *at;
    if (!op->heard && (moved = hear(op, box)) != 1)
        return moved;
    /* take pieces as they come */
    while (op->received < total && (n = dls_mailbox_waiting(box, &at)) > 0) {
        n = n < DLS_MAILBOX_PIECE ? n : DLS_MAILBOX_PIECE;
        n = n < total - op->received ? n : total - op->received;
        if (op->step.combine)
            dls_comm_combine(into + op->received, into + op->received, at, n / op->element,
                        op->ours.dtype, op->reduce);
        else
            memcpy(into + op->received, at, n);
        dls_mailbox_release(box, n);
        dls_local_ring(&op->comm->local, op->from);
        op->received += n;
        moved = 1;
    }
    return moved;
}

/* begin and end a step */
static int begin_step(dls_comm_op *op)
{
    if (!op->algorithm(&op->shape, op->k, &op->step))
        return 0;
    op->announced = !op->step.sends;
    op->heard = !op->step.receives;
    op->sent = op->received = 0;
    return op->open = 1;
}

static int step_is_over(const dls_comm_op *op)
{
    return op->announced && op->heard &&
           op->sent == op->step.send_count * op->element &&
           op->received == op->step.recv_count * op->element;
}

static void end_step(dls_comm_op *op)
{
    const dls_cluster *cluster = dls_gpu_cluster();
    double alpha = 0, beta = 0, free = op->now, arrival = op->now;
    /* find when wire and message are through */
    if (op->step.sends) {
        dls_cluster_link(cluster, op->comm->rank, op->to, &alpha, &beta);
        free += beta * (double)op->sent;
    }
    if (op->step.receives) {
        dls_cluster_link(cluster, op->from, op->comm->rank, &alpha, &beta);
        arrival = op->theirs.departure + (alpha + beta * (double)op->received);
    }
    /* leave the ends of arrows */
    if (op->step.sends)
        dls_trace_message(1, op->comm->rank, op->to, op->out_ticket, op->messages_out,
                          op->now);
    if (op->step.receives)
        dls_trace_message(0, op->from, op->comm->rank, op->in_ticket, op->messages_in,
                          arrival);
    if (op->step.finish && op->reduce == DLS_AVG)
        dls_comm_divide(op->buffer + op->step.recv_first * op->element,
                        op->step.recv_count,
                   op->ours.dtype, op->comm->world);
    op->now = free > arrival ? free : arrival;
    op->comm->stats.steps++;
    op->comm->stats.wire_bytes += op->sent;
    op->bytes += op->sent + op->received;
    op->sent = op->received = 0;
    op->messages_out += (unsigned)op->step.sends;
    op->messages_in += (unsigned)op->step.receives;
    op->k++;
    op->open = 0;
}

/* advance an operation */
/* 1: complete; 0: can not go on now; -1: failed. */
static int advance(dls_comm_op *op)
{
    for (;;) {
        if (!op->open && !begin_step(op))
            return 1;
        int sent = op->to >= 0 && op->step.sends ? send_some(op) : 0;
        int received = op->from >= 0 && op->step.receives ? receive_some(op) : 0;
        if (received < 0)
            return -1;
        if (step_is_over(op))
            end_step(op);
        else if (!sent && !received)
            return 0;
    }
}

/* answer whether an operation is ready */
static int is_our_turn(const dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    return (op->to < 0 || c->out[op->to].served == op->out_ticket) &&
           (op->from < 0 || c->in[op->from].served == op->in_ticket);
}

/* The peer that the step needs something from; -1: none. */
static int awaited(const dls_comm_op *op)
{
    if (op->from >= 0 && op->step.receives &&
        (!op->heard || op->received < op->step.recv_count * op->element))
        return op->from;
    return op->to;
}

int dls_engine_awaited(const dls_comm_op *op, int *receives)
{
    *receives = op->from >= 0 && op->step.receives &&
                (!op->heard || op->received < op->step.recv_count * op->element);
    return awaited(op);
}

static int look_for_the_lost(dls_comm_op *op)
{
    const dls_local *local = &op->comm->local;
    char doing[DLS_LOCAL_WAIT];
    int peer = awaited(op);
    int alone = peer >= 0 && dls_local_fate(local, peer) != DLS_FATE_RUNNING;
    if (!alone && !atomic_load(&local->head->culprit))
        return 0;
    dls_engine_describe(op, doing, sizeof doing);
    if (dls_local_check(local, doing) != DLS_OK)
        return -1;
    int moved = advance(op);
    if (moved == 0 && awaited(op) == peer) {
        DLS_FAIL(DLS_ERR_COMM, "rank %d has finished, but rank %d %s", peer,
                 op->comm->rank, doing);
        return -1;
    }
    return moved;
}

static void finish(dls_comm_op *op)
{
    dls_comm *c = op->comm;
    if (op->to >= 0) {
        c->out[op->to].served++;
        c->out[op->to].free_at = op->now;
    }
    if (op->from >= 0)
        c->in[op->from].served++;
    dls_note_end(op);
    c->stats.operations++;
    c->stats.busy_seconds += op->now - op->start;
    op->done = 1;
}

static int make_progress(dls_comm_op *op)
{
    if (op->done)
        return 1;
    if (!is_our_turn(op))
        return 0;
    /* settle the start */
    if (op->k == 0 && !op->open) { // the wire may be taken later than the stream
        double wire = op->to >= 0 ? op->comm->out[op->to].free_at : 0;
        op->now = op->start = wire > op->start ? wire : op->start;
    }
    int moved = advance(op);
    if (moved == 0)
        moved = look_for_the_lost(op);
    dls_note_progress(op);
    if (moved > 0)
        finish(op);
    return moved >= 0 ? moved : dls_comm_give_up(op->comm);
}

static int exchange_ready(void *arg, double *earliest)
{
    dls_comm_op *op = arg;
    *earliest = 0; // the stream's own order is all that holds us back
    pthread_mutex_lock(&op->comm->lock);
    int moved = make_progress(op);
    pthread_mutex_unlock(&op->comm->lock);
    return moved;
}

/* run post and exchange */
static int post_run(void *arg, double start, double *finish)
{
    dls_comm_op *op = arg;
    op->start = *finish = start;
    return 0;
}

static int exchange_run(void *arg, double start, double *finish)
{
    dls_comm_op *op = arg;
    *finish = op->now > start ? op->now : start;
    return 0;
}

const dls_comm_op *dls_engine_op(const dls_gpu_op *op, const void *arg)
{
    const dls_comm_op *ours = arg;
    return op->ready == exchange_ready && !ours->done ? ours : NULL;
}

static void exchange_describe(void *arg, char *text, size_t size)
{
    dls_engine_describe(arg, text, size);
}

static void op_release(void *arg)
{
    dls_comm_op *op = arg;
    if (--op->references > 0)
        return;
    free(op);
}

/* enqueue an operation */
dls_status dls_engine_enqueue(const dls_comm_op *given, cudaStream_t stream,
                              const char *file, int line)
{
    dls_comm_op *op = malloc(sizeof *op);
    if (!op)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a communication operation");
    *op = *given;
    op->references = 2;
    if (op->to >= 0)
        op->out_ticket = op->comm->out[op->to].issued++;
    if (op->from >= 0)
        op->in_ticket = op->comm->in[op->from].issued++;
    dls_note_call(op);
    /* describe both halves to the device */
    dls_gpu_op post = {.name = "post", .kind = DLS_GPU_HOST, .run = post_run,
                       .destroy = op_release, .file = file, .line = line};
    dls_gpu_op exchange = {.name = dls_message_name(&op->ours, op->to < 0),
                           .kind = DLS_GPU_COMMUNICATION, .ready = exchange_ready,
                           .run = exchange_run, .describe = exchange_describe,
                           .destroy = op_release, .file = file, .line = line,
                           .bytes = (double)(op->shape.count * op->element)};
    cudaError_t error = dls_gpu_enqueue(stream, &post, op);
    if (error != cudaSuccess) {
        op_release(op); // the half that was not enqueued
        DLS_CUDA(error);
    }
    DLS_CUDA(dls_gpu_enqueue(stream, &exchange, op));
    return DLS_OK;
}
