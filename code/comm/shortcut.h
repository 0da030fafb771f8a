/* code/comm/shortcut.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* All-reduce in memory that the ranks share: headers go the algorithm's way, bytes the
 * shortest one. Private to comm/. */
#ifndef DLS_COMM_SHORTCUT_H
#define DLS_COMM_SHORTCUT_H

#include "comm/comm_private.h"

typedef struct dls_shortcut dls_shortcut;

/* How to do the operation's bytes at once; NULL: they have to go with the messages. All
 * ranks get the same answer. */
dls_shortcut *dls_shortcut_find(const dls_comm_op *op);
void dls_shortcut_drop(dls_shortcut *shortcut); // NULL is fine

/* After the last step: 1: the bytes are where they belong; 0: some rank is not there yet;
 * -1: failed; DLS_SHORTCUT_SHUT, on all ranks: they have to go with messages, after
 * all. */
enum { DLS_SHORTCUT_SHUT = 2 };
int dls_shortcut_move(dls_comm_op *op);

/* The communicator's rank that it waits for. */
int dls_shortcut_awaited(const dls_shortcut *shortcut);

#endif
