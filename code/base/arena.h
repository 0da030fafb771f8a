/* code/base/arena.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* A bump allocator on memory of its own or of the caller's.
 *
 *   memory |== taken ==|== taken ==|........ free ........|
 *          0                     used                 capacity      peak: largest `used`
 *
 * Not for several threads at once. The struct is visible so that it can live in another;
 * its members are for reading.
 */
#ifndef DLS_BASE_ARENA_H
#define DLS_BASE_ARENA_H

#include <stddef.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dls_arena {
    char *memory;
    size_t capacity, used, peak;
    int owned;  // destroy frees memory
} dls_arena;

/* declare the arena */
/* Uses `memory` (of `capacity` bytes, kept by the caller) or, when it is NULL, allocates.
 * Errors: DLS_ERR_MEMORY. */
dls_status dls_arena_create(dls_arena *arena, void *memory, size_t capacity);

/* *out = `size` bytes at a multiple of `align`, a power of two; 0 means 64, a cache line.
 * The content is whatever was there. Errors: DLS_ERR_MEMORY when the arena is full. */
dls_status dls_arena_alloc(dls_arena *arena, void **out, size_t size, size_t align);

/* Everything allocated after mark() is given back by release(mark). */
size_t dls_arena_mark(const dls_arena *arena);
void dls_arena_release(dls_arena *arena, size_t mark);

void dls_arena_destroy(dls_arena *arena);

#ifdef __cplusplus
}
#endif
#endif
