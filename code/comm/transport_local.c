/* code/comm/transport_local.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* The transport "local": messages through mailboxes in shared memory. */
#include "comm/transport_local.h"

#include <stdlib.h>
#include <string.h>

/* send through a mailbox */
typedef struct local_transport { dls_transport base; dls_local local; } local_transport;

static dls_local *memory_of(dls_transport *t)
{
    return &((local_transport *)t)->local;
}

static int announce(dls_local *local, dls_mailbox *box, dls_outgoing *m)
{
    void *at;
    if (dls_mailbox_room(box, &at) < sizeof m->header)
        return 0;
    memcpy(at, &m->header, sizeof m->header);
    dls_mailbox_publish(box, sizeof m->header);
    dls_local_ring(local, m->to);
    return m->announced = 1;
}

static int local_send(dls_transport *t, dls_outgoing *m)
{
    dls_local *local = memory_of(t);
    dls_mailbox *box = dls_local_box(local, m->context, t->rank, m->to);
    int moved = 0;
    size_t n;
    void *at;
    if (!m->announced && !(moved = announce(local, box, m)))
        return 0;
    while (m->moved < m->header.bytes && (n = dls_mailbox_room(box, &at)) > 0) {
        size_t left = m->header.bytes - m->moved;
        n = n < DLS_MAILBOX_PIECE ? n : DLS_MAILBOX_PIECE;
        n = n < left ? n : left;
        memcpy(at, m->from + m->moved, n);
        dls_mailbox_publish(box, n);
        dls_local_ring(local, m->to);
        m->moved += n;
        moved = 1;
    }
    return moved;
}

/* receive from a mailbox */
void dls_incoming_use(dls_incoming *m, const void *from, size_t n)
{
    unsigned char *into = m->into + m->moved;
    const unsigned char *own = m->own ? m->own + m->moved : NULL;
    if (!own)
        memcpy(into, from, n);
    else
        dls_comm_combine(into, m->own_last ? from : own, m->own_last ? own : from,
                         n / m->element, m->dtype, m->reduce);
    m->moved += n;
}

static int local_hear(dls_transport *t, dls_incoming *m)
{
    dls_local *local = memory_of(t);
    dls_mailbox *box = dls_local_box(local, m->context, m->from, t->rank);
    const void *at;
    if (dls_mailbox_waiting(box, &at) < sizeof m->header)
        return 0;
    memcpy(&m->header, at, sizeof m->header);
    if (dls_mailbox_release(box, sizeof m->header))
        dls_local_ring(local, m->from);
    return 1;
}

static int local_take(dls_transport *t, dls_incoming *m)
{
    dls_local *local = memory_of(t);
    dls_mailbox *box = dls_local_box(local, m->context, m->from, t->rank);
    int moved = 0;
    size_t n;
    const void *at;
    while (m->moved < m->header.bytes && (n = dls_mailbox_waiting(box, &at)) > 0) {
        size_t left = m->header.bytes - m->moved;
        n = n < DLS_MAILBOX_PIECE ? n : DLS_MAILBOX_PIECE;
        n = n < left ? n : left;
        dls_incoming_use(m, at, n);
        if (dls_mailbox_release(box, n))
            dls_local_ring(local, m->from);
        moved = 1;
    }
    return moved;
}

/* pass on to the shared memory */
static dls_status local_open(dls_transport *t, int context)
{
    return dls_local_open(memory_of(t), context);
}

static void local_post(dls_transport *t, int context, uint64_t page,
                       const dls_local_board *board)
{
    dls_local *local = memory_of(t);
    dls_local_post *mine = dls_local_posts(local, context, t->rank);
    mine->board[page % 2] = *board;
    atomic_store(&mine->posted, page + 1);
    dls_local_ring_all(local);
}

static const dls_local_board *local_look(dls_transport *t, int context, int rank,
                                         uint64_t page)
{
    dls_local_post *theirs = dls_local_posts(memory_of(t), context, rank);
    return atomic_load(&theirs->posted) > page ? &theirs->board[page % 2] : NULL;
}

static int local_quiet(dls_transport *t) { return dls_local_quiet(memory_of(t)); }

static int local_sleep(dls_transport *t, double seconds)
{
    return dls_local_sleep(memory_of(t), seconds);
}

static int local_fate(dls_transport *t, int rank)
{
    return dls_local_fate(memory_of(t), rank);
}

static int local_failed(dls_transport *t)
{
    return atomic_load(&memory_of(t)->head->culprit) != 0;
}

static dls_status local_check(dls_transport *t, const char *doing)
{
    return dls_local_check(memory_of(t), doing);
}

static void local_fail(dls_transport *t, const char *text)
{
    dls_local_fail(memory_of(t), t->rank, DLS_ERR_COMM, text, 0);
}

static void local_leave(dls_transport *t) { dls_local_done(memory_of(t), t->rank); }

static void local_close(dls_transport *t)
{
    dls_local_detach(memory_of(t));
    free(t);
}

/* open the local transport */
static const dls_transport_calls local_calls = {
    .name = "local", .open = local_open, .send = local_send, .hear = local_hear,
    .take = local_take, .post = local_post, .look = local_look, .quiet = local_quiet,
    .sleep = local_sleep, .fate = local_fate, .failed = local_failed,
    .check = local_check, .fail = local_fail, .leave = local_leave,
    .close = local_close};

dls_status dls_transport_local(int fd, int rank, int world, dls_transport **out)
{
    local_transport *t = calloc(1, sizeof *t);
    if (!t)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a transport");
    t->base = (dls_transport){.calls = &local_calls, .rank = rank, .world = world};
    dls_status status = dls_local_attach(fd, rank, world, &t->local);
    if (status != DLS_OK) {
        free(t);
        return status;
    }
    *out = &t->base;
    return DLS_OK;
}

dls_local *dls_transport_memory(dls_transport *t)
{
    return t && t->calls == &local_calls ? memory_of(t) : NULL;
}
