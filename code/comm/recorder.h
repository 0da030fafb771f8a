/* code/comm/recorder.h: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* The flight recorder: each rank's last operations, kept where they outlive the rank.
 *
 *   | head | rank 0: calls, open ... | slot 0 | ... | slot N-1 | rank 1: ... |
 *
 * One writer per rank; the launcher and the other ranks read. Operation t (1, 2, ...) of
 * a rank stands in slot (t - 1) % N until operation t + N overwrites it. A slot's ticket
 * is written last and looked at twice, so that a reader never believes half a record.
 * Tried: a pipe to the launcher. A full pipe blocks the rank, and a stopped launcher
 * would stop the job. Private to comm/ and the command that reads records. */
#ifndef DLS_COMM_RECORDER_H
#define DLS_COMM_RECORDER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* define a flight record */
typedef enum dls_record_kind {
    DLS_RECORD_COLLECTIVE = 1, // on a stream
    DLS_RECORD_HOST,           // barrier, all-gather between hosts
    DLS_RECORD_MESSAGE         // send, recv
} dls_record_kind;

typedef struct dls_record {
    uint64_t ticket;       // 1, 2, ... in the order of the rank's calls
    uint64_t number;       // in its sequence
    uint64_t members;      // bit r: world rank r takes part; 0: everybody
    uint64_t count;        // elements
    uint64_t bytes;        // sent and received so far
    uint32_t communicator; // 0: the world's
    int32_t peer;          // world rank of the root or of the other side; -1
    int32_t kind, receives;
    /* say it in words and times */
    char name[24], type[8], reduce[8], algorithm[32]; // "ring"
    char site[80];                       // file:line of the call
    double called, began, moved, ended;  // real time, s; 0: not yet
    double virtual_called, virtual_began, virtual_ended;
} dls_record;

_Static_assert(sizeof(dls_record) % sizeof(uint64_t) == 0, "records are whole words");

/* define the recorder */
enum { DLS_RECORD_WORDS = sizeof(dls_record) / sizeof(uint64_t) };

typedef struct dls_record_slot {
    _Atomic uint64_t word[DLS_RECORD_WORDS]; // of a dls_record; [0] is its ticket
} dls_record_slot;

typedef struct dls_recorder_rank {
    _Atomic uint64_t calls;     // operations recorded so far
    _Atomic uint64_t ends;      // of them, ended
    _Atomic double moved, seen; // when anything changed; the host looked at its device
    _Atomic int32_t pid;        // 0: not started
} dls_recorder_rank;

typedef struct dls_recorder {
    struct dls_recorder_head *head; // NULL: a recorder that records nothing
    size_t bytes;
    int fd, rank, world, records;   // fd -1: private; rank -1: the launcher's
    double start;                   // real time at which it was created
} dls_recorder;

/* declare the recorder */
/* Shared memory for the records of `world` ranks. DLS_RECORDER says how many each keeps
 * (256). DLS_ERR_INPUT: it says nonsense; DLS_ERR_MEMORY. */
dls_status dls_recorder_create(int world, dls_recorder *out);

/* As rank `rank`: maps the memory behind DLS_RECORDER_FD, or makes some for this process
 * when that is not set. DLS_ERR_INPUT: not such memory, or for another world size. */
dls_status dls_recorder_attach(int rank, int world, dls_recorder *out);
void dls_recorder_detach(dls_recorder *r);

/* Records a call; its ticket and times are filled in here. Returns the ticket. */
uint64_t dls_recorder_call(dls_recorder *r, const dls_record *what);

/* What became of it. Tickets that have been overwritten are ignored. */
void dls_recorder_begin(dls_recorder *r, uint64_t ticket, double virtual_time);
void dls_recorder_move(dls_recorder *r, uint64_t ticket, uint64_t bytes);
void dls_recorder_end(dls_recorder *r, uint64_t ticket, uint64_t bytes,
                      double virtual_time);
void dls_recorder_see(dls_recorder *r); // the host looks at its device

/* records (room for r->records) := those of a rank, oldest first; returns how many. */
int dls_recorder_read(const dls_recorder *r, int rank, dls_record *records);
const dls_recorder_rank *dls_recorder_of(const dls_recorder *r, int rank);
double dls_recorder_now(void); // real time, s, the same in all processes of the machine

#endif
