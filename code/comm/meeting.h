/* code/comm/meeting.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Small all-reduces in shared memory: one wait for all inputs, then one rank computes
 * what the algorithm does on all of them. Private to comm/. */
#ifndef DLS_COMM_MEETING_H
#define DLS_COMM_MEETING_H

#include "comm/comm_private.h"

/* After the start is settled: sets op->meeting and shows our card, if the operation goes
 * by a meeting, which is so on all ranks that call the same. */
void dls_meeting_begin(dls_comm_op *op);

/* 1: complete; 0: waits for op->absent; -1: the calls differ, or another failure. */
int dls_meeting_move(dls_comm_op *op);

/* Of an operation that waits for messages: DLS_ERR_COMM: a rank that should send one has
 * shown a card instead. */
dls_status dls_meeting_is_elsewhere(const dls_comm_op *op);

void dls_meeting_drop(struct dls_meeting *meeting); // NULL is fine

#endif
