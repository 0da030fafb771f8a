/* code/comm/flight.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* Taking a flight from a recorder, and putting operations into words. */
#include "comm/flight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* look at a process */
static const char *state_of_process(int pid)
{
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = pid > 0 ? fopen(path, "r") : NULL;
    if (!f)
        return pid > 0 ? "is gone" : "";
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *end = strrchr(text, ')');
    switch (end && end[1] ? end[2] : '?') {
    case 'R': return "runs";
    case 'S': case 'D': case 'I': return "sleeps";
    case 'T': case 't': return "is stopped";
    case 'Z': case 'X': return "is gone";
    }
    return "";
}

/* take a flight */
static double since_start(const dls_recorder *r, double time)
{
    return time > 0 ? time - r->start : 0;
}

static dls_status take_rank(const dls_recorder *r, int rank, dls_flight_rank *out)
{
    const dls_recorder_rank *from = dls_recorder_of(r, rank);
    out->records = malloc((size_t)r->records * sizeof *out->records);
    if (!out->records)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d records", r->records);
    out->known = 1;
    out->pid = atomic_load(&from->pid);
    snprintf(out->process, sizeof out->process, "%s", state_of_process(out->pid));
    out->calls = atomic_load(&from->calls);
    out->n = dls_recorder_read(r, rank, out->records);
    out->moved = since_start(r, atomic_load(&from->moved));
    out->seen = since_start(r, atomic_load(&from->seen));
    out->taken = since_start(r, dls_recorder_now());
    /* count from the recorder's start */
    for (int i = 0; i < out->n; i++) {
        dls_record *record = &out->records[i];
        record->called = since_start(r, record->called);
        record->began = since_start(r, record->began);
        record->moved = since_start(r, record->moved);
        record->ended = since_start(r, record->ended);
    }
    return DLS_OK;
}

dls_status dls_flight_take(const dls_recorder *r, dls_flight *out)
{
    *out = (dls_flight){.world = r->world};
    out->ranks = calloc((size_t)r->world, sizeof *out->ranks);
    if (!out->ranks)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the records of %d ranks",
                        r->world);
    for (int rank = 0; rank < r->world; rank++)
        if (r->rank < 0 || r->fd >= 0 || r->rank == rank)
            DLS_TRY(take_rank(r, rank, &out->ranks[rank]));
    return DLS_OK;
}

void dls_flight_free(dls_flight *f)
{
    for (int r = 0; f->ranks && r < f->world; r++)
        free(f->ranks[r].records);
    free(f->ranks);
    *f = (dls_flight){0};
}

/* tell a fate */
void dls_flight_set_fate(dls_flight_rank *rank, const char *text)
{
    static const char more[] = " ...";
    size_t room = sizeof rank->fate - 1;
    if (strlen(text) > room) {
        size_t end = room - strlen(more);
        while (end > 0 && text[end] != ' ')
            end--;
        snprintf(rank->fate, sizeof rank->fate, "%.*s%s", (int)end, text, more);
    } else {
        snprintf(rank->fate, sizeof rank->fate, "%s", text);
    }
}

/* put a record into words */
void dls_flight_name(const dls_record *r, char *text, size_t size)
{
    char detail[48] = "";
    if (r->reduce[0])
        snprintf(detail, sizeof detail, " (%s)", r->reduce);
    if (r->peer >= 0) {
        const char *word = r->kind != DLS_RECORD_MESSAGE ? "root" : r->receives ? "from"
                                                                                : "to";
        size_t used = strlen(detail);
        snprintf(detail + used, sizeof detail - used, " %s rank %d", word, r->peer);
    }
    if (r->kind == DLS_RECORD_HOST && r->count == 0)
        snprintf(text, size, "%s", r->name);
    else
        snprintf(text, size, "%s of %llu %s%s", r->name, (unsigned long long)r->count,
                 r->type, detail);
}

void dls_flight_describe(const dls_record *r, char *text, size_t size)
{
    static const char *const sequences[] = {
        [DLS_RECORD_COLLECTIVE] = "collective", [DLS_RECORD_HOST] = "host call",
        [DLS_RECORD_MESSAGE] = "message"};
    char name[128], communicator[40] = "";
    dls_flight_name(r, name, sizeof name);
    if (r->communicator)
        snprintf(communicator, sizeof communicator, " of communicator %08x",
                 r->communicator);
    snprintf(text, size, "%s at %s (%s %llu%s%s%s)", name, r->site, sequences[r->kind],
             (unsigned long long)r->number, communicator, r->algorithm[0] ? ", " : "",
             r->algorithm);
}
