/* code/base/arena.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* The arena: see the picture in arena.h. */
#include "base/arena.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

/* create and destroy an arena */
dls_status dls_arena_create(dls_arena *arena, void *memory, size_t capacity)
{
    int owned = memory == NULL;
    if (owned && posix_memalign(&memory, 64, capacity ? capacity : 64) != 0)
        return DLS_FAIL(DLS_ERR_MEMORY, "arena: cannot allocate %zu bytes", capacity);
    *arena = (dls_arena){.memory = memory, .capacity = capacity, .owned = owned};
    return DLS_OK;
}

void dls_arena_destroy(dls_arena *arena)
{
    if (arena->owned)
        free(arena->memory);
    *arena = (dls_arena){0};
}

/* take a slice */
dls_status dls_arena_alloc(dls_arena *arena, void **out, size_t size, size_t align)
{
    if (align == 0)
        align = 64;
    assert((align & (align - 1)) == 0);
    uintptr_t base = (uintptr_t)arena->memory;
    size_t start = (size_t)(((base + arena->used + align - 1) & ~(align - 1)) - base);
    if (start > arena->capacity || size > arena->capacity - start)
        return DLS_FAIL(DLS_ERR_MEMORY,
                        "arena: %zu bytes wanted, %zu of %zu are free", size,
                        arena->capacity - arena->used, arena->capacity);
    arena->used = start + size;
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    *out = arena->memory + start;
    return DLS_OK;
}

/* mark and release */
size_t dls_arena_mark(const dls_arena *arena)
{
    return arena->used;
}

void dls_arena_release(dls_arena *arena, size_t mark)
{
    assert(mark <= arena->used);
    arena->used = mark;
}
