/* code/vgpu/check_memory.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* The memory of a checked process, and the shadow that says what happened to each byte.
 *
 * All device memory comes from one range of addresses that is reserved at the start.
 * An allocation begins at a chunk, a gap follows it, and no address is ever used twice:
 *
 *   |chunk chunk ch..|  gap  |chunk|  gap  |chunk chunk ...
 *    allocation 1             2 (freed)     3
 */
#include "vgpu/check_internal.h"

#include <execinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* reserve the arena */
enum { PAGE_GAP = DLS_CHUNK, LARGEST_GAP = 1 << 20, TOUCH_LIMIT = 64 << 20 };
#define ARENA ((size_t)8 << 40)

static char *arena, *arena_used;
static dls_chunk *chunks;                  // of the arena
static dls_chunk *image_chunks;            // of the program's own variables
static dls_chunk shared_chunks[(512 << 10) / DLS_CHUNK];
extern char __data_start, _end;

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int dls_check_arena(void)
{
    size_t image = (size_t)(&_end - &__data_start) / DLS_CHUNK + 2;
    arena = arena_used = reserve(ARENA);
    chunks = reserve(ARENA / DLS_CHUNK * sizeof *chunks);
    image_chunks = calloc(image, sizeof *image_chunks);
    if (arena == NULL || chunks == NULL || image_chunks == NULL)
        return -1;
    arena_used += LARGEST_GAP; // an index below the first allocation is a gap, too
    for (size_t i = 0; i < image; i++)
        image_chunks[i] = (dls_chunk){
            .valid = DLS_CHUNK, .uniform = dls_record_of(1, 0, DLS_PLACE_OPERATION)};
    return 0;
}
/* find a chunk */
int dls_check_in_arena(uint64_t address)
{
    return address - (uint64_t)(uintptr_t)arena < ARENA;
}

dls_chunk *dls_check_chunk(uint64_t address)
{
    uint64_t off = address - (uint64_t)(uintptr_t)arena;
    if (off < ARENA)
        return &chunks[off / DLS_CHUNK];
    uint64_t start = (uint64_t)(uintptr_t)&__data_start & ~(uint64_t)(DLS_CHUNK - 1);
    if (address >= start && address < (uint64_t)(uintptr_t)&_end)
        return &image_chunks[(address - start) / DLS_CHUNK];
    return NULL;
}

/* Shared memory is at most 228 KiB: 512 KiB of addresses never fold onto each other. */
dls_chunk *dls_check_shared_chunk(uint64_t address)
{
    return &shared_chunks[address / DLS_CHUNK % (sizeof shared_chunks /
                                                 sizeof *shared_chunks)];
}
/* shape and split a chunk */
/* Gives a chunk its arrays; out of memory, the chunk stays without and is not checked. */
void dls_check_shape(dls_chunk *c, unsigned shift)
{
    size_t units = DLS_CHUNK >> shift;
    if (!c->shaped || shift > c->shift)
        c->shift = (uint8_t)shift;
    c->shaped = 1;
    if (c->w == NULL && (c->w = malloc(units * sizeof *c->w)) != NULL)
        for (size_t i = 0; i < units; i++)
            c->w[i] = c->uniform;
    if (c->r == NULL)
        c->r = calloc(units, sizeof *c->r);
}

/* Makes the units smaller; each of the new ones inherits what happened to the old. */
void dls_check_split(dls_chunk *c, unsigned shift)
{
    size_t units = DLS_CHUNK >> shift, factor = (size_t)1 << (c->shift - shift);
    dls_record *w = malloc(units * sizeof *w), (*r)[2] = calloc(units, sizeof *r);
    for (size_t i = 0; w && r && i < units; i++) {
        w[i] = c->w ? c->w[i / factor] : c->uniform;
        if (c->r)
            memcpy(r[i], c->r[i / factor], sizeof r[i]);
    }
    free(c->w);
    free(c->r);
    c->w = w;
    c->r = r;
    c->shift = (uint8_t)shift;
    c->shaped = 1;
}
/* keep every block for ever */
static dls_check_block *blocks;
static unsigned block_count, block_room;

static dls_check_block *add_block(void)
{
    if (block_count == block_room) {
        unsigned room = block_room ? 2 * block_room : 64;
        dls_check_block *more = realloc(blocks, room * sizeof *more);
        if (more == NULL)
            return NULL;
        blocks = more;
        block_room = room;
    }
    blocks[block_count] = (dls_check_block){0};
    return &blocks[block_count++];
}

dls_check_block *dls_check_block_at(uint64_t address)
{
    unsigned low = 0, high = block_count; // they are in the order of their addresses
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if ((uint64_t)(uintptr_t)blocks[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low && address - (uint64_t)(uintptr_t)arena < ARENA ? &blocks[low - 1] : NULL;
}

unsigned dls_check_block_count(void) { return block_count; }
dls_check_block *dls_check_block_number(unsigned i) { return &blocks[i]; }
/* remember who called */
/* Keeps the frames outside of the outermost one that is the virtual GPU's own. */
void dls_check_record_trace(dls_check_trace *out)
{
    void *frames[16];
    int n = backtrace(frames, 16), first = 1, called = 0;
    for (int i = 1; i < n; i++) {
        int ours = dls_check_is_ours((uintptr_t)frames[i]);
        called |= ours == 2;
        if (ours)
            first = i + 1;
        else if (called && i - first >= 2)
            break;
    }
    out->count = 0;
    for (int i = first; i < n && out->count < DLS_CHECK_FRAMES; i++)
        out->pc[out->count++] = (uintptr_t)frames[i];
    if (out->count == 0)
        out->pc[0] = 0;
}
/* give memory */
static void set_valid(const char *start, size_t bytes, int valid)
{
    for (size_t at = 0; at < bytes; at += DLS_CHUNK) {
        dls_chunk *c = dls_check_chunk((uint64_t)(uintptr_t)(start + at));
        size_t rest = bytes - at < DLS_CHUNK ? bytes - at : DLS_CHUNK;
        c->valid = valid ? (uint16_t)rest : 0;
        if (!valid) {
            free(c->w);
            free(c->r);
            *c = (dls_chunk){0};
        }
    }
}

/* The frames from the caller on. Tail calls may have hidden it from the trace. */
static void begin_at(dls_check_trace *t, const void *caller)
{
    unsigned i = 0;
    while (i < t->count && t->pc[i] != (uintptr_t)caller)
        i++;
    if (i == t->count)
        *t = (dls_check_trace){.count = 1, .pc = {(uintptr_t)caller}};
    else
        memmove(t->pc, t->pc + i, (t->count -= i) * sizeof *t->pc);
}

void *dls_check_allocate(size_t bytes, int device, const void *caller)
{
    size_t gap = bytes < LARGEST_GAP ? bytes : LARGEST_GAP;
    size_t room = (bytes + gap + PAGE_GAP + DLS_CHUNK - 1) / DLS_CHUNK * DLS_CHUNK;
    if (bytes > ARENA || room > (size_t)(arena + ARENA - arena_used))
        return NULL;
    dls_check_block *b = add_block();
    if (b == NULL)
        return NULL;
    b->start = arena_used;
    b->bytes = bytes;
    b->device = device;
    dls_check_record_trace(&b->allocated);
    if (caller)
        begin_at(&b->allocated, caller);
    arena_used += room;
    set_valid(b->start, bytes, 1);
    if (bytes <= TOUCH_LIMIT)
        memset(b->start, 0xFF, bytes);
    return b->start;
}

void *dls_check_renew(void *start)
{
    const dls_check_block *old = dls_check_block_at((uint64_t)(uintptr_t)start);
    return old ? dls_check_allocate(old->bytes, old->device, NULL) : NULL;
}

void dls_check_managed(void *start)
{
    dls_check_block *b = dls_check_block_at((uint64_t)(uintptr_t)start);
    if (b)
        b->managed = 1;
}
/* take memory back */
void dls_check_release(void *start)
{
    dls_check_block *b = dls_check_block_at((uint64_t)(uintptr_t)start);
    if (b == NULL || b->start != start || b->freed)
        return;
    dls_check_touched(1, b->start, b->bytes, b->bytes, 1); // who still uses it, races
    b->freed = 1;
    dls_check_record_trace(&b->released);
    set_valid(b->start, b->bytes, 0);
    madvise(b->start, b->bytes, MADV_DONTNEED);
}
