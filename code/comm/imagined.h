/* code/comm/imagined.h: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* What an imagined communicator does when it is called. Private to comm/. */
#ifndef DLS_COMM_IMAGINED_H
#define DLS_COMM_IMAGINED_H

#include "comm/comm_private.h"

/* Enqueues what takes the operation's time, and drops the operation. */
dls_status dls_imagined_enqueue(dls_comm_op *op, cudaStream_t stream, const char *file,
                                int line);

/* Notes the scratch memory that a call would take. */
void dls_imagined_need(dls_comm *comm, size_t bytes);

#endif
