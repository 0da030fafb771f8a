/* code/vgpu/simt_async.c: from chapters/A-virtual-gpu-simt-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* cp.async: copies from global to shared memory that land when the thread waits for them.
 *
 * Every thread of a block has a queue of what it has issued. The bytes are fetched at the
 * issue, the earliest moment at which hardware may, and stored at the wait, the latest:
 * a program that relies on either extreme is wrong. Copies that are never waited for
 * never land.
 */
#include "vgpu/simt_internal.h"

#include <stdlib.h>
#include <string.h>

/* define a queue of copies */
typedef struct copy {
    void *to;
    unsigned group;
    int size;
    unsigned char bytes[16];
} copy;

typedef struct queue {
    unsigned serial;     // of the block that filled it
    unsigned committed;  // groups
    unsigned count, room;
    copy *copies;
} queue;

static void free_queues(void *all)
{
    queue *q = all;
    for (int i = 0; i < DLS_SIMT_MAX_THREADS; i++)
        free(q[i].copies);
    free(q);
}

/* The running thread's queue. */
static queue *own_queue(dls_simt_worker *w)
{
    if (!w->copies) {
        w->copies = calloc(DLS_SIMT_MAX_THREADS, sizeof(queue));
        w->free_copies = free_queues;
        if (!w->copies)
            dls_fault_as(w, cudaErrorMemoryAllocation, "no memory for copies");
    }
    queue *q = (queue *)w->copies + threadIdx.linear;
    if (q->serial != dls_simt_here.serial) {
        q->serial = dls_simt_here.serial;
        q->committed = q->count = 0;
    }
    return q;
}
/* check the addresses of a copy */
static void check(dls_simt_worker *w, const char *to, const void *from, int size,
                  int bytes, const char *file, int line)
{
    const dls_arena *a = &w->arena;
    if (((uintptr_t)to | (uintptr_t)from) % (unsigned)size)
        dls_fault_as(w, cudaErrorMisalignedAddress, "thread (%u,%u,%u): cp.async of %d "
                     "bytes at %s:%d from %p to %p: both must be multiples of %d",
                     threadIdx.x, threadIdx.y, threadIdx.z, size, file, line, from,
                     (const void *)to, size);
    if (to < a->base || to + size > a->end)
        dls_fault_as(w, cudaErrorIllegalAddress, "thread (%u,%u,%u): cp.async at %s:%d "
                     "copies to %p, which is not in shared memory", threadIdx.x,
                     threadIdx.y, threadIdx.z, file, line, (const void *)to);
    if (bytes < 0 || bytes > size)
        dls_fault(w, "cp.async at %s:%d reads %d of %d bytes", file, line, bytes, size);
}
/* issue a copy */
void dls_simt_copy_async(void *shared, const void *global, int size, int bytes,
                         const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    queue *q = own_queue(w);
    check(w, shared, global, size, bytes, file, line);
    if (q->count == q->room) {
        unsigned room = q->room ? 2 * q->room : 8;
        copy *grown = realloc(q->copies, room * sizeof *grown);
        if (!grown)
            dls_fault_as(w, cudaErrorMemoryAllocation, "no memory for copies");
        q->copies = grown;
        q->room = room;
    }
    copy *c = &q->copies[q->count++];
    *c = (copy){.to = shared, .group = q->committed, .size = size};
    memcpy(c->bytes, global, (size_t)bytes);
    if (dls_simt_probes) {
        const void *pc = __builtin_return_address(0);
        if (bytes)
            dls_simt_probes->access(global, (size_t)bytes, 0, pc);
        dls_simt_probes->access(shared, (size_t)size, 1, pc);
    }
}
/* commit and wait for copies */
void dls_simt_copy_commit(void)
{
    own_queue(dls_me)->committed++;
}

void dls_simt_copy_wait(int groups)
{
    queue *q = own_queue(dls_me);
    unsigned landed = 0, below = q->committed - (unsigned)groups;
    if (groups < 0)
        below = ++q->committed;
    else if ((unsigned)groups >= q->committed)
        below = 0;
    for (; landed < q->count && q->copies[landed].group < below; landed++) {
        const copy *c = &q->copies[landed];
        memcpy(c->to, c->bytes, (size_t)c->size);
        if (dls_simt_probes)
            dls_simt_probes->access(c->to, (size_t)c->size, 2,
                                    __builtin_return_address(0));
    }
    q->count -= landed;
    memmove(q->copies, q->copies + landed, q->count * sizeof *q->copies);
}
