/* code/comm/heap.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* The heap of a rank: first fit over a sorted list of what is free.
 *
 *   | used | free | used | free ................................................. |
 *
 * A freed block's whole pages are given back to the system; the next to use them finds
 * zeros. */
#include "comm/heap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vgpu/gpu.h"

/* keep what is free */
enum { ALIGNMENT = 256, RETURNED = 64 << 10 }; // smaller blocks keep their pages

typedef struct range {
    size_t first, bytes;
} range;

static struct heap {
    char *base;        // NULL: no heap
    int fd, rank, used;
    off_t in_file;     // where it begins
    range *free;       // sorted, never touching each other
    size_t count, room;
    char *others[DLS_LOCAL_MAX_RANKS];
} heap;

static size_t round_up(size_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* take from the heap */
static void drop_range(size_t i)
{
    heap.count--;
    memmove(heap.free + i, heap.free + i + 1, (heap.count - i) * sizeof *heap.free);
}

static void *take(size_t bytes)
{
    size_t wanted = round_up(bytes);
    for (size_t i = 0; i < heap.count; i++) {
        range *r = &heap.free[i];
        if (r->bytes < wanted || wanted < bytes)
            continue;
        char *at = heap.base + r->first;
        r->first += wanted;
        r->bytes -= wanted;
        if (r->bytes == 0)
            drop_range(i);
        return at;
    }
    return NULL;
}

/* give back to the heap */
static int insert_range(size_t i, range r)
{
    if (heap.count == heap.room) {
        size_t room = heap.room ? 2 * heap.room : 64;
        range *more = realloc(heap.free, room * sizeof *more);
        if (!more)
            return 0; // these addresses are lost, no more
        heap.free = more;
        heap.room = room;
    }
    memmove(heap.free + i + 1, heap.free + i, (heap.count - i) * sizeof *heap.free);
    heap.free[i] = r;
    heap.count++;
    return 1;
}

static void join_with_next(size_t i)
{
    range *r = &heap.free[i];
    if (i + 1 < heap.count && r->first + r->bytes == r[1].first) {
        r->bytes += r[1].bytes;
        drop_range(i + 1);
    }
}

static void return_pages(size_t first, size_t bytes)
{
    size_t page = 4096, from = (first + page - 1) / page * page;
    size_t to = (first + bytes) / page * page;
    if (bytes >= RETURNED && to > from)
        fallocate(heap.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  heap.in_file + (off_t)from, (off_t)(to - from));
}

/* 0: it is not of this heap. */
static int give(void *at, size_t bytes)
{
    uint64_t first;
    size_t i = 0;
    if (!dls_heap_find(at, 1, &first))
        return 0;
    bytes = round_up(bytes);
    return_pages(first, bytes);
    while (i < heap.count && heap.free[i].first < first)
        i++;
    if (insert_range(i, (range){first, bytes})) {
        join_with_next(i);
        if (i > 0)
            join_with_next(i - 1);
    }
    return 1;
}

/* open the heap */
static int is_taken_from(void)
{
    uint64_t offset;
    void *probe = NULL;
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_COMMUNICATION);
    int is = dls_gpu_alloc_shared(&probe, 1) == 0 && dls_heap_find(probe, 1, &offset);
    cudaFree(probe);
    dls_gpu_memory_purpose(before);
    return is;
}

void dls_heap_open(const dls_local *local)
{
    if (heap.base || !local->heaps)
        return;
    off_t at = local->heaps + (off_t)local->rank * (off_t)DLS_LOCAL_HEAP;
    void *base = mmap(NULL, DLS_LOCAL_HEAP, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE, local->fd, at);
    if (base == MAP_FAILED || !insert_range(0, (range){0, DLS_LOCAL_HEAP}))
        return;
    heap.base = base;
    heap.fd = local->fd;
    heap.rank = local->rank;
    heap.in_file = at;
    dls_gpu_set_shared_memory(take, give);
    heap.used = is_taken_from();
}

int dls_heap_is_used(void) { return heap.used; }

/* see the heaps of others */
int dls_heap_find(const void *at, size_t bytes, uint64_t *offset)
{
    size_t first = (size_t)at - (size_t)heap.base;
    if (!heap.base || first >= DLS_LOCAL_HEAP || bytes > DLS_LOCAL_HEAP - first)
        return 0;
    *offset = first;
    return 1;
}

void *dls_heap_at(const dls_local *local, int rank, uint64_t offset)
{
    char **base = &heap.others[rank];
    if (!heap.base || heap.fd != local->fd || heap.rank != local->rank)
        return NULL;
    if (rank == heap.rank)
        return heap.base + offset;
    if (!*base) {
        void *at = mmap(NULL, DLS_LOCAL_HEAP, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_NORESERVE, local->fd,
                        local->heaps + (off_t)rank * (off_t)DLS_LOCAL_HEAP);
        *base = at == MAP_FAILED ? NULL : at;
    }
    return *base ? *base + offset : NULL;
}
