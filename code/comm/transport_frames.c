/* code/comm/transport_frames.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Messages, pages and fates as frames.
 *
 *   frame: | kind, context, number | header, piece of a payload, page, or text |
 *
 * A sender puts at most BACKLOG bytes into the carrier, then waits; a receiver keeps what
 * comes before it is asked for, in the order in which it came. */
#include "comm/transport_frames.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/store_private.h"

/* define frames */
enum { MESSAGE = 1, PAYLOAD, PAGE, DONE, FAILED };
enum { PIECE = 128 << 10, BACKLOG = 1 << 20 }; // bytes

typedef struct frame {
    uint32_t kind, context;
    uint64_t number;        // of a page
    unsigned char data[];
} frame;

typedef struct item {       // of a queue
    struct item *next;
    uint32_t kind;
    size_t bytes, used;
    unsigned char data[];
} item;

typedef struct queue { item *first, **last; } queue;

typedef struct context {    // of one communicator
    queue *queues;          // (world), from each rank
    dls_local_board *boards;// (world, 2)
    uint64_t *posted;       // (world): pages that have come
} context;

typedef struct frames {
    dls_transport base;
    dls_carrier *carrier;
    context contexts[DLS_LOCAL_CONTEXTS];
    uint64_t news, seen;    // frames that came; when we were asked last
    int fate[DLS_LOCAL_MAX_RANKS], culprit; // culprit: -1: nobody
    char failure[DLS_LOCAL_TEXT];
    unsigned char out[sizeof(frame) + DLS_FRAME];
} frames;

/* deliver a frame */
static int open_context(frames *f, uint32_t number)
{
    size_t n = (size_t)f->base.world;
    context *c = number < DLS_LOCAL_CONTEXTS ? &f->contexts[number] : NULL;
    if (!c || c->queues)
        return c != NULL;
    queue *queues = calloc(n, sizeof *queues);
    c->boards = calloc(2 * n, sizeof *c->boards);
    c->posted = calloc(n, sizeof *c->posted);
    if (!queues || !c->boards || !c->posted)
        return 0;
    for (size_t r = 0; r < n; r++)
        queues[r].last = &queues[r].first;
    c->queues = queues;
    return 1;
}

static void note_failure(frames *f, int rank, const char *text, size_t bytes)
{
    f->fate[rank] = DLS_FATE_FAILED;
    if (f->culprit >= 0)
        return;
    f->culprit = rank;
    snprintf(f->failure, sizeof f->failure, "%.*s", (int)bytes, text);
}

static void append(frames *f, int from, const frame *m, const void *data, size_t bytes)
{
    queue *q = &f->contexts[m->context].queues[from];
    item *i = malloc(sizeof *i + bytes);
    if (!i) {
        note_failure(f, f->base.rank, "has no memory for a message", 64);
        return;
    }
    *i = (item){.kind = m->kind, .bytes = bytes};
    memcpy(i->data, data, bytes);
    *q->last = i;
    q->last = &i->next;
}

static void deliver(void *to, int from, const void *data, size_t size)
{
    frames *f = to;
    frame m = {.kind = 0};
    f->news++;
    if (size < sizeof m || from < 0 || from >= f->base.world)
        return;
    memcpy(&m, data, sizeof m);
    const char *rest = (const char *)data + sizeof m;
    size_t bytes = size - sizeof m;
    if (!open_context(f, m.context))
        return;
    context *c = &f->contexts[m.context];
    if (m.kind == MESSAGE || m.kind == PAYLOAD) {
        append(f, from, &m, rest, bytes);
    } else if (m.kind == PAGE && bytes <= sizeof(dls_local_board)) {
        memcpy(&c->boards[2 * from + (int)(m.number % 2)], rest, bytes);
        c->posted[from] = m.number + 1;
    } else if (m.kind == DONE && f->fate[from] == DLS_FATE_RUNNING) {
        f->fate[from] = DLS_FATE_DONE;
    } else if (m.kind == FAILED) {
        note_failure(f, from, rest, bytes);
    }
}

static int progress(frames *f, double seconds)
{
    int came = f->carrier->poll(f->carrier, seconds, deliver, f);
    for (int r = 0; r < f->base.world; r++)
        if (f->fate[r] == DLS_FATE_RUNNING && f->carrier->lost(f->carrier, r)) {
            note_failure(f, r, "is gone: its connection has ended", 64);
            f->news++;
            came++;
        }
    return came;
}

/* send messages as frames */
static frames *of(dls_transport *t) { return (frames *)t; }

static int push(frames *f, int to, uint32_t kind, int number_of_context, uint64_t number,
                const void *data, size_t bytes)
{
    frame *m = (frame *)f->out;
    m->kind = kind;
    m->context = (uint32_t)number_of_context;
    m->number = number;
    memcpy(m->data, data, bytes);
    return f->carrier->push(f->carrier, to, m, sizeof *m + bytes);
}

static int frames_send(dls_transport *t, dls_outgoing *m)
{
    frames *f = of(t);
    int moved = 0;
    if (!m->announced) {
        push(f, m->to, MESSAGE, m->context, 0, &m->header, sizeof m->header);
        m->announced = moved = 1;
    }
    while (m->moved < m->header.bytes) {
        size_t left = m->header.bytes - m->moved, n = left < PIECE ? left : PIECE;
        if (f->carrier->backlog(f->carrier, m->to) > BACKLOG)
            progress(f, 0);
        if (f->carrier->backlog(f->carrier, m->to) > BACKLOG)
            break;
        push(f, m->to, PAYLOAD, m->context, 0, m->from + m->moved, n);
        m->moved += n;
        moved = 1;
    }
    return moved;
}

/* receive messages from queues */
static item *front(frames *f, int number, int from, uint32_t kind)
{
    item *i = f->contexts[number].queues[from].first;
    if (!i)
        progress(f, 0);
    i = f->contexts[number].queues[from].first;
    return i && i->kind == kind ? i : NULL;
}

static void pop(frames *f, int number, int from)
{
    queue *q = &f->contexts[number].queues[from];
    item *i = q->first;
    q->first = i->next;
    if (!q->first)
        q->last = &q->first;
    free(i);
}

static int frames_hear(dls_transport *t, dls_incoming *m)
{
    item *i = front(of(t), m->context, m->from, MESSAGE);
    if (!i || i->bytes != sizeof m->header)
        return 0;
    memcpy(&m->header, i->data, sizeof m->header);
    pop(of(t), m->context, m->from);
    return 1;
}

static int frames_take(dls_transport *t, dls_incoming *m)
{
    int moved = 0;
    item *i;
    while (m->moved < m->header.bytes &&
           (i = front(of(t), m->context, m->from, PAYLOAD)) != NULL) {
        size_t left = m->header.bytes - m->moved;
        dls_incoming_use(m, i->data, i->bytes < left ? i->bytes : left);
        pop(of(t), m->context, m->from);
        moved = 1;
    }
    return moved;
}

/* exchange pages as frames */
static dls_status frames_open(dls_transport *t, int number)
{
    if (!open_context(of(t), (uint32_t)number))
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for communicator %d", number);
    return DLS_OK;
}

static void frames_post(dls_transport *t, int number, uint64_t page,
                        const dls_local_board *board)
{
    frames *f = of(t);
    context *c = &f->contexts[number];
    size_t left = board->bytes < DLS_LOCAL_BOARD ? board->bytes : DLS_LOCAL_BOARD;
    for (int r = 0; r < t->world; r++)
        if (r != t->rank)
            push(f, r, PAGE, number, page, board,
                 offsetof(dls_local_board, data) + left);
    c->boards[2 * t->rank + (int)(page % 2)] = *board;
    c->posted[t->rank] = page + 1;
    progress(f, 0);
}

static const dls_local_board *frames_look(dls_transport *t, int number, int rank,
                                          uint64_t page)
{
    context *c = &of(t)->contexts[number];
    if (c->posted[rank] <= page)
        progress(of(t), 0);
    return c->posted[rank] > page ? &c->boards[2 * rank + (int)(page % 2)] : NULL;
}

/* wait for frames */
static int frames_quiet(dls_transport *t)
{
    frames *f = of(t);
    progress(f, 0);
    int quiet = f->news == f->seen;
    f->seen = f->news;
    return quiet;
}

static int frames_sleep(dls_transport *t, double seconds)
{
    frames *f = of(t);
    for (int i = 0; i < 50; i++) { // an answer is often near, as of dls_local_linger
        if (progress(f, 0) > 0)
            return 0;
        sched_yield();
    }
    return progress(f, seconds) == 0;
}

/* tell fates by frames */
static int frames_fate(dls_transport *t, int rank) { return of(t)->fate[rank]; }

static int frames_failed(dls_transport *t) { return of(t)->culprit >= 0; }

static dls_status frames_check(dls_transport *t, const char *doing)
{
    const frames *f = of(t);
    if (f->culprit < 0)
        return DLS_OK;
    if (f->culprit == t->rank)
        return DLS_FAIL(DLS_ERR_COMM, "rank %d %s", t->rank, f->failure);
    return DLS_FAIL(DLS_ERR_COMM, "rank %d %s; this rank %s", f->culprit, f->failure,
                    doing);
}

static void tell_all(frames *f, uint32_t kind, const char *text)
{
    for (int r = 0; r < f->base.world; r++)
        if (r != f->base.rank)
            push(f, r, kind, 0, 0, text, strlen(text));
}

static int is_over(frames *f, int wait_for_all)
{
    for (int r = 0; r < f->base.world; r++)
        if (r != f->base.rank && !f->carrier->lost(f->carrier, r) &&
            (f->carrier->backlog(f->carrier, r) > 0 ||
             (wait_for_all && f->fate[r] == DLS_FATE_RUNNING)))
            return 0;
    return 1;
}

static void see_it_through(frames *f, int wait_for_all)
{
    double until = dls_store_clock() + 2;
    while (!is_over(f, wait_for_all) && dls_store_clock() < until)
        progress(f, 0.01);
}

static void frames_fail(dls_transport *t, const char *text)
{
    frames *f = of(t);
    note_failure(f, t->rank, text, strlen(text));
    tell_all(f, FAILED, text);
    see_it_through(f, 0);
}

static void frames_leave(dls_transport *t)
{
    frames *f = of(t);
    if (f->fate[t->rank] == DLS_FATE_RUNNING)
        f->fate[t->rank] = DLS_FATE_DONE;
    tell_all(f, DONE, "");
    see_it_through(f, 1);
}

static void frames_close(dls_transport *t)
{
    frames *f = of(t);
    for (int k = 0; k < DLS_LOCAL_CONTEXTS; k++) {
        context *c = &f->contexts[k];
        for (int r = 0; c->queues && r < t->world; r++)
            while (c->queues[r].first)
                pop(f, k, r);
        free(c->queues);
        free(c->boards);
        free(c->posted);
    }
    f->carrier->close(f->carrier);
    free(f);
}

/* open a transport of frames */
dls_status dls_transport_frames(const char *name, dls_carrier *carrier,
                                dls_transport **out)
{
    static dls_transport_calls calls = {
        .open = frames_open, .send = frames_send, .hear = frames_hear,
        .take = frames_take, .post = frames_post, .look = frames_look,
        .quiet = frames_quiet, .sleep = frames_sleep, .fate = frames_fate,
        .failed = frames_failed, .check = frames_check, .fail = frames_fail,
        .leave = frames_leave, .close = frames_close};
    frames *f = calloc(1, sizeof *f);
    if (!f) {
        carrier->close(carrier);
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a transport");
    }
    calls.name = name;
    f->base = (dls_transport){.calls = &calls, .rank = carrier->rank,
                              .world = carrier->world};
    f->carrier = carrier;
    f->culprit = -1;
    *out = &f->base;
    return DLS_OK;
}
