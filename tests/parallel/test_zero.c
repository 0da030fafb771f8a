/* tests/parallel/test_zero.c: from chapters/04-data-parallelism-zero-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* ZeRO: every stage equals one device; memory and wire bytes equal the laws. */
#include "zero_layout.h"

/* test that every stage equals one device */
static void prove_stage(int n, const layout *l)
{
    expect_layout(n, l, .exact = 1, .rows = 7, .micro = 2, .steps = 1, .clip = 8);
    expect_layout(n, l, .exact = 0, .rows = 7, .micro = 2, .steps = 3, .clip = 0.5);
}

static void prove_worlds(int stage)
{
    dls_zero_options o = {.stage = stage, .prefetch = 1};
    char name[32];
    snprintf(name, sizeof name, "stage %d", stage);
    layout l = zero_layout(name, &o);
    for (int n = 1; n <= 5; n++)
        prove_stage(n, &l);
    expect_layout(8, &l, .exact = 1, .rows = 9, .micro = 1, .steps = 1, .clip = 8);
    expect_layout(5, &l, .exact = 1, .rows = 2, .micro = 1, .steps = 1);
}

Test(zero, stage_0_equals_one_device) { prove_worlds(0); }
Test(zero, stage_1_equals_one_device) { prove_worlds(1); }
Test(zero, stage_2_equals_one_device) { prove_worlds(2); }
Test(zero, stage_3_equals_one_device) { prove_worlds(3); }

/* test that fetching is a layout too */
Test(zero, fetching_ahead_or_late_changes_nothing)
{
    for (int prefetch = 0; prefetch <= 6; prefetch += 2)
        for (int keep = 0; keep <= 1; keep++) {
            dls_zero_options o = {.stage = 3, .prefetch = prefetch, .keep_forward = keep};
            layout l = zero_layout("fetching", &o);
            prove_stage(3, &l);
        }
}

Test(zero, other_models_are_cut_as_well)
{
    for (int stage = 1; stage <= 3; stage++) {
        dls_zero_options o = {.stage = stage, .prefetch = 1};
        layout l = zero_layout("other models", &o);
        expect_layout(3, &l, .rows = 5, .micro = 2, .steps = 2, .untied = 1);
        expect_layout(2, &l, .rows = 5, .micro = 2, .steps = 2, .llama = 1, .clip = 0.5);
    }
}

/* test that copies and hosts are layouts too */
Test(zero, several_copies_equal_one_device)
{
    static const struct { int n, size; } worlds[] = {{4, 2}, {6, 3}, {6, 2}, {3, 1}};
    for (int w = 0; w < 4; w++)
        for (int stage = 1; stage <= 3; stage++) {
            dls_zero_options o = {.stage = stage, .shard_size = worlds[w].size,
                                  .prefetch = 1};
            layout l = zero_layout("copies", &o);
            prove_stage(worlds[w].n, &l);
        }
}

Test(zero, the_host_computes_the_same_update)
{
    for (int stage = 0; stage <= 3; stage++) {
        dls_zero_options o = {.stage = stage, .offload = 1, .prefetch = 1};
        layout l = zero_layout("offload", &o);
        prove_stage(3, &l);
    }
    dls_zero_options o = {.stage = 3, .shard_size = 2, .offload = 1};
    layout l = zero_layout("offload, copies", &o);
    prove_stage(4, &l);
}
