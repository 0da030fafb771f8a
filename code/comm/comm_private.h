/* code/comm/comm_private.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The inside of a communicator: channels, operations in flight. Private to comm/. */
#ifndef DLS_COMM_COMM_PRIVATE_H
#define DLS_COMM_COMM_PRIVATE_H

#include <pthread.h>

#include "comm/algorithms.h"
#include "comm/comm.h"
#include "comm/local.h"
#include "comm/message.h"
#include "comm/recorder.h"
#include "vgpu/gpu.h"

/* define a channel */
typedef struct dls_channel {
    uint64_t issued, served; // tickets
    uint64_t messages;       // sends or receives called so far
    double free_at;          // virtual time at which the last operation left the wire
} dls_channel;

/* define the inside of a communicator */
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

struct dls_comm {
    int rank, world;
    dls_local local;                          // unused in a world of one
    dls_channel out[DLS_LOCAL_MAX_RANKS];     // to each peer
    dls_channel in[DLS_LOCAL_MAX_RANKS];      // from each peer
    uint64_t collectives;                     // called so far
    uint64_t pages;                           // posted by the host all-gather
    uint64_t host_calls;                      // barriers and all-gathers between hosts
    char host_waits[DLS_LOCAL_WAIT];          // what the host thread waits for, or ""
    cudaStream_t stream;                      // for the waits of the host
    dls_comm_patience patience;
    int idle_rounds;                          // time-outs in a row
    pthread_mutex_t lock;                     // of the operations' progress
    dls_comm_statistics stats;
};

/* define an operation in flight */
struct dls_comm_op {
    dls_comm *comm;
    dls_algorithm *algorithm;
    dls_shape shape;
    dls_message ours;
    dls_reduce reduce;
    unsigned char *buffer;
    size_t element;                    // bytes
    int to, from;                      // peers; -1: none
    uint64_t out_ticket, in_ticket;
    int references;                    // the two stream operations that share this
    /* keep the progress of an operation */
    int k, open, done;        // step; 1: step is valid; 1: all steps are complete
    unsigned messages_out, messages_in; // of this operation, complete
    int announced, heard;     // the step's header is sent; the peer's has come
    size_t sent, received;    // bytes of the step
    dls_step step;
    dls_message theirs;
    double start, now;        // virtual seconds
    uint64_t record, noted, bytes; // ticket of the recorder; 1 + bytes noted; of steps done
};

/* declare the engine */
/* Enqueues the operation described by op (copied) on the stream. */
dls_status dls_engine_enqueue(const dls_comm_op *op, cudaStream_t stream,
                              const char *file, int line);

/* What an operation waits for, in words. */
void dls_engine_describe(const dls_comm_op *op, char *text, size_t size);

/* The communication operation behind an operation of a stream; NULL: it is none, or
 * complete. */
const dls_comm_op *dls_engine_op(const dls_gpu_op *op, const void *arg);

/* The peer from which it needs something; -1: none. *receives: a message, else room. */
int dls_engine_awaited(const dls_comm_op *op, int *receives);

/* The rank that a host all-gather waits for; -1: op is none. */
int dls_host_awaited(const dls_gpu_op *op, const void *arg);

/* The idle callback of the virtual GPU: sleeps, and finds deadlocks (deadlock.c). */
int dls_deadlock_sleep(dls_comm *comm);

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

/* A fault to order, from DLS_FAULT (fault.c), before the call of this number. */
dls_status dls_fault_open(int rank);
void dls_fault_meet(uint64_t call);

/* Tells the other ranks that this one failed, as dls_status_message() says; returns what
 * an operation's ready() returns then. */
int dls_comm_give_up(dls_comm *comm);

/* into (n) := a op b; into may be a or b. */
void dls_comm_combine(void *into, const void *a, const void *b, size_t n, int dtype,
                      dls_reduce op);
void dls_comm_divide(void *data, size_t n, int dtype, int by);

#endif
