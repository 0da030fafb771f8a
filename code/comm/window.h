/* code/comm/window.h: from chapters/08-dispatch-nodes-one-sided.md. Edit the chapter, or edit here and run "make untangle". */
/* Memory of every rank that the others write to, and signals that say when.
 *
 *   window   | turn, even: signals (ranks) | counts (slots) | slots x room rows |
 *            | turn, odd:  the same                                             |
 *
 * A turn: everybody puts rows to everybody (or none), everybody takes what has come. Two
 * halves suffice: who puts in turn n + 2 has taken turn n + 1 from all, and they had
 * taken turn n before they put that. */
#ifndef DLS_COMM_WINDOW_H
#define DLS_COMM_WINDOW_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare a window */
typedef struct dls_window dls_window;

/* `slots` places of `bytes` each, a multiple of the ranks. Collective. DLS_ERR_INPUT:
 * ranks whose memory is not to be seen here (real devices, other machines). */
dls_status dls_window_open(dls_window **out, dls_comm *comm, int slots, size_t bytes);
size_t dls_window_bytes(int ranks, int slots, size_t bytes); // device memory of one
void dls_window_close(dls_window *window); // after the streams are synchronised

/* Rows in blocks, `per` for each rank: in order[] by rank, or by block. */
typedef enum dls_window_order { DLS_BY_RANK, DLS_BY_BLOCK } dls_window_order;

typedef struct dls_window_rows {
    dls_window_order order;
    const int *count;  // (ranks * per): rows of each block; read when the stream is there
    int room;          // the most rows of a block
    size_t row;        // bytes of a row
    dls_status (*check)(const int *count, int n); // before a put; NULL: nothing to check
} dls_window_rows;

/* declare a turn */
/* Begins a turn. DLS_BY_RANK: `from` has blocks 0, 1, ... without gaps; block r * per + k
 * goes to rank r, slot k * ranks + this rank. DLS_BY_BLOCK: block k * ranks + r begins at
 * row (k * ranks + r) * room; goes to rank r, slot this rank * per + k. */
dls_status dls_window_put(dls_window *window, const dls_window_rows *rows,
                          const void *from, cudaStream_t stream);

/* Ends it, once all ranks have put. Slots in order. DLS_BY_BLOCK: each to `room` rows of
 * `to`, zeros behind the last; came (slots), if not NULL := their counts. DLS_BY_RANK: one
 * behind the other, those of `rows->count`, which must be what comes. */
dls_status dls_window_take(dls_window *window, const dls_window_rows *rows, void *to,
                           int *came, cudaStream_t stream);

typedef struct dls_window_statistics {
    uint64_t turns, messages;           // rows and counts for one rank are a message
    uint64_t bytes[64];                 // to each rank of the communicator
    size_t memory;                      // of this rank's window
} dls_window_statistics;
dls_window_statistics dls_window_stats(const dls_window *window);

#ifdef __cplusplus
}
#endif
#endif
