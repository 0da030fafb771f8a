/* tests/base/test_arena.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Arena: alignment on memory that begins anywhere, exhaustion, marks. */
#include <stdint.h>

#include "base/arena.h"
#include "expect.h"

/* test the arena */
Test(base, arena_aligns_addresses)
{
    _Alignas(64) char memory[1024];
    dls_arena arena;
    void *p, *q;
    EXPECT_OK(dls_arena_create(&arena, memory + 3, 1000));
    EXPECT_OK(dls_arena_alloc(&arena, &p, 1, 0));
    EXPECT_OK(dls_arena_alloc(&arena, &q, 8, 256));
    cr_expect_eq((uintptr_t)p % 64, 0);
    cr_expect_eq((uintptr_t)q % 256, 0);
    cr_expect((char *)p >= memory + 3);
    dls_arena_destroy(&arena);  // must not free the caller's memory
}

Test(base, arena_refuses_what_does_not_fit)
{
    dls_arena arena;
    void *p;
    EXPECT_OK(dls_arena_create(&arena, NULL, 100));
    EXPECT_OK(dls_arena_alloc(&arena, &p, 40, 8));
    EXPECT_ERROR(dls_arena_alloc(&arena, &p, 61, 1), DLS_ERR_MEMORY,
                 "arena: 61 bytes wanted, 60 of 100 are free");
    EXPECT_ERROR(dls_arena_alloc(&arena, &p, SIZE_MAX - 10, 1), DLS_ERR_MEMORY,
                 "arena: 18446744073709551605 bytes wanted, 60 of 100 are free");
    EXPECT_OK(dls_arena_alloc(&arena, &p, 60, 1));
    dls_arena_destroy(&arena);
}

Test(base, arena_gives_back_to_the_mark)
{
    dls_arena arena;
    void *first, *again;
    EXPECT_OK(dls_arena_create(&arena, NULL, 4096));
    size_t mark = dls_arena_mark(&arena);
    EXPECT_OK(dls_arena_alloc(&arena, &first, 3000, 0));
    dls_arena_release(&arena, mark);
    EXPECT_OK(dls_arena_alloc(&arena, &again, 10, 0));
    cr_expect_eq(first, again);
    cr_expect_eq(arena.peak, 3000);
    dls_arena_destroy(&arena);
}
