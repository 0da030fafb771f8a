/* code/comm/flight_find.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* The first operation at which the ranks part. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "comm/flight.h"

/* match records of two ranks */
static int sender(int rank, const dls_record *r)
{
    return r->receives ? r->peer : rank;
}

static int receiver(int rank, const dls_record *r)
{
    return r->receives ? rank : r->peer;
}

/* They stand in the same sequence: of a communicator, or of messages one way. */
static int same_sequence(int a, const dls_record *x, int b, const dls_record *y)
{
    if (x->kind != y->kind || x->communicator != y->communicator ||
        x->members != y->members)
        return 0;
    return x->kind != DLS_RECORD_MESSAGE || (sender(a, x) == sender(b, y) &&
                                             receiver(a, x) == receiver(b, y));
}

static int takes_part(int rank, int owner, const dls_record *op)
{
    if (op->kind == DLS_RECORD_MESSAGE)
        return rank == owner || rank == op->peer;
    return op->members == 0 || (rank < 64 && op->members >> rank & 1);
}

static int agree(const dls_record *x, const dls_record *y)
{
    if (strcmp(x->type, y->type) != 0 || x->count != y->count)
        return 0;
    return x->kind == DLS_RECORD_MESSAGE ||
           (strcmp(x->name, y->name) == 0 && strcmp(x->reduce, y->reduce) == 0 &&
            strcmp(x->algorithm, y->algorithm) == 0 && x->peer == y->peer);
}

/* find what a rank has done */
dls_flight_state dls_flight_state_of(const dls_flight *f, int rank, int owner,
                                     const dls_record *op, const dls_record **record)
{
    const dls_flight_rank *them = &f->ranks[rank];
    int earlier = 0;
    if (!takes_part(rank, owner, op))
        return DLS_FLIGHT_OUTSIDE;
    for (int i = them->n - 1; i >= 0; i--) {
        const dls_record *r = &them->records[i];
        if (!same_sequence(rank, r, owner, op))
            continue;
        if (r->number > op->number)
            earlier = 2; // than its later one: it must have called ours
        if (r->number != op->number) {
            earlier = earlier ? earlier : 1;
            continue;
        }
        if (record)
            *record = r;
        return r->ended > 0 ? DLS_FLIGHT_ENDED
                            : r->began > 0 ? DLS_FLIGHT_BEGUN : DLS_FLIGHT_CALLED;
    }
    /* judge an absent record */
    if (earlier == 2)
        return DLS_FLIGHT_ENDED;
    int complete = them->calls == (uint64_t)them->n;
    return them->known && (earlier || complete) ? DLS_FLIGHT_MISSING
                                                : DLS_FLIGHT_UNKNOWN;
}

/* list ranks */
static void append(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

/* The end of the run of ranks from r on that are in this state. */
static int run_from(const dls_flight *f, int r, int owner, const dls_record *op,
                    dls_flight_state state)
{
    while (r < f->world && dls_flight_state_of(f, r, owner, op, NULL) == state)
        r++;
    return r;
}

void dls_flight_list(const dls_flight *f, int owner, const dls_record *op,
                     dls_flight_state state, char *text, size_t size)
{
    char part[40], pending[40] = ""; // the last part follows "and", not a comma
    int parts = 0, count = 0;
    *text = 0;
    for (int r = 0, end; r < f->world; r = end > r ? end : r + 1) {
        end = run_from(f, r, owner, op, state);
        if (end == r)
            continue;
        if (end - r == 2)
            end = r + 1; // two in a row are two numbers
        /* add a part to the list */
        snprintf(part, sizeof part, end - r > 1 ? "%d-%d" : "%d", r, end - 1);
        if (parts > 0) {
            append(text, size, parts > 1 ? ", " : "ranks ");
            append(text, size, pending);
        }
        memcpy(pending, part, sizeof pending);
        count += end - r;
        parts++;
    }
    append(text, size, parts > 1 ? " and " : parts ? "rank " : "");
    append(text, size, pending);
    if (count > 1 && parts == 1)
        snprintf(text, size, "ranks %s", pending);
}

/* judge an operation */
static int supporters(const dls_flight *f, int owner, const dls_record *op)
{
    int n = 0;
    for (int r = 0; r < f->world; r++) {
        const dls_record *theirs = NULL;
        dls_flight_state_of(f, r, owner, op, &theirs);
        n += theirs && agree(op, theirs);
    }
    return n;
}

/* 1: somebody disagrees; *found names the minority and, as witness, the majority. */
static int judge_mismatch(const dls_flight *f, int owner, const dls_record *op,
                          dls_finding *found)
{
    for (int r = 0; r < f->world; r++) {
        const dls_record *theirs = NULL;
        dls_flight_state_of(f, r, owner, op, &theirs);
        if (!theirs || agree(op, theirs))
            continue;
        int ours = supporters(f, owner, op), others = supporters(f, r, theirs);
        int we_are_few = ours < others || (ours == others && owner > r);
        found->rank = we_are_few ? owner : r;
        found->witness = we_are_few ? r : owner;
        found->record = we_are_few ? *theirs : *op;
        found->kind = DLS_FINDING_MISMATCH;
        return 1;
    }
    return 0;
}

static int is_gone(const dls_flight *f, int rank)
{
    return rank >= 0 && f->ranks[rank].fate[0] != 0;
}

static void judge(const dls_flight *f, int owner, const dls_record *op,
                  dls_finding *found)
{
    double most = -1;
    *found = (dls_finding){.rank = -1, .witness = owner, .record = *op};
    if (judge_mismatch(f, owner, op, found))
        return;
    for (int r = 0; r < f->world; r++) {
        dls_flight_state state = dls_flight_state_of(f, r, owner, op, NULL);
        double unseen = fmax(0, f->ranks[r].taken - f->ranks[r].seen);
        int misses = state == DLS_FLIGHT_MISSING;
        if (!misses && state != DLS_FLIGHT_CALLED && state != DLS_FLIGHT_BEGUN)
            continue;
        double weight = 4 * is_gone(f, r) + (misses ? 2 : unseen / (1 + unseen));
        if (weight <= most)
            continue;
        most = weight;
        found->rank = r;
        found->kind = misses ? DLS_FINDING_MISSING : DLS_FINDING_STALLED;
    }
}

/* say where a rank is */
static void say_process(const dls_flight_rank *rank, char *text, size_t size)
{
    double unseen = rank->taken - rank->seen;
    *text = 0;
    if (rank->fate[0])
        snprintf(text, size, "; it %s", rank->fate);
    else if (strcmp(rank->process, "is stopped") == 0)
        snprintf(text, size, "; its process is stopped");
    else if (rank->process[0] && unseen > 0.3)
        snprintf(text, size, "; its process %s, and has not looked at its device for "
                 "%.1f s", rank->process, unseen);
}

static void say_where(const dls_flight_rank *rank, const dls_record *op, char *text,
                      size_t size)
{
    char what[320], last_call[400] = "";
    say_process(rank, text, size);
    if (rank->n == 0 && rank->known)
        snprintf(last_call, sizeof last_call, "; it has not called anything");
    if (rank->n > 0 && (rank->records[rank->n - 1].number != op->number ||
                        strcmp(rank->records[rank->n - 1].name, op->name) != 0)) {
        const dls_record *last = &rank->records[rank->n - 1];
        dls_flight_describe(last, what, sizeof what);
        snprintf(last_call, sizeof last_call, "; its last call, %.1f s ago, was %.319s",
                 rank->taken - last->called, what);
    }
    append(text, size, last_call);
}

/* say what was found */
static void add_site_hint(const dls_flight *f, const dls_finding *found, char *text,
                          size_t size)
{
    const dls_flight_rank *w = &f->ranks[found->witness];
    char part[300];
    for (int i = 0; i < w->n; i++) {
        const dls_record *op = &w->records[i], *theirs = NULL;
        if (op->number >= found->record.number || op->kind == DLS_RECORD_MESSAGE ||
            !same_sequence(found->witness, op, found->witness, &found->record))
            continue;
        dls_flight_state_of(f, found->rank, found->witness, op, &theirs);
        if (!theirs || strcmp(theirs->site, op->site) == 0)
            continue;
        snprintf(part, sizeof part, "; the call sites part at number %llu already: rank "
                 "%d called it at %.79s, rank %d at %.79s",
                 (unsigned long long)op->number, found->rank, theirs->site,
                 found->witness, op->site);
        append(text, size, part);
        return;
    }
}

static void say_mismatch(const dls_flight *f, dls_finding *found, const char *what)
{
    const dls_record *theirs = &found->record;
    char other[320];
    dls_flight_state_of(f, found->rank, found->witness, &found->record, &theirs);
    dls_flight_describe(theirs, other, sizeof other);
    snprintf(found->text, sizeof found->text, "rank %d calls %s, but rank %d calls %s",
             found->rank, other, found->witness, what);
}

static void say_missing(const dls_flight *f, dls_finding *found, const char *what)
{
    char waiting[400], called[400];
    const dls_record *op = &found->record;
    dls_flight_list(f, found->witness, op, DLS_FLIGHT_BEGUN, waiting, sizeof waiting);
    dls_flight_list(f, found->witness, op, DLS_FLIGHT_CALLED, called, sizeof called);
    const char *who = waiting[0] ? waiting : called;
    int several = strchr(who, 's') != NULL; // "ranks 0 and 1"
    const char *verb = waiting[0] ? (several ? "wait" : "waits")
                                  : several ? "have called" : "has called";
    if (op->kind == DLS_RECORD_MESSAGE)
        snprintf(found->text, sizeof found->text, "rank %d has not called the %s that "
                 "rank %d waits for in %.319s", found->rank,
                 op->receives ? "send" : "recv", found->witness, what);
    else if (who[0])
        snprintf(found->text, sizeof found->text, "rank %d has not called %.319s, "
                 "%swhich %.200s %s", found->rank, what, waiting[0] ? "in " : "", who,
                 verb);
    else
        snprintf(found->text, sizeof found->text, "rank %d has not called %.319s, which "
                 "the others have ended", found->rank, what);
}

static void say_stalled(const dls_flight *f, dls_finding *found, const char *what)
{
    const dls_record *own = &found->record;
    char waiting[400];
    dls_flight_list(f, found->witness, own, DLS_FLIGHT_BEGUN, waiting, sizeof waiting);
    dls_flight_state_of(f, found->rank, found->witness, &found->record, &own);
    double ago = f->ranks[found->rank].taken - own->called;
    snprintf(found->text, sizeof found->text, "rank %d has not %s %.319s, which it "
             "called %.1f s ago", found->rank, own->began > 0 ? "ended" : "begun", what,
             ago);
    append(found->text, sizeof found->text, waiting[0] ? " and in which " : "");
    append(found->text, sizeof found->text, waiting);
    if (waiting[0])
        append(found->text, sizeof found->text, strchr(waiting, 's') ? " wait"
                                                                        : " waits");
}

static void say(const dls_flight *f, dls_finding *found)
{
    char what[320], where[900];
    if (found->kind == DLS_FINDING_NONE) {
        snprintf(found->text, sizeof found->text, "every operation that was called has "
                 "ended on every rank");
        return;
    }
    dls_flight_describe(&found->record, what, sizeof what);
    if (found->kind == DLS_FINDING_MISMATCH) {
        say_mismatch(f, found, what);
        return;
    }
    if (found->kind == DLS_FINDING_MISSING)
        say_missing(f, found, what);
    else if (found->kind == DLS_FINDING_LOST)
        snprintf(found->text, sizeof found->text, "rank %d has not called anything since "
                 "it ended %.319s", found->rank, what);
    else
        say_stalled(f, found, what);
    say_where(&f->ranks[found->rank], &found->record, where, sizeof where);
    append(found->text, sizeof found->text, where);
    add_site_hint(f, found, found->text, sizeof found->text);
}

/* find the first difference */
static int is_better(const dls_flight *f, const dls_finding *a, const dls_finding *b)
{
    if (a->kind == DLS_FINDING_NONE || b->kind == DLS_FINDING_NONE)
        return a->kind != DLS_FINDING_NONE;
    int a_mismatch = a->kind == DLS_FINDING_MISMATCH;
    int a_first = 2 * a_mismatch + is_gone(f, a->rank);
    int b_first = 2 * (b->kind == DLS_FINDING_MISMATCH) + is_gone(f, b->rank);
    if (a_first != b_first)
        return a_first > b_first;
    return a->record.called < b->record.called;
}

/* The first operation of the sequence that the rank has not called. */
static void go_back(const dls_flight *f, dls_finding *found)
{
    const dls_flight_rank *w = &f->ranks[found->witness];
    for (int i = 0; i < w->n; i++) {
        const dls_record *op = &w->records[i];
        if (op->number < found->record.number &&
            same_sequence(found->witness, op, found->witness, &found->record) &&
            dls_flight_state_of(f, found->rank, found->witness, op, NULL) ==
                DLS_FLIGHT_MISSING)
            found->record = *op;
    }
}

/* Others are a little behind a rank that died with nothing left undone. */
static void name_the_lost(const dls_flight *f, dls_finding *found)
{
    if (found->kind != DLS_FINDING_STALLED || is_gone(f, found->rank))
        return;
    for (int r = 0; r < f->world; r++) {
        const dls_flight_rank *rank = &f->ranks[r];
        if (!is_gone(f, r) || strcmp(rank->fate, "has finished") == 0 || rank->n == 0 ||
            !(rank->records[rank->n - 1].ended > 0))
            continue;
        *found = (dls_finding){.kind = DLS_FINDING_LOST, .rank = r, .witness = r,
                               .record = rank->records[rank->n - 1]};
        return;
    }
}

void dls_flight_find(const dls_flight *f, dls_finding *out)
{
    *out = (dls_finding){.rank = -1, .witness = -1};
    for (int r = 0; r < f->world; r++)
        for (int i = 0; i < f->ranks[r].n; i++) {
            const dls_record *op = &f->ranks[r].records[i];
            dls_finding found;
            if (op->ended > 0 && i + 1 < f->ranks[r].n)
                continue;
            judge(f, r, op, &found);
            if (is_better(f, &found, out))
                *out = found;
        }
    if (out->kind == DLS_FINDING_MISSING)
        go_back(f, out);
    name_the_lost(f, out);
    say(f, out);
}
