/* code/comm/watchdog.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* The launcher's watch over the ranks, and the record that it keeps of a failure. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "comm/flight.h"
#include "comm/launch_private.h"

enum { DEFAULT_SECONDS = 600 };
#define PARTING_SECONDS 0.2 // for the others, to say where they wait

/* read the limit of the watchdog */
dls_status dls_watchdog_limit(double *seconds)
{
    const char *text = getenv("DLS_WATCHDOG");
    char *end;
    *seconds = DEFAULT_SECONDS;
    if (!text || !*text)
        return DLS_OK;
    *seconds = strtod(text, &end);
    if (*end || !isfinite(*seconds) || *seconds < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_WATCHDOG=%s: expected seconds, or 0 for no "
                        "watchdog", text);
    return DLS_OK;
}

void dls_watchdog_defer(double seconds)
{
    char text[32];
    snprintf(text, sizeof text, "%g", seconds > 0 ? 2 * seconds + 1 : 1e9);
    setenv("DLS_WATCHDOG", text, 1);
}

/* keep the records */
static int anything_was_called(const dls_recorder *r)
{
    for (int rank = 0; rank < r->world; rank++)
        if (atomic_load(&dls_recorder_of(r, rank)->calls) > 0)
            return 1;
    return 0;
}

static void add_fates(const dls_supervisor *s, dls_flight *f, int rank, const char *fate)
{
    for (int r = 0; r < s->n; r++)
        if (dls_local_fate(&s->local, r) == DLS_FATE_DONE)
            dls_flight_set_fate(&f->ranks[r], "has finished");
        else if (dls_local_fate(&s->local, r) == DLS_FATE_FAILED)
            dls_flight_set_fate(&f->ranks[r], s->local.ranks[r].failure);
    if (rank >= 0 && !f->ranks[rank].fate[0])
        dls_flight_set_fate(&f->ranks[rank], fate);
}

static dls_status write_records(dls_supervisor *s, dls_flight *f)
{
    dls_finding found;
    dls_flight_find(f, &found);
    DLS_TRY(dls_flight_write(f, &found, s->flight));
    snprintf(s->summary, sizeof s->summary, "%s", found.text);
    s->kept = 1;
    return DLS_OK;
}

void dls_watchdog_keep(dls_supervisor *s, int rank, const char *fate)
{
    dls_flight f = {0};
    if (!s->flight || s->tried || !anything_was_called(&s->recorder))
        return;
    s->tried = 1;
    dls_status status = dls_flight_take(&s->recorder, &f);
    if (status == DLS_OK) {
        add_fates(s, &f, rank, fate);
        status = write_records(s, &f);
    }
    if (status != DLS_OK)
        dls_log(DLS_LOG_WARN, "no flight record: %s", dls_status_message());
    dls_flight_free(&f);
}

/* report a rank that stands still */
static void report(dls_supervisor *s, const dls_finding *found, double seconds)
{
    char text[DLS_LOCAL_TEXT], prefix[24];
    int skip = snprintf(prefix, sizeof prefix, "rank %d ", found->rank);
    snprintf(text, sizeof text, "%.1400s (nothing has moved for %.1f s)",
             found->text + skip, seconds);
    dls_watchdog_keep(s, found->rank, "");
    s->summary[0] = 0; // it is said here
    if (s->announce)
        dls_log(DLS_LOG_ERROR, "watchdog: rank %d %s; stopping all %d ranks",
                found->rank, text, s->alive);
    dls_local_fail(&s->local, found->rank, DLS_ERR_COMM, text, strcspn(text, ";"));
    s->lost++;
    dls_supervise_fail(s, found->rank, 1);
    s->term_at = dls_recorder_now() + PARTING_SECONDS;
    s->kill_at = s->term_at + s->kill_delay;
}

/* look for what stands still */
/* For how long nothing has moved of a rank with something left to do; 0: none has. */
static double standstill(const dls_supervisor *s)
{
    double now = dls_recorder_now(), longest = 0;
    for (int r = 0; r < s->n; r++) {
        const dls_recorder_rank *rank = dls_recorder_of(&s->recorder, r);
        int busy = atomic_load(&rank->calls) > atomic_load(&rank->ends);
        double still = now - atomic_load(&rank->moved); // not before the calls
        if (s->pids[r] && busy)
            longest = still > longest ? still : longest;
    }
    return longest;
}

void dls_watchdog_look(dls_supervisor *s)
{
    dls_flight f = {0};
    dls_finding found;
    double still = s->watch > 0 && s->first < 0 && s->kill_at == 0 ? standstill(s) : 0;
    if (still <= s->watch || still == 0)
        return;
    if (dls_flight_take(&s->recorder, &f) == DLS_OK) {
        dls_flight_find(&f, &found);
        if (found.kind != DLS_FINDING_NONE)
            report(s, &found, still);
    }
    dls_flight_free(&f);
}
