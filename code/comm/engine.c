/* code/comm/engine.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The engine: executes an algorithm's steps as an operation of a stream.
 *
 *   post      notes the virtual time at which the stream gets here
 *   exchange  ready(): moves messages through the transport, step by step, until all
 *                      are through
 *             run():   tells the clock when that was
 *
 * All waiting happens in the device's executor, which asks ready() again whenever this
 * rank's bell has rung. Nothing here blocks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/collectives.h"
#include "comm/comm_private.h"
#include "comm/imagined.h"
#include "comm/meeting.h"
#include "comm/shortcut.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* move the messages of a step */
static int is_sent(const dls_outgoing *m)
{
    return m->announced && m->moved == m->header.bytes;
}

static int is_received(const dls_incoming *m)
{
    return m->heard && m->moved == m->header.bytes;
}

/* 1: something moved; 0: nothing could; -1: failed. */
static int send_some(dls_comm_op *op)
{
    dls_transport *t = op->comm->all->transport;
    int moved = 0;
    for (int i = 0; i < op->step.sends; i++) {
        int behind = 0; // another message to the same rank goes first
        for (int j = 0; j < i && !behind; j++)
            behind = op->out[j].to == op->out[i].to && !is_sent(&op->out[j]);
        int rc = behind || is_sent(&op->out[i]) ? 0 : t->calls->send(t, &op->out[i]);
        if (rc < 0)
            return -1;
        moved |= rc;
    }
    return moved;
}

/* What the receive `i` of the step should hear. */
static dls_message expectation(const dls_comm_op *op, int i)
{
    const dls_move *move = &op->step.receive[i];
    dls_message expected = op->algorithm ? op->ours : op->in[i].expected;
    expected.step = op->messages_in[move->peer];
    expected.bytes = move->count * op->element;
    return expected;
}

/* 1: heard now; 0: not yet; -1: failed, or not what we expect. */
static int hear(dls_comm_op *op, int i)
{
    dls_transport *t = op->comm->all->transport;
    dls_incoming *m = &op->in[i];
    int rc = t->calls->hear(t, m);
    if (rc <= 0)
        return rc;
    dls_message expected = expectation(op, i);
    m->heard = 1;
    m->moved = op->shortcut ? m->header.bytes : 0;
    return dls_message_match(&expected, t->rank, &m->header, m->from) == DLS_OK ? 1 : -1;
}

static int receive_some(dls_comm_op *op)
{
    dls_transport *t = op->comm->all->transport;
    int moved = 0, combining = 0;
    for (int i = 0; i < op->step.receives; i++) {
        dls_incoming *m = &op->in[i];
        int behind = combining && m->own, rc = 0;
        for (int j = 0; j < i && !behind; j++)
            behind = op->in[j].from == m->from && !is_received(&op->in[j]);
        if (!behind && !m->heard && (rc = hear(op, i)) < 0)
            return -1;
        moved |= rc;
        if (m->heard && !is_received(m) && (rc = t->calls->take(t, m)) < 0)
            return -1;
        moved |= rc;
        combining |= m->own && !is_received(m);
    }
    return moved;
}

/* begin and end a step */
static unsigned char *at(const dls_comm_op *op, int place, size_t first)
{
    return op->place[place] + first * op->element;
}

static void prepare_sends(dls_comm_op *op)
{
    double departure[DLS_COMM_RANKS];
    const dls_comm *c = op->comm;
    op->free = dls_departures(c->links, c->world, c->rank, &op->step, op->element,
                              op->now, departure);
    for (int i = 0; i < op->step.sends; i++) {
        const dls_move *move = &op->step.send[i];
        dls_outgoing *m = &op->out[i];
        if (op->algorithm)
            *m = (dls_outgoing){.to = c->member[move->peer], .header = op->ours,
                                .from = at(op, move->place, move->first)};
        m->context = c->context;
        m->header.step = op->messages_out[move->peer];
        m->header.bytes = move->count * op->element;
        m->header.departure = departure[i];
        m->moved = op->shortcut ? m->header.bytes : 0; // only the header goes
    }
}

static void prepare_receives(dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    for (int i = 0; i < op->step.receives; i++) {
        const dls_move *move = &op->step.receive[i];
        dls_incoming *m = &op->in[i];
        if (op->algorithm)
            *m = (dls_incoming){.from = c->member[move->peer],
                                .into = at(op, move->place, move->first),
                                .dtype = op->ours.dtype, .element = op->element,
                                .reduce = op->reduce,
                                .own_last = move->how == DLS_OWN_LAST};
        if (move->how != DLS_STORE)
            m->own = at(op, move->own_place, move->own_first);
        m->context = c->context;
    }
}

static int begin_step(dls_comm_op *op)
{
    if (op->algorithm ? !op->algorithm->steps(&op->shape, op->k, &op->step) : op->k > 0)
        return 0;
    for (int i = 0; i < op->step.copies && !op->shortcut; i++) {
        const dls_copy *copy = &op->step.copy[i];
        unsigned char *to = at(op, copy->to, copy->to_first);
        const unsigned char *from = at(op, copy->from, copy->from_first);
        if (to != from && copy->count)
            memcpy(to, from, copy->count * op->element);
    }
    prepare_sends(op);
    prepare_receives(op);
    return op->open = 1;
}

static int step_is_over(const dls_comm_op *op)
{
    int open = 0;
    for (int i = 0; i < op->step.sends; i++)
        open |= !is_sent(&op->out[i]);
    for (int i = 0; i < op->step.receives; i++)
        open |= !is_received(&op->in[i]);
    return !open;
}

static void draw_arrow(const dls_comm_op *op, int out, int peer, uint64_t ticket,
                       unsigned message, double time)
{
    const dls_comm *c = op->comm;
    int me = c->member[c->rank], other = c->member[peer];
    if (!dls_trace_enabled() || op->shut) // shut: drawn in the first round
        return;
    uint64_t number = (ticket - 1 + (uint64_t)c->context * 1024) & 0x1ffff;
    dls_trace_message(out, out ? me : other, out ? other : me, number, message, time);
}

void dls_engine_draw(dls_comm_op *op, const dls_step *step, const double *departure,
                     const double *arrival)
{
    for (int i = 0; i < step->sends; i++) {
        int peer = step->send[i].peer;
        unsigned number = op->messages_out[peer]++;
        draw_arrow(op, 1, peer, op->out_ticket[peer], number, departure[i]);
    }
    for (int i = 0; i < step->receives; i++) {
        int peer = step->receive[i].peer;
        unsigned number = op->messages_in[peer]++;
        draw_arrow(op, 0, peer, op->in_ticket[peer], number, arrival[i]);
    }
}

static void count_step(dls_comm_op *op)
{
    dls_comm_statistics *stats = &op->comm->stats;
    uint64_t sent = 0, received = 0;
    for (int i = 0; i < op->step.sends; i++)
        sent += op->step.send[i].count * op->element;
    for (int i = 0; i < op->step.receives; i++)
        received += op->step.receive[i].count * op->element;
    stats->wire_bytes += sent;
    stats->steps += op->step.sends + op->step.receives > 0;
    op->bytes += sent + received;
}

static void divide_averages(dls_comm_op *op)
{
    for (int i = 0; i < op->step.receives; i++) {
        const dls_move *move = &op->step.receive[i];
        if (move->finish && op->reduce == DLS_AVG && !op->shortcut)
            dls_comm_divide(op->in[i].into, move->count, op->ours.dtype, op->comm->world);
    }
}

static void end_step(dls_comm_op *op)
{
    double left[DLS_COMM_RANKS], departure[DLS_COMM_RANKS], arrival[DLS_COMM_RANKS];
    const dls_comm *c = op->comm;
    for (int i = 0; i < op->step.sends; i++)
        left[i] = op->out[i].header.departure;
    for (int i = 0; i < op->step.receives; i++)
        departure[i] = op->in[i].header.departure;
    op->now = dls_arrivals(c->links, c->world, c->rank, &op->step, op->element, op->now,
                           departure, arrival);
    op->now = op->free > op->now ? op->free : op->now;
    dls_engine_draw(op, &op->step, left, arrival);
    if (!op->shut) // else they were counted in the first round
        count_step(op);
    divide_averages(op);
    dls_step_clear(&op->step);
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
        int sent = send_some(op), received = sent < 0 ? -1 : receive_some(op);
        if (received < 0)
            return -1;
        if (step_is_over(op))
            end_step(op);
        else if (!sent && !received)
            return 0;
    }
}

/* go on to the bytes */
/* The bytes of the shortcut, after the headers; 1, 0, -1 as of advance. */
static int move_at_once(dls_comm_op *op)
{
    int moved = dls_shortcut_move(op);
    if (moved != DLS_SHORTCUT_SHUT)
        return moved;
    dls_shortcut_drop(op->shortcut);
    op->shortcut = NULL;
    op->shut = 1;
    op->end = op->now;
    op->k = 0;
    return advance(op);
}

static int go_on(dls_comm_op *op)
{
    if (op->comm->all->local)
        op->comm->all->local->awaited = ~(uint64_t)0; // a meeting knows better
    int moved = op->meeting ? dls_meeting_move(op) : advance(op);
    if (moved > 0 && op->shortcut)
        moved = move_at_once(op);
    if (moved > 0 && op->shut)
        op->now = op->end;
    return moved;
}

/* find what an operation waits for */
int dls_engine_awaited(const dls_comm_op *op, int *receives)
{
    *receives = 1;
    if (op->meeting && op->absent >= 0)
        return op->comm->member[op->absent];
    if (op->shortcut && dls_shortcut_awaited(op->shortcut) >= 0)
        return op->comm->member[dls_shortcut_awaited(op->shortcut)];
    for (int i = 0; i < op->step.receives; i++)
        if (!is_received(&op->in[i]))
            return op->comm->member[op->step.receive[i].peer];
    *receives = 0;
    for (int i = 0; i < op->step.sends; i++)
        if (!is_sent(&op->out[i]))
            return op->comm->member[op->step.send[i].peer];
    return op->peer;
}

uint64_t dls_engine_bytes(const dls_comm_op *op)
{
    uint64_t bytes = op->bytes;
    for (int i = 0; i < op->step.sends; i++)
        bytes += op->out[i].moved;
    for (int i = 0; i < op->step.receives; i++)
        bytes += op->in[i].moved;
    return bytes;
}

void dls_engine_describe(const dls_comm_op *op, char *text, size_t size)
{
    char what[160];
    int receives;
    dls_message_describe(&op->ours, op->receives, what, sizeof what);
    snprintf(text, size, "waits in %s, step %d, for rank %d", what, op->k,
             dls_engine_awaited(op, &receives));
}

/* answer whether an operation is ready */
static int is_our_turn(const dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    for (int r = 0; r < c->world; r++)
        if ((op->out_ticket[r] && c->out[r].served + 1 != op->out_ticket[r]) ||
            (op->in_ticket[r] && c->in[r].served + 1 != op->in_ticket[r]))
            return 0;
    return 1;
}

static int look_for_the_lost(dls_comm_op *op)
{
    dls_transport *t = op->comm->all->transport;
    char doing[DLS_LOCAL_WAIT];
    int receives, peer = dls_engine_awaited(op, &receives);
    if (dls_meeting_is_elsewhere(op) != DLS_OK)
        return -1;
    int alone = peer >= 0 && t->calls->fate(t, peer) != DLS_FATE_RUNNING;
    if (!alone && !t->calls->failed(t))
        return 0;
    dls_engine_describe(op, doing, sizeof doing);
    if (t->calls->check(t, doing) != DLS_OK)
        return -1;
    int moved = go_on(op);
    if (moved == 0 && dls_engine_awaited(op, &receives) == peer) {
        DLS_FAIL(DLS_ERR_COMM, "rank %d has finished, but rank %d %s", peer, t->rank,
                 doing);
        return -1;
    }
    return moved;
}

static void finish(dls_comm_op *op)
{
    dls_comm *c = op->comm;
    for (int r = 0; r < c->world; r++) {
        if (op->out_ticket[r]) {
            c->out[r].served++;
            c->out[r].free_at = op->now;
        }
        c->in[r].served += op->in_ticket[r] > 0;
    }
    if (op->scratch >= 0)
        c->scratch[op->scratch].used--;
    op->scratch = -1;
    dls_shortcut_drop(op->shortcut);
    op->shortcut = NULL;
    dls_note_end(op);
    c->stats.operations++;
    c->stats.busy_seconds += op->now - op->start;
    op->done = 1;
}

static void settle_the_start(dls_comm_op *op)
{
    for (int r = 0; r < op->comm->world; r++)
        if (op->out_ticket[r] && op->comm->out[r].free_at > op->start)
            op->start = op->comm->out[r].free_at;
    op->now = op->start;
}

static int make_progress(dls_comm_op *op)
{
    if (op->done)
        return 1;
    if (!is_our_turn(op))
        return 0;
    if (op->k == 0 && !op->open && !op->shut && !op->shortcut && !op->meeting) {
        settle_the_start(op);
        dls_meeting_begin(op);
        op->shortcut = op->meeting ? NULL : dls_shortcut_find(op);
    }
    int moved = go_on(op);
    if (moved == 0)
        moved = look_for_the_lost(op);
    if (moved > 0)
        finish(op);
    else
        dls_note_progress(op);
    return moved >= 0 ? moved : dls_comm_give_up(op->comm);
}

static int exchange_ready(void *arg, double *earliest)
{
    dls_comm_op *op = arg;
    *earliest = 0; // the stream's own order is all that holds us back
    pthread_mutex_lock(&op->comm->all->lock);
    int moved = make_progress(op);
    pthread_mutex_unlock(&op->comm->all->lock);
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
    dls_engine_drop(op);
}

/* enqueue an operation */
dls_comm_op *dls_engine_new(dls_comm *comm)
{
    dls_comm_op *op = atomic_exchange(&comm->spare, NULL);
    if (!op && !(op = malloc(sizeof *op))) {
        DLS_FAIL(DLS_ERR_MEMORY, "no memory for a communication operation");
        return NULL;
    }
    memset(op, 0, offsetof(dls_comm_op, step));
    dls_step_clear(&op->step);
    op->comm = comm;
    op->scratch = op->peer = -1;
    return op;
}

void dls_engine_drop(dls_comm_op *op)
{
    if (!op)
        return;
    if (op->scratch >= 0)
        op->comm->scratch[op->scratch].used--;
    dls_shortcut_drop(op->shortcut);
    free(atomic_exchange(&op->comm->spare, op));
}

static void draw_tickets(dls_comm_op *op)
{
    dls_comm *c = op->comm;
    unsigned char out[DLS_COMM_RANKS] = {0}, in[DLS_COMM_RANKS] = {0};
    for (int i = 0; i < op->step.sends; i++)
        out[op->step.send[i].peer] = 1;
    for (int i = 0; i < op->step.receives; i++)
        in[op->step.receive[i].peer] = 1;
    for (int r = 0; r < c->world; r++) {
        if (r != c->rank && (op->algorithm || out[r]))
            op->out_ticket[r] = ++c->out[r].issued;
        if (r != c->rank && (op->algorithm || in[r]))
            op->in_ticket[r] = ++c->in[r].issued;
    }
}

dls_status dls_engine_enqueue(dls_comm_op *op, cudaStream_t stream, const char *file,
                              int line)
{
    if (!op->comm->all)
        return dls_imagined_enqueue(op, stream, file, line);
    op->references = 2;
    draw_tickets(op);
    dls_note_call(op);
    dls_gpu_op post = {.name = "post", .kind = DLS_GPU_HOST, .run = post_run,
                       .destroy = op_release, .file = file, .line = line};
    dls_gpu_op exchange = {.name = dls_message_name(&op->ours, op->receives),
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
