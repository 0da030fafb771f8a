/* code/parallel/pipeline/check_messages.c: from chapters/05-pipeline-evaluate-check.md. Edit the chapter, or edit here and run "make untangle". */
/* The checker: every message leaves after it was made, arrives before it is used, in the
 * same order at both ends; and no ranks wait for each other's sends and receives. */
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/check_internal.h"

/* name a message */
/* A message is the pass whose result it carries; its ends are two ranks. */
typedef struct message { size_t id; int from, to; } message;

static int is_message(const dls_action *a)
{
    return a->kind >= DLS_DO_SEND_F && a->kind <= DLS_DO_RECV_B;
}

static int is_send(const dls_action *a)
{
    return a->kind == DLS_DO_SEND_F || a->kind == DLS_DO_SEND_B;
}

/* find both ends of a message */
/* 0 when there is no such message: past an end of the model, or within a rank. */
static int name(const dls_schedule *s, const dls_action *a, message *out)
{
    int forward = a->kind == DLS_DO_SEND_F || a->kind == DLS_DO_RECV_F;
    int from = a->stage, to = a->stage;
    if (is_send(a))
        to += forward ? 1 : -1;
    else
        from += forward ? -1 : 1;
    if (from < 0 || to < 0 || from >= s->stages || to >= s->stages)
        return 0;
    out->id = dls_pass_index(s, forward ? DLS_PASS_F : DLS_PASS_I, from, a->microbatch);
    out->from = dls_schedule_rank(s, from, a->microbatch);
    out->to = dls_schedule_rank(s, to, a->microbatch);
    return out->from != out->to;
}

/* number the messages */
/* sent[id] and received[id]: 1 + the message's number among those between its two ranks,
 * as either end counts; 0: never. posted[id]: how many ends have come to it. */
typedef struct mail {
    uint32_t *sent, *received, *counts;  // counts [2][ranks]: sent to, received from
    uint8_t *posted, *queued, *waiting;  // queued, waiting [ranks]
    size_t *at;                          // [ranks]
    int *queue, head, count;             // [ranks]: a ring of those that may go on
} mail;

/* number a message */
static dls_status number_message(dls_check *c, int rank, size_t i, mail *m)
{
    const dls_action *a = &c->s->order[rank].list[i];
    message which;
    if (!name(c->s, a, &which))
        return dls_check_fail(c, rank, a, "has nobody at its other end");
    int sends = is_send(a);
    uint32_t *number = sends ? &m->sent[which.id] : &m->received[which.id];
    if (*number)
        return dls_check_fail(c, rank, a, "stands there twice");
    if (sends && (!c->place[which.id] || c->place[which.id] > i))
        return dls_check_fail(c, rank, a, "stands before what it sends");
    *number = ++m->counts[sends ? which.to : c->s->options.ranks + which.from];
    return DLS_OK;
}

/* look for what has not come */
static dls_status check_arrived(dls_check *c, int rank, const dls_action *a, mail *m)
{
    dls_action needs[2];
    char text[DLS_ACTION_TEXT];
    for (int k = dls_action_needs(c->s, a, needs); k-- > 0;) {
        int pass = needs[k].kind == DLS_DO_F ? DLS_PASS_F : DLS_PASS_I;
        size_t id = dls_pass_index(c->s, pass, needs[k].stage, needs[k].microbatch);
        if (dls_schedule_rank(c->s, needs[k].stage, needs[k].microbatch) == rank ||
            m->received[id])
            continue;
        dls_action lacks = {pass ? DLS_DO_RECV_B : DLS_DO_RECV_F, 0, a->stage,
                            a->microbatch};
        dls_action_text(&lacks, text);
        dls_check_fail(c, rank, a, "has no");
        return DLS_FAIL(DLS_ERR_INPUT, "%s %s before it", dls_status_message(), text);
    }
    return DLS_OK;
}

/* number the messages of a rank */
static dls_status number_rank(dls_check *c, int rank, mail *m)
{
    const dls_actions *order = &c->s->order[rank];
    memset(m->counts, 0, 2 * (size_t)c->s->options.ranks * sizeof *m->counts);
    for (size_t i = 0; i < order->n; i++) {
        if (is_message(&order->list[i]))
            DLS_TRY(number_message(c, rank, i, m));
        else
            DLS_TRY(check_arrived(c, rank, &order->list[i], m));
    }
    return DLS_OK;
}

/* refuse a message out of order */
/* Both ends of a message have it, and count it as the same one of their pair. */
static dls_status check_ends(dls_check *c, int rank, const dls_action *a, const mail *m)
{
    message which;
    name(c->s, a, &which);
    uint32_t sent = m->sent[which.id], received = m->received[which.id];
    if (!received)
        return dls_check_fail(c, rank, a, "is received by nobody");
    if (!sent)
        return dls_check_fail(c, rank, a, "is sent by nobody");
    if (sent == received)
        return DLS_OK;
    dls_check_fail(c, rank, a, is_send(a) ? "is message" : "comes as message");
    return DLS_FAIL(DLS_ERR_INPUT, "%s %u from rank %d to rank %d, but %s is its message "
                    "%u", dls_status_message(), is_send(a) ? sent : received, which.from,
                    which.to, is_send(a) ? "the receive" : "the send",
                    is_send(a) ? received : sent);
}

/* compare all ends */
static dls_status check_pairs(dls_check *c, const mail *m)
{
    for (int r = 0; r < c->s->options.ranks; r++)
        for (size_t i = 0; i < c->s->order[r].n; i++)
            if (is_message(&c->s->order[r].list[i]))
                DLS_TRY(check_ends(c, r, &c->s->order[r].list[i], m));
    return DLS_OK;
}

/* meet at the messages */
static void wake(mail *m, int rank, int ranks)
{
    if (m->queued[rank])
        return;
    m->queued[rank] = 1;
    m->queue[(m->head + m->count++) % ranks] = rank;
}

/* find the message that lacks */
/* The first message of the rank's unit whose other end has not come, or NULL. */
static const dls_action *lacks(const dls_schedule *s, const mail *m, int rank)
{
    const dls_actions *order = &s->order[rank];
    size_t at = m->at[rank], n = dls_actions_unit(order, at);
    message which;
    for (const dls_action *a = order->list + at; a < order->list + at + n; a++)
        if (is_message(a) && name(s, a, &which) && m->posted[which.id] < 2)
            return a;
    return NULL;
}

/* post a unit */
/* Comes to the messages of a unit: a rank whose end this completes may go on. */
static void post(const dls_schedule *s, mail *m, int rank)
{
    const dls_actions *order = &s->order[rank];
    size_t at = m->at[rank], n = dls_actions_unit(order, at);
    message which;
    m->waiting[rank] = 1;
    for (const dls_action *a = order->list + at; a < order->list + at + n; a++)
        if (is_message(a) && name(s, a, &which) && ++m->posted[which.id] == 2)
            wake(m, which.from == rank ? which.to : which.from, s->options.ranks);
}

/* let all ranks meet */
static void meet(const dls_schedule *s, mail *m)
{
    for (int r = 0; r < s->options.ranks; r++)
        wake(m, r, s->options.ranks);
    while (m->count) {
        int rank = m->queue[m->head];
        while (m->at[rank] < s->order[rank].n) {
            if (!m->waiting[rank])
                post(s, m, rank);
            if (lacks(s, m, rank))
                break;
            m->waiting[rank] = 0;
            m->at[rank] += dls_actions_unit(&s->order[rank], m->at[rank]);
        }
        m->head = (m->head + 1) % s->options.ranks;
        m->count--;
        m->queued[rank] = 0;
    }
}

/* tell a cycle of messages */
/* The rank at the other end of what `rank` waits for. */
static int peer(const dls_schedule *s, const mail *m, int rank)
{
    message which;
    name(s, lacks(s, m, rank), &which);
    return which.from == rank ? which.to : which.from;
}

enum { MOST_LINKS = 16 };

/* tell who stands where */
static dls_status tell_meeting(dls_check *c, const mail *m, int rank)
{
    char at[DLS_ACTION_TEXT], other[DLS_ACTION_TEXT];
    for (int i = 0; i < c->s->options.ranks; i++)
        rank = peer(c->s, m, rank);
    c->rank = rank;
    DLS_FAIL(DLS_ERR_INPUT, "sends and receives wait for each other:");
    for (int i = 0; i < MOST_LINKS && (!i || rank != c->rank); i++) {
        int next = peer(c->s, m, rank);
        dls_action_text(lacks(c->s, m, rank), at);
        dls_action_text(lacks(c->s, m, next), other);
        DLS_FAIL(DLS_ERR_INPUT, "%s%s rank %d is at %s until rank %d, which is at %s, "
                 "comes to its end of it", dls_status_message(), i ? ";" : "", rank, at,
                 next, other);
        rank = next;
    }
    return DLS_ERR_INPUT;
}

/* check the messages */
static int has_messages(const dls_schedule *s)
{
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++)
            if (is_message(&s->order[r].list[i]))
                return 1;
    return 0;
}

/* check numbers then meetings */
static dls_status check_mail(dls_check *c, mail *m)
{
    for (int r = 0; r < c->s->options.ranks; r++)
        DLS_TRY(number_rank(c, r, m));
    DLS_TRY(check_pairs(c, m));
    meet(c->s, m);
    for (int r = 0; r < c->s->options.ranks; r++)
        if (m->at[r] < c->s->order[r].n)
            return tell_meeting(c, m, r);
    return DLS_OK;
}

/* check all messages */
dls_status dls_check_messages(dls_check *c)
{
    size_t ranks = (size_t)c->s->options.ranks;
    size_t ids = dls_pass_index(c->s, DLS_PASS_W, 0, 0);
    if (!has_messages(c->s))
        return DLS_OK;
    mail m = {.sent = calloc(2 * ids + 2 * ranks, sizeof *m.sent),
              .posted = calloc(ids + 2 * ranks, 1), .at = calloc(ranks, sizeof *m.at),
              .queue = calloc(ranks, sizeof *m.queue)};
    dls_status status = DLS_OK;
    if (!m.sent || !m.posted || !m.at || !m.queue)
        status = DLS_FAIL(DLS_ERR_MEMORY, "no memory to check %zu messages", ids);
    if (status == DLS_OK) {
        m.received = m.sent + ids;
        m.counts = m.received + ids;
        m.queued = m.posted + ids;
        m.waiting = m.queued + ranks;
        status = check_mail(c, &m);
    }
    free(m.sent);
    free(m.posted);
    free(m.at);
    free(m.queue);
    return status;
}
