/* code/comm/comm_private.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The inside of a communicator: channels, operations in flight. Private to comm/. */
#ifndef DLS_COMM_COMM_PRIVATE_H
#define DLS_COMM_COMM_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "comm/algorithms.h"
#include "comm/comm.h"
#include "comm/local.h"
#include "comm/message.h"
#include "comm/recorder.h"
#include "comm/times.h"
#include "comm/transport.h"
#include "vgpu/gpu.h"

/* define a channel */
typedef struct dls_channel {
    uint64_t issued, served; // tickets
    uint64_t messages;       // sends or receives called so far
    double free_at;          // virtual time at which the last operation left the wire
} dls_channel;

/* define what communicators share */
typedef struct dls_comm_op dls_comm_op;

/* Questions answered with "not ready" because nothing could change the answer. */
typedef struct dls_comm_patience {
    unsigned in_vain;    // how many in a row, with nothing done in between
    double since, now;   // of the first and the last of these, real s
    int answered;        // the host has got an answer and may do something; until then:
    uint64_t enqueued;   // operations
    double worked, busy; // processor time of the thread, s; and between the questions
    long pauses;         // voluntary context switches of the thread
} dls_comm_patience;

typedef struct dls_world {
    int rank, size;
    dls_transport *transport;        // NULL in a world of one
    dls_local *local;                // that of the transport "local"; NULL for others
    int communicators, next_context; // alive; not used by any of them yet
    cudaStream_t stream;             // for the waits of the host
    char host_waits[DLS_LOCAL_WAIT]; // what the host thread waits for, or ""
    dls_comm_patience patience;
    int idle_rounds;                 // time-outs in a row
    int shortcuts;                   // 0: $DLS_SHORTCUT says no
    pthread_mutex_t lock;            // of the operations' progress
} dls_world;

/* define the inside of a communicator */
enum { DLS_COMM_SCRATCHES = 32, DLS_COMM_CHOICES = 64 };

/* A piece of scratch memory, kept for the next operation that needs one. */
typedef struct dls_comm_scratch {
    void *memory;
    size_t bytes;
    cudaStream_t stream; // whose operations share it: they run one after another
    int used;            // operations that have it
} dls_comm_scratch;

/* An algorithm chosen before: for what, and which. */
typedef struct dls_comm_choice {
    int kind, root;
    size_t count, element, block;
    const struct dls_algorithm *algorithm; // NULL: free
} dls_comm_choice;

struct dls_comm {
    dls_world *all;
    int rank, world, context, per_node;
    int member[DLS_COMM_RANKS];         // rank in the world of each rank here
    dls_channel out[DLS_COMM_RANKS];    // to each peer
    dls_channel in[DLS_COMM_RANKS];     // from each peer
    uint64_t collectives;               // called so far
    uint64_t pages;                     // posted by the host all-gather
    uint64_t host_calls;                // barriers and all-gathers between hosts
    dls_link *links;                    // [world * world], from * world + to
    dls_comm_op *group;                 // being collected between begin and end
    cudaStream_t group_stream;
    dls_comm_scratch scratch[DLS_COMM_SCRATCHES];
    dls_comm_choice choice[DLS_COMM_CHOICES];
    char wanted[200];                   // "all_reduce:ring,..."
    struct dls_native *native;          // NCCL; NULL
    struct dls_meeting *meeting;        // memory for the small all-reduces; NULL
    uint64_t meetings;                  // begun so far
    _Atomic(dls_comm_op *) spare;       // an operation's memory, for the next one; NULL
    dls_comm_statistics stats;
};

/* define an operation in flight */
struct dls_comm_op {
    dls_comm *comm;
    const struct dls_algorithm *algorithm; // NULL: messages, whose one step is given
    dls_shape shape;
    dls_message ours;
    dls_reduce reduce;
    unsigned char *place[DLS_PLACES];
    size_t element;                       // bytes
    int peer, receives;                   // of a message: world rank; 1: comes from it
    int references;                       // the two stream operations that share this
    int scratch;                          // which of the communicator's; -1: none
    /* keep the progress of an operation */
    int k, open, done;                         // step; 1: step is valid; 1: all complete
    uint64_t out_ticket[DLS_COMM_RANKS];       // 1 + the ticket; 0: not in this channel
    uint64_t in_ticket[DLS_COMM_RANKS];
    unsigned messages_out[DLS_COMM_RANKS];     // of this operation, complete, to each peer
    unsigned messages_in[DLS_COMM_RANKS];
    double start, now;                         // virtual seconds
    double free;                               // when the step's sends will have left
    uint64_t record, noted, bytes;             // ticket of the recorder; 1 + bytes noted;
                                               //   bytes of complete steps
    struct dls_shortcut *shortcut;             // the messages' bytes go this way; NULL
    int shut;                                  // 1: no, after all: second round
    double end;                                // virtual s, found in the first
    uint64_t meeting;                          // 1 + its number; 0: not by a meeting
    int absent;                                // rank whose card is not there; -1: none
    /* what follows is large, and written before it is read */
    dls_step step;
    dls_outgoing out[DLS_COMM_RANKS];          // the step's sends,
    dls_incoming in[DLS_COMM_RANKS];           // and its receives, under way
    size_t amounts[4 * DLS_COMM_RANKS];        // of an all-to-all-v
};

/* declare the engine */
/* An operation, all zero but for its communicator; NULL: no memory. */
dls_comm_op *dls_engine_new(dls_comm *comm);

/* Enqueues the operation on the stream, which owns it from now on, whatever happens. */
dls_status dls_engine_enqueue(dls_comm_op *op, cudaStream_t stream, const char *file,
                              int line);
void dls_engine_drop(dls_comm_op *op); // one that was not enqueued

/* Draws the messages of a step that is over: when they left and came. */
void dls_engine_draw(dls_comm_op *op, const dls_step *step, const double *departure,
                     const double *arrival);

/* What an operation waits for, in words. */
void dls_engine_describe(const dls_comm_op *op, char *text, size_t size);

/* The communication operation behind an operation of a stream; NULL: it is none, or
 * complete. */
const dls_comm_op *dls_engine_op(const dls_gpu_op *op, const void *arg);

/* The world's rank that it needs something from; -1: none. *receives: a message, else
 * room. */
int dls_engine_awaited(const dls_comm_op *op, int *receives);
uint64_t dls_engine_bytes(const dls_comm_op *op); // sent and received so far

/* The rank that a host all-gather waits for; -1: op is none. */
int dls_host_awaited(const dls_gpu_op *op, const void *arg);

/* The idle callback of the virtual GPU: sleeps, and finds deadlocks (deadlock.c). */
int dls_deadlock_sleep(dls_world *world);

/* Tells the other ranks that this one failed, as dls_status_message() says; returns what
 * an operation's ready() returns then. */
int dls_comm_give_up(dls_comm *comm);

/* Notes for the flight recorder (note.c). */
dls_status dls_note_open(int rank, int world);
void dls_note_close(void);
void dls_note_call(dls_comm_op *op);     // enqueued
void dls_note_progress(dls_comm_op *op); // asked: began, moved, or neither
void dls_note_end(dls_comm_op *op);
void dls_note_see(void);                 // the host looks at its device
uint64_t dls_note_host(const dls_comm *comm, size_t bytes, const char *site);
void dls_note_host_end(uint64_t ticket);
const dls_recorder *dls_note_recorder(void);
void dls_note_failure(const char *how); // without a launcher: writes the records down

/* A fault to order, from DLS_FAULT (fault.c), before the call of this number. */
dls_status dls_fault_open(int rank);
void dls_fault_meet(uint64_t call);

/* Errors of a program, in a collective that would be call number `call`: changes it; 1:
 * it is to be left out. */
int dls_fault_err(uint64_t call, size_t *count, int *dtype);
uint64_t dls_note_next(void);           // the number that the next call will have

void dls_comm_divide(void *data, size_t n, int dtype, int by);

/* Index in comm->scratch of at least `bytes`, the stream's own; -1: see the status. */
int dls_comm_scratch_take(dls_comm *comm, size_t bytes, cudaStream_t stream);

/* A communicator of n ranks of the world, this one among them, in a context that is new
 * to all of them. */
dls_status dls_comm_form(dls_world *all, const int *member, int n, int context,
                         dls_comm **out);

#endif
