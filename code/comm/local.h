/* code/comm/local.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The memory that the ranks of one machine share.
 *
 *   | head | rank 0 | rank 1 | ... | context 0 | context 1 | ...
 *                                  | board 0 | board 1 | ... | mailbox 0→0 | 0→1 | ...
 *
 * Each rank's record has one writer (its rank, or the launcher once the rank is dead), so
 * no locks are needed. Mailboxes that are never used are never touched: the file is
 * sparse and costs the pages that were written. Private to comm/.
 * Tried: a mutex and condition per mailbox, process-shared and robust. A robust mutex
 * tells the next owner that the last one died; our readers learn it without owning
 * anything. */
#ifndef DLS_COMM_LOCAL_H
#define DLS_COMM_LOCAL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"
#include "comm/mailbox.h"
#include "comm/message.h"

/* define the fate of a rank */
typedef enum dls_fate {
    DLS_FATE_RUNNING = 0,
    DLS_FATE_DONE,   // ended in order, or destroyed its communicator
    DLS_FATE_FAILED  // reported an error, or was killed; failure[] says what
} dls_fate;

enum {
    DLS_LOCAL_MAX_RANKS = 64,
    DLS_LOCAL_CONTEXTS = 32, // communicators of a rank, from first to last
    DLS_LOCAL_BOARD = 4096,  // bytes of one page of the host all-gather
    DLS_LOCAL_CARD = 1024,   // bytes of a small all-reduce
    DLS_LOCAL_WAITS = 33,    // what the host waits for, and the first 32 streams
    DLS_LOCAL_WAIT = 200,    // one of them in words
    DLS_LOCAL_TEXT = 1800    // how a rank failed
};

/* say what a rank waits for */
/* What the host thread or a stream can not get past, and who has to move first. */
typedef enum dls_local_on {
    DLS_ON_NOTHING,  // of ours: not to be found here
    DLS_ON_NODE,     // node `node` of the same rank
    DLS_ON_SEND,     // what rank `rank` is to send to this one
    DLS_ON_ROOM,     // what rank `rank` is to receive from this one
    DLS_ON_HOST      // the host of rank `rank`, to call the same
} dls_local_on;

typedef struct dls_local_wait {
    dls_local_on on;
    int rank, node, context;
    char who[48];              // the host; stream "comm"
    char what[DLS_LOCAL_WAIT]; // recv of 7 f32 at FILE:LINE (message 0)
} dls_local_wait;

typedef struct dls_local_waits {
    dls_local_wait node[DLS_LOCAL_WAITS]; // [0]: the host; then the streams
    /* In each context, to or from each rank: the node whose turn it is; 0: none. */
    uint8_t sends[DLS_LOCAL_CONTEXTS][DLS_LOCAL_MAX_RANKS];
    uint8_t receives[DLS_LOCAL_CONTEXTS][DLS_LOCAL_MAX_RANKS];
    int threads;         // of the host, that use the device
    int polls, hopeless; // the host only asks; and has asked in vain for long
    double time;         // of the host's clock, virtual s
} dls_local_waits;

/* define the shared record of a rank */
typedef struct dls_local_board {
    uint64_t bytes;         // of the whole contribution
    double time;            // virtual, at which the host called
    char site[96];          // who called, for reports of mismatches
    char data[DLS_LOCAL_BOARD];
} dls_local_board;

typedef struct dls_local_rank {
    _Alignas(DLS_MAILBOX_LINE) _Atomic uint32_t bell; // futex: rung when anything changes
    _Atomic uint32_t asleep;                          // threads that need a wake-up call
    _Atomic int32_t core;      // where it ran when it last waited
    _Atomic uint64_t blocked;  // asleep: BLOCKED | value of the bell then; else 0
    _Atomic uint32_t sleeps;   // how often it was; changes when waits does
    _Atomic uint32_t fate;     // dls_fate
    _Atomic int32_t pid;
    int32_t status;            // the dls_status of a failure
    uint32_t quoted;           // bytes of failure[] that the other ranks repeat
    char failure[DLS_LOCAL_TEXT];   // valid once culprit names this rank
    dls_local_waits waits;          // valid while blocked
} dls_local_rank;

/* What a rank brings to a meeting. */
typedef struct dls_local_card {
    _Alignas(DLS_MAILBOX_LINE) _Atomic uint64_t meeting; // 1 + its number, when written
    _Alignas(16) unsigned char data[DLS_LOCAL_CARD];
    _Alignas(DLS_MAILBOX_LINE) dls_message call; // departure: when the rank begins
    /* what it takes home: written by the rank that plays */
    _Alignas(DLS_MAILBOX_LINE) _Atomic uint64_t played; // as meeting, when written
    double end;                        // virtual s
    uint64_t sent, received, steps;    // bytes; steps with messages
    _Alignas(16) unsigned char result[DLS_LOCAL_CARD];
    /* on rank 0's card */
    _Alignas(DLS_MAILBOX_LINE) _Atomic uint64_t player; // 64 * meeting + the rank
} dls_local_card;

/* The board of a rank in a context. */
typedef struct dls_local_post {
    _Alignas(DLS_MAILBOX_LINE) _Atomic uint64_t posted; // pages posted so far
    dls_local_board board[2];
    _Alignas(DLS_MAILBOX_LINE) _Atomic uint64_t ready, done; // by the shortcut
    uint64_t buffer; // of the last one: its offset in the heap; DLS_PRIVATE: not there
    dls_local_card card[2]; // of the meetings with an even and an odd number
} dls_local_post;

static const uint64_t DLS_PRIVATE = UINT64_MAX;

/* define the view of the shared memory */
typedef struct dls_local_head {
    uint64_t magic;
    uint32_t world;
    _Atomic uint32_t culprit; // 1 + the rank that failed first; 0: none
    _Atomic uint32_t finder;  // 1: a deadlock has been found and is being told
} dls_local_head;

typedef struct dls_local {
    dls_local_head *head;
    dls_local_rank *ranks;  // [world]
    size_t bytes, context_bytes; // of head and ranks; of a context
    void *context[DLS_LOCAL_CONTEXTS]; // posts[world], then boxes[world * world], the box
                                       // of (from, to) at from * world + to; NULL: shut
    off_t heaps;            // in the file; 0: none. See heap.h
    int fd, rank, world;    // rank -1: the launcher
    uint64_t awaited;       // ranks that the last questions found missing, one bit each
} dls_local;

static const size_t DLS_LOCAL_HEAP = (size_t)128 << 30; // bytes of each, on paper

/* declare the local functions */
/* Creates the memory for `world` ranks (1 to DLS_LOCAL_MAX_RANKS); the descriptor in
 * out->fd is inherited by exec'ed programs. DLS_ERR_INPUT, DLS_ERR_MEMORY. */
dls_status dls_local_create(int world, dls_local *out);

/* Maps the memory behind an inherited descriptor as rank `rank` of `world`.
 * DLS_ERR_INPUT: not such memory, or made for another world size. */
dls_status dls_local_attach(int fd, int rank, int world, dls_local *out);
void dls_local_detach(dls_local *local);

/* Tells rank `to` that something changed: a message, room, a fate. */
void dls_local_ring(dls_local *local, int to);
void dls_local_ring_all(dls_local *local);

/* 1 if this rank's bell has not rung since this thread asked last: what it has looked at
 * meanwhile is still so. Ask, look around, ask again, sleep. */
int dls_local_quiet(const dls_local *local);
uint32_t dls_local_heard(void); // the bell's value then

/* Waits some 50 µs before one sleeps: the answer to a short message is often that near.
 * Gives the core away, at once if one of local->awaited was last seen on it. 1: the bell
 * has rung. */
int dls_local_linger(dls_local *local);
void dls_local_make_way(dls_local *local); // gives it away once, in that case alone

/* Sleeps until the bell rings after the last dls_local_quiet, at most `seconds`. 1: it
 * did not ring. */
int dls_local_sleep(dls_local *local, double seconds);

/* Records a rank's failure (by the rank itself, or by its parent) and wakes everybody.
 * The other ranks quote `quoted` bytes of the text; 0: all. */
void dls_local_fail(dls_local *local, int rank, dls_status status, const char *text,
                    size_t quoted);
void dls_local_done(dls_local *local, int rank);

/* DLS_OK: nobody has failed. Otherwise DLS_ERR_COMM quoting the first failure and saying
 * what this rank is `doing` ("waits in ..."). */
dls_status dls_local_check(const dls_local *local, const char *doing);
int dls_local_fate(const dls_local *local, int rank);

/* Maps a context (0: open from the start). DLS_ERR_MEMORY. The others: of an open one. */
dls_status dls_local_open(dls_local *local, int context);
dls_mailbox *dls_local_box(const dls_local *local, int context, int from, int to);
dls_local_post *dls_local_posts(const dls_local *local, int context, int rank);

#endif
