/* code/vgpu/simt_shared.c: from chapters/A-virtual-gpu-simt-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* The arena of a worker: all shared memory of the block that it runs.
 *
 *     guard | static arrays ->    free    <- dynamic array | guard
 *
 * Static arrays are placed when the first thread of a block comes past the declaration,
 * and poisoned then; the dynamic one when the block begins. Two sums are kept: what the
 * arrays take here (with alignment, and redzones in probed programs), and what they take
 * on hardware, which alone decides whether the block is too large.
 */
#include "vgpu/simt_internal.h"

#include <string.h>
#include <sys/mman.h>

#include "vgpu/vgpu_internal.h"

enum { GUARD = 4096 * 4, ROOM = DLS_STATIC_ROOM + DLS_DYNAMIC_ROOM, BANKS = 128 };

/* open an arena */
int dls_arena_open(dls_arena *a)
{
    char *start = dls_reserve(GUARD + ROOM + GUARD);
    if (!start)
        return 0;
    a->base = start + GUARD;
    a->end = a->base + ROOM;
    return mprotect(a->base, ROOM, PROT_READ | PROT_WRITE) == 0;
}

void dls_arena_close(dls_arena *a)
{
    if (a->base)
        munmap(a->base - GUARD, GUARD + ROOM + GUARD);
}
/* fill memory with poison */
static void poison_words(void *memory, size_t bytes)
{
    const unsigned word = DLS_SIMT_POISON;
    char *p = memory;
    for (; bytes >= sizeof word; bytes -= sizeof word, p += sizeof word)
        memcpy(p, &word, sizeof word);
    memcpy(p, &word, bytes);
}
/* begin an arena */
void dls_arena_begin(dls_simt_worker *w, const dls_simt_grid *grid)
{
    dls_arena *a = &w->arena;
    a->used = a->declared = a->count = 0;
    a->dynamic_bytes = grid->shared_bytes;
    a->dynamic = a->end - (grid->shared_bytes + BANKS - 1) / BANKS * BANKS;
    poison_words(a->dynamic, a->dynamic_bytes);
    if (dls_simt_probes && a->dynamic_bytes)
        dls_simt_probes->shared_array("dynamic shared memory", a->dynamic,
                                      a->dynamic_bytes, grid->file, grid->line);
}

void *dls_simt_dynamic_memory(void)
{
    return dls_me->arena.dynamic;
}
/* place a static array */
static size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* Adds the variable to what the block has declared; a fault if hardware could not. */
static void count_declared(dls_simt_worker *w, const dls_simt_shared *v)
{
    dls_arena *a = &w->arena;
    const size_t unit = 48 * 1024, opted = w->grid->shared_limit;
    const size_t most = (size_t)dls_vgpu.cluster.device.shared_per_block;
    const size_t limit = opted ? most : unit;
    a->declared = round_up(a->declared, v->align) + v->bytes;
    if (a->declared > unit)
        dls_fault_as(w, cudaErrorInvalidValue, "the static shared arrays up to '%s' "
                     "(%s:%d) take %zu bytes, and nvcc refuses more than %zu: use a "
                     "dynamic array", v->name, v->file, v->line, a->declared, unit);
    if (a->declared + a->dynamic_bytes > limit)
        dls_fault_as(w, cudaErrorInvalidValue, "%zu bytes of static shared arrays (up "
                     "to '%s', %s:%d) and %zu of dynamic ones exceed %zu%s",
                     a->declared, v->name, v->file, v->line, a->dynamic_bytes, limit,
                     opted ? "" : ": raise it by cudaFuncSetAttribute");
}

static void *place(dls_simt_worker *w, const dls_simt_shared *v)
{
    dls_arena *a = &w->arena;
    size_t redzone = dls_simt_probes ? BANKS : 0;
    count_declared(w, v);
    char *address = a->base + round_up(a->used, v->align > BANKS ? v->align : BANKS);
    a->used = (size_t)(address - a->base) + v->bytes + redzone;
    if (a->used > DLS_STATIC_ROOM || a->count == DLS_SHARED_VARIABLES)
        dls_fault(w, "no room for shared array '%s' (%s:%d): the emulator places %d",
                  v->name, v->file, v->line, DLS_SHARED_VARIABLES);
    a->placed[a->count].variable = v;
    a->placed[a->count++].address = address;
    poison_words(address, v->bytes);
    if (dls_simt_probes)
        dls_simt_probes->shared_array(v->name, address, v->bytes, v->file, v->line);
    return address;
}
/* find a static array */
dls_simt_slot dls_simt_shared_enter(const dls_simt_shared *variable)
{
    dls_simt_worker *w = dls_me;
    dls_arena *a = &w->arena;
    void *address = NULL;
    for (unsigned i = 0; i < a->count && !address; i++)
        if (a->placed[i].variable == variable)
            address = a->placed[i].address;
    if (!address)
        address = place(w, variable);
    return (dls_simt_slot){dls_simt_here.serial, address};
}
