/* code/comm/meeting.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Cards in shared memory, and the algorithm played with all its ranks.
 *
 *   begin: header, start and data -> our card
 *   move:  all cards there? the first to see it compares the calls and plays: players
 *          exchange letters, step by step; their vectors and clocks go on the cards, and
 *          all bells ring
 *   move:  our card played? take home what is on it */
#include "comm/meeting.h"

#include <stdlib.h>
#include <string.h>

#include "comm/collectives.h"
#include "vgpu/trace.h"

/* define a meeting */
enum { RANKS = 16, CARD = DLS_LOCAL_CARD };

typedef struct letter {
    int next; // in its channel, or among the spare ones; -1
    double departure;
    _Alignas(16) unsigned char data[CARD];
} letter;

typedef struct player {
    int k, open, next, done; // step; 1: it is open; its next receive; no more steps
    double now, free;
    uint64_t sent, received, steps; // bytes; steps with messages
    double left[DLS_COMM_RANKS], departure[DLS_COMM_RANKS], arrival[DLS_COMM_RANKS];
    _Alignas(16) unsigned char vector[CARD], scratch[CARD];
    dls_step step;
} player;

typedef struct dls_meeting {
    letter *letters;
    size_t count;
    int spare;                                // letters not in use
    int first[RANKS][RANKS], last[RANKS][RANKS]; // from, to: the channels
    player players[RANKS];
} dls_meeting;

static dls_meeting *new_meeting(void)
{
    dls_meeting *m = calloc(1, sizeof *m);
    if (!m) {
        DLS_FAIL(DLS_ERR_MEMORY, "no memory for a small all-reduce");
        return NULL;
    }
    m->spare = -1;
    memset(m->first, 0xff, sizeof m->first); // -1
    return m;
}

void dls_meeting_drop(dls_meeting *m)
{
    if (m)
        free(m->letters);
    free(m);
}

/* show a card */
static dls_local_card *card_of(const dls_comm_op *op, int rank)
{
    const dls_comm *c = op->comm;
    return &dls_local_posts(c->all->local, c->context, c->member[rank])
                ->card[op->meeting % 2];
}

static int is_there(const dls_comm_op *op, int rank)
{
    return atomic_load(&card_of(op, rank)->meeting) == op->meeting;
}

/* The ranks of the world whose cards are not there, one bit each. */
static uint64_t who_is_absent(const dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    uint64_t absent = 0;
    for (int r = 0; r < c->world; r++)
        absent |= (uint64_t)!is_there(op, r) << c->member[r];
    return absent;
}

static int is_small(const dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    if (!op->algorithm || op->ours.kind != DLS_MESSAGE_ALL_REDUCE || !c->all->local ||
        c->world > RANKS || op->shape.count * op->element > CARD)
        return 0;
    dls_shape shape = op->shape;
    for (shape.rank = 0; op->algorithm->scratch && shape.rank < c->world; shape.rank++)
        if (op->algorithm->scratch(&shape) * op->element > CARD)
            return 0;
    return c->all->shortcuts;
}

void dls_meeting_begin(dls_comm_op *op)
{
    dls_comm *c = op->comm;
    if (!is_small(op))
        return;
    op->meeting = ++c->meetings;
    dls_local_card *card = card_of(op, c->rank);
    card->call = op->ours;
    card->call.departure = op->start;
    memcpy(card->data, op->place[DLS_OUT], op->shape.count * op->element);
    atomic_store(&card->meeting, op->meeting);
    c->all->local->awaited = who_is_absent(op);
    dls_local_make_way(c->all->local);
}

/* send a letter */
static unsigned char *at(const dls_comm_op *op, player *x, int place, size_t first)
{
    return (place == DLS_SCRATCH ? x->scratch : x->vector) + first * op->element;
}

/* The index of a letter that is free; -1: no memory. */
static int new_letter(dls_meeting *m)
{
    if (m->spare < 0) {
        size_t more = m->count ? 2 * m->count : 32;
        letter *grown = realloc(m->letters, more * sizeof *grown);
        if (!grown)
            return -1;
        m->letters = grown;
        for (; m->count < more; m->count++) {
            grown[m->count].next = m->spare;
            m->spare = (int)m->count;
        }
    }
    int index = m->spare;
    m->spare = m->letters[index].next;
    return index;
}

static int send_letter(const dls_comm_op *op, int rank, int i)
{
    dls_meeting *m = op->comm->meeting;
    player *x = &m->players[rank];
    const dls_move *move = &x->step.send[i];
    int index = new_letter(m), *first = &m->first[rank][move->peer];
    if (index < 0)
        return 0;
    letter *l = &m->letters[index];
    l->next = -1;
    l->departure = x->left[i];
    memcpy(l->data, at(op, x, move->place, move->first), move->count * op->element);
    if (*first < 0)
        *first = index;
    else
        m->letters[m->last[rank][move->peer]].next = index;
    m->last[rank][move->peer] = index;
    return 1;
}

/* take a letter */
/* 1: taken; 0: it has not been written yet. */
static int take_letter(const dls_comm_op *op, int rank)
{
    dls_meeting *m = op->comm->meeting;
    player *x = &m->players[rank];
    const dls_move *move = &x->step.receive[x->next];
    int *first = &m->first[move->peer][rank], index = *first;
    if (index < 0)
        return 0;
    letter *l = &m->letters[index];
    unsigned char *into = at(op, x, move->place, move->first);
    const unsigned char *own = at(op, x, move->own_place, move->own_first);
    int last = move->how == DLS_OWN_LAST;
    if (move->how == DLS_STORE)
        memcpy(into, l->data, move->count * op->element);
    else
        dls_comm_combine(into, last ? l->data : own, last ? own : l->data, move->count,
                         op->ours.dtype, op->reduce);
    x->departure[x->next++] = l->departure;
    *first = l->next;
    l->next = m->spare;
    m->spare = index;
    return 1;
}

/* open and close a players step */
/* 0: no memory. */
static int open_step(const dls_comm_op *op, int rank)
{
    const dls_comm *c = op->comm;
    player *x = &c->meeting->players[rank];
    dls_shape shape = op->shape;
    shape.rank = rank;
    x->next = 0;
    x->open = op->algorithm->steps(&shape, x->k, &x->step);
    x->done = !x->open;
    if (x->done)
        return 1;
    for (int i = 0; i < x->step.copies; i++) {
        const dls_copy *copy = &x->step.copy[i];
        memmove(at(op, x, copy->to, copy->to_first),
                at(op, x, copy->from, copy->from_first), copy->count * op->element);
    }
    x->free = dls_departures(c->links, c->world, rank, &x->step, op->element, x->now,
                             x->left);
    for (int i = 0; i < x->step.sends; i++)
        if (!send_letter(op, rank, i))
            return 0;
    return 1;
}

static void count_step(dls_comm_op *op, int rank)
{
    player *x = &op->comm->meeting->players[rank];
    for (int i = 0; i < x->step.sends; i++)
        x->sent += x->step.send[i].count * op->element;
    for (int i = 0; i < x->step.receives; i++)
        x->received += x->step.receive[i].count * op->element;
    x->steps += x->step.sends + x->step.receives > 0;
    if (rank == op->comm->rank && dls_trace_enabled())
        dls_engine_draw(op, &x->step, x->left, x->arrival);
}

static void close_step(dls_comm_op *op, int rank)
{
    const dls_comm *c = op->comm;
    player *x = &c->meeting->players[rank];
    x->now = dls_arrivals(c->links, c->world, rank, &x->step, op->element, x->now,
                          x->departure, x->arrival);
    x->now = x->free > x->now ? x->free : x->now;
    count_step(op, rank);
    for (int i = 0; i < x->step.receives && op->reduce == DLS_AVG; i++) {
        const dls_move *m = &x->step.receive[i];
        if (m->finish)
            dls_comm_divide(at(op, x, m->place, m->first), m->count, op->ours.dtype,
                            c->world);
    }
    x->k++;
    x->open = 0;
}

/* play a meeting */
/* 1: something happened; 0: waits, or is done; -1: no memory. */
static int play_one(dls_comm_op *op, int rank)
{
    player *x = &op->comm->meeting->players[rank];
    int happened = 0;
    while (!x->done) {
        if (!x->open && !open_step(op, rank))
            return -1;
        while (x->open && x->next < x->step.receives && take_letter(op, rank))
            happened = 1;
        if (x->done || x->next < x->step.receives)
            break;
        close_step(op, rank);
        happened = 1;
    }
    return happened;
}

static dls_status play(dls_comm_op *op)
{
    dls_comm *c = op->comm;
    int happened = 1, done = 0;
    if (!c->meeting && !(c->meeting = new_meeting()))
        return DLS_ERR_MEMORY;
    for (int r = 0; r < c->world; r++) {
        player *x = &c->meeting->players[r];
        x->k = x->open = x->done = 0;
        x->sent = x->received = x->steps = 0;
        x->now = card_of(op, r)->call.departure;
        memcpy(x->vector, card_of(op, r)->data, op->shape.count * op->element);
    }
    while (happened && done < c->world) {
        happened = done = 0;
        for (int r = 0; r < c->world; r++) {
            int rc = play_one(op, r);
            if (rc < 0)
                return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a small all-reduce");
            happened |= rc;
            done += c->meeting->players[r].done;
        }
    }
    return done == c->world ? DLS_OK
                            : DLS_FAIL(DLS_ERR_STATE, "the algorithm %s waits for "
                                       "itself", op->algorithm->name);
}

/* compare the calls */
/* DLS_OK: nothing speaks against a meeting with this rank, whose card is not there. */
static dls_status look_for_another_call(const dls_comm_op *op, int rank)
{
    const dls_comm *c = op->comm;
    int me = c->member[c->rank], them = c->member[rank];
    const void *head;
    dls_mailbox *box = dls_local_box(c->all->local, c->context, them, me);
    if (dls_mailbox_waiting(box, &head) < sizeof(dls_message) || is_there(op, rank))
        return DLS_OK;
    dls_message theirs = *(const dls_message *)head, ours = op->ours;
    ours.bytes = theirs.bytes; // the calls differ, before any message does
    ours.step = theirs.step;
    DLS_TRY(dls_message_match(&ours, me, &theirs, them));
    return DLS_FAIL(DLS_ERR_COMM, "rank %d sends messages for the all-reduce at %.79s, "
                    "and rank %d does not; is DLS_SHORTCUT the same on both?", them,
                    theirs.site, me);
}
dls_status dls_meeting_is_elsewhere(const dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    dls_local *local = c->all->local;
    uint64_t next = c->meetings + 1;
    const void *head;
    for (int i = 0; i < op->step.receives && local && !op->meeting; i++) {
        const dls_incoming *in = &op->in[i];
        if (in->heard)
            continue;
        dls_local_card *card =
            &dls_local_posts(local, c->context, in->from)->card[next % 2];
        dls_mailbox *box = dls_local_box(local, c->context, in->from, c->all->rank);
        if (atomic_load(&card->meeting) == next && !dls_mailbox_waiting(box, &head))
            DLS_TRY(dls_message_match(op->algorithm ? &op->ours : &in->expected,
                                      c->all->rank, &card->call, in->from));
    }
    return DLS_OK;
}

/* hold a meeting */
/* Fills in who is absent. DLS_OK: no call is another than ours. */
static dls_status look_around(dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    op->absent = -1;
    c->all->local->awaited = 0;
    for (int r = c->world - 1; r >= 0; r--)
        if (is_there(op, r)) {
            DLS_TRY(dls_message_match(&op->ours, c->member[c->rank],
                                      &card_of(op, r)->call, c->member[r]));
        } else {
            op->absent = r;
            c->all->local->awaited |= (uint64_t)1 << c->member[r];
            DLS_TRY(look_for_another_call(op, r));
        }
    return DLS_OK;
}

/* 1: this rank is the one that plays. */
static int is_ours_to_play(dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    _Atomic uint64_t *player = &card_of(op, 0)->player;
    uint64_t theirs = atomic_load(player), first = op->meeting * 64;
    if (theirs < first &&
        atomic_compare_exchange_strong(player, &theirs, first + (uint64_t)c->rank))
        return 1;
    op->absent = (int)(theirs % 64);
    c->all->local->awaited = (uint64_t)1 << c->member[op->absent];
    return 0;
}

static void hand_out(const dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    for (int r = 0; r < c->world; r++) {
        dls_local_card *card = card_of(op, r);
        const player *x = &c->meeting->players[r];
        card->end = x->now;
        card->sent = x->sent;
        card->received = x->received;
        card->steps = x->steps;
        memcpy(card->result, x->vector, op->shape.count * op->element);
        atomic_store(&card->played, op->meeting);
        if (r != c->rank)
            dls_local_ring(c->all->local, c->member[r]);
    }
}

static void take_home(dls_comm_op *op)
{
    const dls_local_card *card = card_of(op, op->comm->rank);
    dls_comm_statistics *stats = &op->comm->stats;
    memcpy(op->place[DLS_OUT], card->result, op->shape.count * op->element);
    op->now = card->end;
    op->bytes = card->sent + card->received;
    stats->wire_bytes += card->sent;
    stats->steps += card->steps;
}

int dls_meeting_move(dls_comm_op *op)
{
    const dls_local_card *mine = card_of(op, op->comm->rank);
    int ours = 0;
    if (atomic_load(&mine->played) != op->meeting) {
        if (look_around(op) != DLS_OK)
            return -1;
        if (op->absent >= 0 || !(ours = is_ours_to_play(op)))
            return 0;
        if (play(op) != DLS_OK)
            return -1;
        hand_out(op);
    }
    if (!ours && dls_trace_enabled() && play(op) != DLS_OK) // for the arrows
        return -1;
    take_home(op);
    return 1;
}
