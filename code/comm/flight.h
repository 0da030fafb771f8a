/* code/comm/flight.h: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* A flight: the records of all ranks at one moment, as taken from a recorder or from
 * files; and the first operation at which they part. */
#ifndef DLS_COMM_FLIGHT_H
#define DLS_COMM_FLIGHT_H

#include <stddef.h>

#include "base/status.h"
#include "comm/recorder.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a flight */
typedef struct dls_flight_rank {
    int known;            // 0: there is no record of this rank
    int pid;
    char fate[320];       // "was killed by signal 9 (SIGKILL)"; "": it ran
    char process[12];     // "runs", "sleeps", "is stopped", "is gone"; "": unknown
    double taken;         // when its record was taken, s; as all times of the rank
    double moved, seen;   // when anything changed; when its host looked at its device
    uint64_t calls;       // in all; of which the last n are kept
    int n;
    dls_record *records;  // oldest first
} dls_flight_rank;

typedef struct dls_flight {
    int world;
    dls_flight_rank *ranks; // [world]
} dls_flight;

/* define a finding */
typedef enum dls_finding_kind {
    DLS_FINDING_NONE,     // everything that was called has ended everywhere
    DLS_FINDING_MISMATCH, // two ranks mean different things by the same number
    DLS_FINDING_MISSING,  // a rank has not called it
    DLS_FINDING_STALLED,  // all have called it, not all have ended it
    DLS_FINDING_LOST      // the rank is gone; it was the last operation that it ended
} dls_finding_kind;

typedef enum dls_flight_state {
    DLS_FLIGHT_OUTSIDE,   // the rank does not take part
    DLS_FLIGHT_UNKNOWN,   // no record of it
    DLS_FLIGHT_MISSING,   // not called
    DLS_FLIGHT_CALLED,    // not begun: something else stands before it on its stream
    DLS_FLIGHT_BEGUN,
    DLS_FLIGHT_ENDED
} dls_flight_state;

typedef struct dls_finding {
    dls_finding_kind kind;
    int rank, witness;    // whom to look at; a rank that called `record`
    dls_record record;    // the operation as the witness called it
    char text[1400];      // begins with "rank R "
} dls_finding;

/* declare the flight */
/* Takes the records of a recorder. DLS_ERR_MEMORY. Free it also after an error. */
dls_status dls_flight_take(const dls_recorder *r, dls_flight *out);
void dls_flight_free(dls_flight *f);

/* The first operation at which the ranks part. */
void dls_flight_find(const dls_flight *f, dls_finding *out);

/* What `rank` has done about an operation called by `owner`. *record (may be NULL) is its
 * own record of it, when there is one. */
dls_flight_state dls_flight_state_of(const dls_flight *f, int rank, int owner,
                                     const dls_record *op, const dls_record **record);

/* rank->fate := text, cut behind a word when it is too long. */
void dls_flight_set_fate(dls_flight_rank *rank, const char *text);

/* "all-reduce of 100 f32 (sum) at FILE:LINE (collective 17)" */
void dls_flight_describe(const dls_record *record, char *text, size_t size);

/* "all-reduce of 100 f32 (sum)" */
void dls_flight_name(const dls_record *record, char *text, size_t size);

/* "rank 2", "ranks 0, 1 and 4-7": those in this state; "" when there is none. */
void dls_flight_list(const dls_flight *f, int owner, const dls_record *op,
                     dls_flight_state state, char *text, size_t size);

/* Writes the flight as JSON, whole or not at all; finding may be NULL. */
dls_status dls_flight_write(const dls_flight *f, const dls_finding *finding,
                            const char *path);

/* Adds the ranks of a file to *f, which is {0} before the first. DLS_ERR_INPUT: not a
 * record, of another world size, or of ranks that are there already. */
dls_status dls_flight_read(const char *path, dls_flight *f);

#ifdef __cplusplus
}
#endif
#endif
