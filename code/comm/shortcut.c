/* code/comm/shortcut.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* The acts of all ranks in one list, and their execution piece by piece.
 *
 *   plan:  play the algorithm of all n ranks, match sends with receives -> acts
 *   move:  for each piece of this rank's share of the elements: every act on it
 *
 * Tried: stores that bypass the cache. They were slower by a third, since the line that
 * is written has just been read. */
#include "comm/shortcut.h"

#include <stdlib.h>
#include <string.h>

#include "comm/collectives.h"
#include "comm/choose.h"
#include "comm/heap.h"

/* define a shortcut */
enum { PIECE = 16 << 10, LEAST = 32 << 10 }; // bytes

typedef struct act {
    uint8_t rank, from, place, from_place; // what `from` has there goes to `rank`'s place
    uint8_t how, own_place, finish;        // as in dls_move; a copy has rank == from
    size_t first, count;
} act;

struct dls_shortcut {
    act *acts;
    size_t count, room;
    int awaited;               // rank; -1: none
    int posted, moved;         // we have said where our buffer is; our share is done
    unsigned char *buffer[DLS_COMM_RANKS]; // of every rank, here
};

int dls_shortcut_awaited(const dls_shortcut *s) { return s->awaited; }

void dls_shortcut_drop(dls_shortcut *s)
{
    if (s)
        free(s->acts);
    free(s);
}

/* note an act */
typedef struct note {        // of a message under way
    int next;                // of the same channel; -1
    int place;
    size_t first, count, at; // acts so far, when it was sent
} note;

typedef struct player { int k, open, done, next; dls_step step; } player;

typedef struct play {
    const dls_comm_op *op;
    dls_shortcut *s;
    player *players;         // (world)
    int *head, *tail;        // (world * world): of the channels' queues; -1
    note *notes;
    size_t count, room;
} play;

/* More room for one element of `size`; 0: no memory. */
static int grow(void **array, size_t *room, size_t count, size_t size)
{
    if (count < *room)
        return 1;
    size_t more = *room ? 2 * *room : 256;
    void *grown = realloc(*array, more * size);
    if (!grown)
        return 0;
    *array = grown;
    *room = more;
    return 1;
}

static int add_act(dls_shortcut *s, act a)
{
    if (!grow((void **)&s->acts, &s->room, s->count, sizeof *s->acts))
        return 0;
    s->acts[s->count++] = a;
    return 1;
}

/* match a receive */
static int is_overwritten(const dls_shortcut *s, const note *n, int from)
{
    for (size_t i = n->at; i < s->count; i++) {
        const act *a = &s->acts[i];
        if (a->rank == from && a->place == n->place && n->first < a->first + a->count &&
            a->first < n->first + n->count)
            return 1;
    }
    return 0;
}

/* 1: received; 0: nothing has been sent yet; -1: no shortcut. */
static int receive(play *p, int rank, const dls_move *m)
{
    int channel = m->peer * p->op->comm->world + rank;
    if (p->head[channel] < 0)
        return 0;
    const note *n = &p->notes[p->head[channel]];
    p->head[channel] = n->next;
    if (n->first != m->first || n->count != m->count ||
        (m->how != DLS_STORE && m->own_first != m->first) ||
        is_overwritten(p->s, n, m->peer))
        return -1;
    act a = {.rank = (uint8_t)rank, .from = (uint8_t)m->peer, .place = m->place,
             .from_place = (uint8_t)n->place, .how = m->how, .own_place = m->own_place,
             .finish = m->finish, .first = m->first, .count = m->count};
    return a.count == 0 || add_act(p->s, a) ? 1 : -1;
}

/* play the ranks of a shortcut */
static int send_note(play *p, int rank, const dls_move *m)
{
    int channel = rank * p->op->comm->world + m->peer, index = (int)p->count;
    if (!grow((void **)&p->notes, &p->room, p->count, sizeof *p->notes))
        return 0;
    p->notes[p->count++] = (note){.next = -1, .place = m->place, .first = m->first,
                                  .count = m->count, .at = p->s->count};
    if (p->head[channel] < 0)
        p->head[channel] = index;
    else
        p->notes[p->tail[channel]].next = index;
    p->tail[channel] = index;
    return 1;
}

static int begin(play *p, int rank)
{
    player *x = &p->players[rank];
    dls_shape shape = p->op->shape;
    shape.rank = rank;
    x->open = p->op->algorithm->steps(&shape, x->k, &x->step);
    x->done = !x->open;
    x->next = 0;
    for (int i = 0; x->open && i < x->step.copies; i++) {
        const dls_copy *c = &x->step.copy[i];
        if (c->to_first != c->from_first ||
            !add_act(p->s, (act){.rank = (uint8_t)rank, .from = (uint8_t)rank,
                                 .place = c->to, .from_place = c->from,
                                 .first = c->to_first, .count = c->count}))
            return 0;
    }
    for (int i = 0; x->open && i < x->step.sends; i++)
        if (!send_note(p, rank, &x->step.send[i]))
            return 0;
    return 1;
}

/* 1: something happened; 0: waits; -1: no shortcut. */
static int play_one(play *p, int rank)
{
    player *x = &p->players[rank];
    int got = 1, happened = 0;
    if (x->done)
        return 0;
    if (!x->open && !begin(p, rank))
        return -1;
    while (x->open && x->next < x->step.receives && got > 0) {
        got = receive(p, rank, &x->step.receive[x->next]);
        x->next += got > 0;
        happened |= got > 0;
    }
    if (got < 0)
        return -1;
    if (x->open && x->next == x->step.receives) {
        x->open = 0;
        x->k++;
        happened = 1;
    }
    return happened || x->done;
}

static int play_all(play *p)
{
    int n = p->op->comm->world, happened = 1, done = 0;
    while (happened) {
        happened = done = 0;
        for (int r = 0; r < n; r++) {
            int rc = play_one(p, r);
            if (rc < 0)
                return 0;
            happened |= rc;
            done += p->players[r].done;
        }
    }
    return done == n;
}

/* find a shortcut */
static int is_long_enough(const dls_comm_op *op)
{
    if (!op->algorithm || op->ours.kind != DLS_MESSAGE_ALL_REDUCE ||
        !op->comm->all->local || op->shape.count * op->element < LEAST)
        return 0;
    return dls_heap_is_used() && op->comm->all->shortcuts;
}

dls_shortcut *dls_shortcut_find(const dls_comm_op *op)
{
    int n = op->comm->world, found = 0;
    if (!is_long_enough(op))
        return NULL;
    play p = {.op = op, .s = calloc(1, sizeof *p.s)};
    p.players = calloc((size_t)n, sizeof *p.players);
    p.head = malloc(2 * (size_t)(n * n) * sizeof *p.head);
    if (p.s && p.players && p.head) {
        p.s->awaited = -1;
        p.tail = p.head + n * n;
        memset(p.head, 0xff, (size_t)(n * n) * sizeof *p.head); // -1
        found = play_all(&p);
    }
    free(p.players);
    free(p.head);
    free(p.notes);
    if (found)
        return p.s;
    dls_shortcut_drop(p.s);
    return NULL;
}

/* carry out an act */
typedef struct piece {
    const dls_comm_op *op;
    unsigned char *scratch;  // PIECE bytes for each rank
    size_t first, count;
} piece;

static unsigned char *at(const piece *p, int rank, int place, size_t first)
{
    size_t element = p->op->element;
    if (place == DLS_SCRATCH)
        return p->scratch + (size_t)rank * PIECE + (first - p->first) * element;
    return p->op->shortcut->buffer[rank] + first * element;
}

static void carry_out(const piece *p, const act *a)
{
    size_t first = a->first > p->first ? a->first : p->first;
    size_t end = a->first + a->count, limit = p->first + p->count;
    end = end < limit ? end : limit;
    if (first >= end)
        return;
    size_t n = end - first;
    unsigned char *into = at(p, a->rank, a->place, first);
    const unsigned char *from = at(p, a->from, a->from_place, first);
    if (a->how == DLS_STORE) {
        if (into != from)
            memcpy(into, from, n * p->op->element);
    } else {
        const unsigned char *own = at(p, a->rank, a->own_place, first);
        int last = a->how == DLS_OWN_LAST;
        dls_comm_combine(into, last ? from : own, last ? own : from, n,
                         p->op->ours.dtype, p->op->reduce);
    }
    if (a->finish && p->op->reduce == DLS_AVG)
        dls_comm_divide(into, n, p->op->ours.dtype, p->op->comm->world);
}

/* work off a share */
static void work_off(const dls_comm_op *op, unsigned char *scratch)
{
    const dls_shortcut *s = op->shortcut;
    size_t first, count, each = PIECE / op->element;
    dls_part(op->shape.count, op->comm->world, op->comm->rank, &first, &count);
    for (size_t done = 0; done < count; done += each) {
        piece p = {.op = op, .scratch = scratch, .first = first + done,
                   .count = count - done < each ? count - done : each};
        for (size_t i = 0; i < s->count; i++)
            carry_out(&p, &s->acts[i]);
    }
}

/* meet before and after */
static dls_local_post *post_of(const dls_comm_op *op, int rank)
{
    return dls_local_posts(op->comm->all->local, op->comm->context,
                           op->comm->member[rank]);
}

static void ring_members(const dls_comm_op *op)
{
    for (int r = 0; r < op->comm->world; r++)
        if (r != op->comm->rank)
            dls_local_ring(op->comm->all->local, op->comm->member[r]);
}

/* 1: everybody's counter (ready or done) has come to this collective. */
static int all_have(const dls_comm_op *op, int done)
{
    for (int r = 0; r < op->comm->world; r++) {
        dls_local_post *post = post_of(op, r);
        op->shortcut->awaited = r;
        if (atomic_load(done ? &post->done : &post->ready) <= op->ours.number)
            return 0;
    }
    op->shortcut->awaited = -1;
    return 1;
}

static void say_where(const dls_comm_op *op)
{
    dls_local_post *mine = post_of(op, op->comm->rank);
    uint64_t offset;
    size_t bytes = op->shape.count * op->element;
    int shared = dls_heap_find(op->place[DLS_OUT], bytes, &offset);
    mine->buffer = shared ? offset : DLS_PRIVATE;
    atomic_store(&mine->ready, op->ours.number + 1);
    ring_members(op);
}

/* 1: all buffers are here; 0: one of them is private; -1: failed. */
static int see_buffers(dls_comm_op *op)
{
    for (int r = 0; r < op->comm->world; r++)
        if (post_of(op, r)->buffer == DLS_PRIVATE)
            return 0;
    for (int r = 0; r < op->comm->world; r++) {
        op->shortcut->buffer[r] = dls_heap_at(op->comm->all->local, op->comm->member[r],
                                              post_of(op, r)->buffer);
        if (!op->shortcut->buffer[r]) {
            DLS_FAIL(DLS_ERR_MEMORY, "rank %d cannot map the buffers of rank %d; is "
                     "there a limit on its address space?", op->comm->all->rank, r);
            return -1;
        }
    }
    return 1;
}

static int do_share(dls_comm_op *op)
{
    unsigned char *scratch = malloc((size_t)op->comm->world * PIECE);
    if (!scratch) {
        DLS_FAIL(DLS_ERR_MEMORY, "no memory for an all-reduce");
        return -1;
    }
    work_off(op, scratch);
    free(scratch);
    atomic_store(&post_of(op, op->comm->rank)->done, op->ours.number + 1);
    ring_members(op);
    return op->shortcut->moved = 1;
}

int dls_shortcut_move(dls_comm_op *op)
{
    dls_shortcut *s = op->shortcut;
    int rc;
    if (!s->posted)
        say_where(op);
    s->posted = 1;
    if (!s->moved && !all_have(op, 0))
        return 0;
    if (!s->moved && (rc = see_buffers(op)) <= 0)
        return rc < 0 ? -1 : DLS_SHORTCUT_SHUT;
    if (!s->moved && do_share(op) < 0)
        return -1;
    return all_have(op, 1);
}
