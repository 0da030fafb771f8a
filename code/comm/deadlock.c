/* code/comm/deadlock.c: from chapters/04-data-parallelism-deadlock.md. Edit the chapter, or edit here and run "make untangle". */
/* Finding out that ranks wait for each other, and in which circle.
 *
 *   rank 0: host -> stream "main" -> (event) stream "comm" -> what rank 1 sends
 *   rank 1:                         host <------------------------+
 *
 * A rank that goes to sleep publishes what its host and its streams wait for. Every node
 * of this graph has one successor. A circle of nodes that all sleep can not end.
 * Tried and dropped: a time limit. It was too long for mistakes and too short for
 * checkpoints. */
#ifndef DLS_BACKEND_cuda // a real device may have kernels under way that we do not see
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/log.h"
#include "comm/comm_private.h"
#include "comm/flight.h"
#include "vgpu/waits.h"

static const uint64_t BLOCKED = (uint64_t)1 << 32;
static int is_hopeless(const dls_world *all);

/* publish what we wait for */
typedef struct publication { dls_world *all; dls_local_waits *waits; } publication;

static int node_of(int stream)
{
    return stream >= 0 && stream + 1 < DLS_LOCAL_WAITS ? stream + 1 : 0;
}

static void note_turns(void *context, const dls_gpu_queued *q)
{
    publication *p = context;
    const dls_comm_op *op = dls_engine_op(q->op, q->arg);
    const dls_comm *c = op ? op->comm : NULL;
    uint8_t node = (uint8_t)node_of(q->stream);
    for (int r = 0; op && r < c->world; r++) {
        if (op->out_ticket[r] == c->out[r].served + 1)
            p->waits->sends[c->context][c->member[r]] = node;
        if (op->in_ticket[r] == c->in[r].served + 1)
            p->waits->receives[c->context][c->member[r]] = node;
    }
}

/* The node whose turn it is in a channel where it is not the operation's; -1: none. */
static int node_before(const publication *p, const dls_comm_op *op)
{
    const dls_comm *c = op->comm;
    for (int r = 0; r < c->world; r++)
        if (op->out_ticket[r] && op->out_ticket[r] != c->out[r].served + 1)
            return p->waits->sends[c->context][c->member[r]];
    for (int r = 0; r < c->world; r++)
        if (op->in_ticket[r] && op->in_ticket[r] != c->in[r].served + 1)
            return p->waits->receives[c->context][c->member[r]];
    return -1;
}

static void point_exchange(const publication *p, const dls_comm_op *op,
                           dls_local_wait *w)
{
    int receives, before = node_before(p, op);
    dls_message_describe(&op->ours, op->receives, w->what, sizeof w->what);
    w->on = DLS_ON_NODE;
    w->node = before;
    if (before >= 0)
        return;
    w->context = op->comm->context;
    w->rank = dls_engine_awaited(op, &receives);
    w->on = receives ? DLS_ON_SEND : DLS_ON_ROOM;
}

static void describe_head(void *context, const dls_gpu_queued *q)
{
    publication *p = context;
    const dls_comm_op *exchange = dls_engine_op(q->op, q->arg);
    dls_local_wait *w = &p->waits->node[node_of(q->stream)];
    int peer = dls_host_awaited(q->op, q->arg);
    if (!q->first || node_of(q->stream) == 0)
        return;
    *w = (dls_local_wait){.on = DLS_ON_NOTHING, .rank = peer};
    int is_named = !strstr(q->name, "stream"); // or the default stream, or "stream 3"
    snprintf(w->who, sizeof w->who, is_named ? "stream \"%s\"" : "%s", q->name);
    snprintf(w->what, sizeof w->what, "%s at %s:%d", q->op->name,
             q->op->file ? q->op->file : "?", q->op->line);
    if (exchange) {
        point_exchange(p, exchange, w);
    } else if (peer >= 0) {
        w->on = DLS_ON_HOST;
    } else if (q->behind >= 0) {
        w->on = DLS_ON_NODE;
        w->node = node_of(q->behind);
    }
}

static void publish(dls_world *all, const dls_gpu_host_wait *host)
{
    dls_local_waits *waits = &all->local->ranks[all->rank].waits;
    dls_local_wait *me = &waits->node[0], *stream = &waits->node[node_of(host->stream)];
    publication p = {all, waits};
    memset(waits->sends, 0, sizeof waits->sends);
    memset(waits->receives, 0, sizeof waits->receives);
    dls_gpu_queues(note_turns, &p);
    dls_gpu_queues(describe_head, &p);
    *me = (dls_local_wait){.on = host->stream >= 0 ? DLS_ON_NODE : DLS_ON_NOTHING,
                           .node = node_of(host->stream), .who = "the host"};
    snprintf(me->what, sizeof me->what, "%s at %s:%d", host->call,
             host->file ? host->file : "?", host->line);
    if (stream != me && stream->on == DLS_ON_HOST) {
        *me = *stream;
        snprintf(me->who, sizeof me->who, "the host");
    }
    waits->threads = host->threads;
    waits->polls = host->polls;
    waits->hopeless = host->polls && is_hopeless(all);
    waits->time = host->time;
}

/* follow the waits */
enum { STEPS = 300 };

typedef struct place { int rank, node; } place;

typedef enum walk_end { INTO_A_CIRCLE, TO_THE_FINISHED, INTO_THE_DARK } walk_end;

typedef struct walk {
    place at[STEPS];
    int count, first;  // places; where the circle begins
    walk_end end;
    uint64_t stamp;    // changes when any of the ranks rings, sleeps or wakes
} walk;

static int is_asleep(const dls_local_rank *rank)
{
    uint64_t blocked = atomic_load(&rank->blocked);
    return blocked == (BLOCKED | atomic_load(&rank->bell));
}

static walk_end follow(const dls_local *local, place at, place *next)
{
    const dls_local_rank *rank = &local->ranks[at.rank];
    const dls_local_wait *w = &rank->waits.node[at.node];
    if (!is_asleep(rank) || w->on == DLS_ON_NOTHING)
        return INTO_THE_DARK;
    *next = (place){at.rank, w->node};
    if (w->on == DLS_ON_NODE)
        return w->node > 0 ? INTO_A_CIRCLE : INTO_THE_DARK;
    const dls_local_rank *peer = &local->ranks[w->rank];
    next->rank = w->rank;
    next->node = w->on == DLS_ON_SEND   ? peer->waits.sends[w->context][at.rank]
                 : w->on == DLS_ON_ROOM ? peer->waits.receives[w->context][at.rank] : 0;
    if (atomic_load(&peer->fate) == DLS_FATE_DONE)
        return TO_THE_FINISHED;
    return is_asleep(peer) ? INTO_A_CIRCLE : INTO_THE_DARK;
}

static void walk_from(const dls_local *local, place start, walk *w)
{
    place next = start;
    *w = (walk){.end = INTO_A_CIRCLE};
    while (w->end == INTO_A_CIRCLE) {
        const dls_local_rank *rank = &local->ranks[next.rank];
        for (w->first = 0; w->first < w->count; w->first++)
            if (w->at[w->first].rank == next.rank && w->at[w->first].node == next.node)
                return;
        w->stamp += atomic_load(&rank->bell) + atomic_load(&rank->sleeps);
        if (w->count == STEPS) {
            w->end = INTO_THE_DARK;
            return;
        }
        w->at[w->count++] = next;
        w->end = follow(local, next, &next);
    }
}

/* decide whether a walk proves a deadlock */
static int is_stuck(const dls_local_rank *rank)
{
    return atomic_load(&rank->fate) == DLS_FATE_DONE ||
           (is_asleep(rank) && (!rank->waits.polls || rank->waits.hopeless));
}

static int everybody_is_stuck(const dls_local *local)
{
    for (int r = 0; r < local->world; r++)
        if (!is_stuck(&local->ranks[r]))
            return 0;
    return 1;
}

static int proves(const dls_local *local, const walk *w)
{
    int alone = 1; // none of these ranks has a second thread
    if (w->end == INTO_THE_DARK)
        return everybody_is_stuck(local);
    for (int i = 0; i < w->count; i++) {
        const dls_local_rank *rank = &local->ranks[w->at[i].rank];
        if (w->at[i].node == 0 && !is_stuck(rank))
            return 0;
        alone = alone && rank->waits.threads == 1;
    }
    return alone || everybody_is_stuck(local);
}

/* put a walk into words */
/* Whom the place waits for. */
static void name_next(const dls_local *local, place at, char *text, size_t size)
{
    static const char *missing[] = {[DLS_ON_SEND] = "has not sent it",
                                    [DLS_ON_ROOM] = "has not received it",
                                    [DLS_ON_HOST] = "has not called it"};
    const dls_local_wait *w = &local->ranks[at.rank].waits.node[at.node];
    place next = at;
    walk_end end = follow(local, at, &next);
    const char *who = local->ranks[next.rank].waits.node[next.node].who;
    if (w->on == DLS_ON_NOTHING)
        snprintf(text, size, "something else");
    else if (w->on == DLS_ON_NODE)
        snprintf(text, size, "%s", who);
    else if (end == TO_THE_FINISHED)
        snprintf(text, size, "rank %d, which has finished", next.rank);
    else if (next.node > 0)
        snprintf(text, size, "rank %d, %s", next.rank, who);
    else
        snprintf(text, size, "rank %d, which %s", next.rank, missing[w->on]);
}

static void add_place(const dls_local *local, place at, char *text, size_t size)
{
    const dls_local_wait *w = &local->ranks[at.rank].waits.node[at.node];
    size_t used = strlen(text);
    char whom[100];
    name_next(local, at, whom, sizeof whom);
    snprintf(text + used, size - used, "%srank %d, %s: %s waits for %s",
             used ? "; " : "", at.rank, w->who, w->what, whom);
}

static void put_into_words(const dls_local *local, const walk *w, char *text, size_t size)
{
    int from = w->end == INTO_A_CIRCLE ? w->first : 0, lowest = from;
    for (int i = from; i < w->count && w->end == INTO_A_CIRCLE; i++)
        if (w->at[i].rank < w->at[lowest].rank)
            lowest = i;
    text[0] = '\0';
    for (int i = from; i < w->count; i++) {
        int turned = lowest + i - from;
        if (turned >= w->count)
            turned -= w->count - from;
        add_place(local, w->at[turned], text, size);
    }
}

/* report a deadlock */
/* Logs the places of the text, which are separated by semicolons. */
static void log_places(char *text)
{
    char *rest = text;
    for (char *end; (end = strstr(rest, "; rank ")) != NULL; rest = end + 2)
        dls_log(DLS_LOG_ERROR, "deadlock: %.*s", (int)(end - rest), rest);
    dls_log(DLS_LOG_ERROR, "deadlock: %s", rest);
}

/* report a mismatch */
/* 1: the ranks wait because their calls do not agree; that has been reported. */
static int report_mismatch(dls_world *all)
{
    dls_flight f = {0};
    dls_finding found = {.kind = DLS_FINDING_NONE};
    char text[DLS_LOCAL_TEXT];
    if (dls_flight_take(dls_note_recorder(), &f) == DLS_OK)
        dls_flight_find(&f, &found);
    dls_flight_free(&f);
    if (found.kind != DLS_FINDING_MISMATCH)
        return 0;
    dls_log(DLS_LOG_ERROR, "mismatch: %s", found.text);
    snprintf(text, sizeof text, "found a mismatch: %s", found.text);
    dls_local_fail(all->local, all->rank, DLS_ERR_COMM, text, 0);
    return 1;
}

static void report_deadlock(dls_world *all)
{
    dls_local *local = all->local;
    char text[DLS_LOCAL_TEXT] = "found a deadlock: ";
    const size_t prefix = strlen(text);
    uint32_t nobody = 0;
    walk before, after;
    walk_from(local, (place){all->rank, 0}, &before);
    if (atomic_load(&local->head->culprit) || !proves(local, &before))
        return;
    put_into_words(local, &before, text + prefix, sizeof text - prefix);
    walk_from(local, (place){all->rank, 0}, &after);
    if (!proves(local, &after) || before.stamp != after.stamp ||
        before.count != after.count ||
        !atomic_compare_exchange_strong(&local->head->finder, &nobody, 1))
        return;
    if (report_mismatch(all))
        return;
    log_places(text + prefix);
    dls_local_fail(local, all->rank, DLS_ERR_COMM, text, strlen("found a deadlock"));
}

/* answer questions that nothing can answer */
static int is_first_to_ask(const dls_local *local, const walk *w, int me)
{
    for (int i = w->first; i < w->count; i++) {
        int r = w->at[i].rank;
        const dls_local_waits *theirs = &local->ranks[r].waits;
        double ours = local->ranks[me].waits.time;
        if (w->at[i].node == 0 && theirs->polls &&
            (theirs->time < ours || (theirs->time == ours && r < me)))
            return 0;
    }
    return 1;
}

static int must_answer(const dls_world *all)
{
    walk before, after;
    walk_from(all->local, (place){all->rank, 0}, &before);
    if (before.end != INTO_A_CIRCLE || before.first != 0 ||
        !is_first_to_ask(all->local, &before, all->rank))
        return 0;
    walk_from(all->local, (place){all->rank, 0}, &after);
    return after.end == INTO_A_CIRCLE && after.stamp == before.stamp;
}

static void look_at_the_clock(dls_comm_patience *p)
{
    struct timespec t;
    struct rusage used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    p->worked = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    clock_gettime(CLOCK_MONOTONIC, &t);
    p->now = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    getrusage(RUSAGE_THREAD, &used);
    p->pauses = used.ru_nvcsw;
}

/* A host that has been answered asks again: has it done anything meanwhile? */
static void judge(dls_world *all, const dls_gpu_host_wait *host)
{
    dls_comm_patience last = all->patience, *p = &all->patience;
    look_at_the_clock(p);
    p->answered = 0;
    p->enqueued = host->enqueued;
    p->busy += p->worked - last.worked;
    p->in_vain++;
    if (last.enqueued == p->enqueued && last.pauses == p->pauses &&
        p->busy < 20e-6 * (p->in_vain + 50))
        return;
    p->since = p->now;
    p->busy = p->in_vain = 0;
}

static int is_hopeless(const dls_world *all)
{
    const dls_comm_patience *p = &all->patience;
    return p->in_vain >= 100 && p->now - p->since > 1;
}

/* sleep and search */
static int search(dls_world *all, const dls_gpu_host_wait *host)
{
    if (host->polls ? is_hopeless(all) : all->idle_rounds >= 2)
        report_deadlock(all);
    return host->polls && must_answer(all);
}

int dls_deadlock_sleep(dls_world *all)
{
    dls_local_rank *me = &all->local->ranks[all->rank];
    dls_gpu_host_wait host = dls_gpu_host_waits();
    int answer = 0;
    if (!dls_local_quiet(all->local)) {
        all->patience = (dls_comm_patience){.in_vain = 0};
        all->idle_rounds = 0;
        return 0;
    }
    if (!host.polls && dls_local_linger(all->local)) {
        all->idle_rounds = 0;
        return 0;
    }
    if (host.polls && all->patience.answered)
        judge(all, &host);
    /* mark the rank and sleep */
    if (host.awake == 0) {
        publish(all, &host);
        atomic_fetch_add(&me->sleeps, 1);
        atomic_store(&me->blocked, BLOCKED | dls_local_heard());
        answer = search(all, &host);
    }
    if (!answer) {
        int held = dls_gpu_unlock();
        int silent = dls_local_sleep(all->local, host.polls ? 1e-3 : 0.1);
        dls_gpu_relock(held);
        all->idle_rounds = silent ? all->idle_rounds + 1 : 0;
    }
    atomic_store(&me->blocked, 0);
    if (answer) {
        look_at_the_clock(&all->patience);
        all->patience.answered = 1;
    }
    return answer;
}
#endif
