/* code/comm/heap.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Memory of one rank that the others can map: where shared buffers live. Private to
 * comm/. One heap per process, mapped until it ends, since buffers outlive
 * communicators. */
#ifndef DLS_COMM_HEAP_H
#define DLS_COMM_HEAP_H

#include "comm/local.h"

/* From now on dls_gpu_alloc_shared takes from this rank's heap while it has room. Without
 * a heap (no address space left, a real device) buffers stay private to the process. */
void dls_heap_open(const dls_local *local);

/* 1: dls_gpu_alloc_shared takes from the heap. The same on all ranks of a job. */
int dls_heap_is_used(void);

/* 1 and the *offset in the heap of this rank, if the bytes lie there. */
int dls_heap_find(const void *at, size_t bytes, uint64_t *offset);

/* What is at the offset in the heap of a rank, in this process; NULL: can't be mapped. */
void *dls_heap_at(const dls_local *local, int rank, uint64_t offset);

#endif
