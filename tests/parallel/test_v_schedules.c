/* tests/parallel/test_v_schedules.c: from chapters/05-pipeline-zero-bubble-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* V schedules for every limit of memory: the paper's tables and its formula. */
#include <criterion/criterion.h>
#include <string.h>

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/v_block.h"
#include "pipeline_oracle.h"

/* try v schedules */
static oracle run(const char *name, int p, int m, int limit)
{
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    o.limit = limit;
    return oracle_of(&o, 1, 1, 1, 0);
}

static int64_t formula(int p, int x)
{
    int turn = p - 1 + 2 * (1 + (x + 1) / 2);
    return 3 * p - 1 - 3 * x + (3 * p > turn ? 3 * p : turn);
}

/* test the printed tables of v */
Test(pipeline_v, the_printed_tables)
{
    static const int four[] = {11, 8, 5, 3, 0}, six[] = {17, 14, 11, 8, 5, 3, 0};
    for (int x = 4; x <= 8; x++)
        cr_assert_eq(run("v-half", 4, 12, x).span - 72, four[x - 4], "limit %d", x);
    for (int x = 6; x <= 12; x++)
        cr_assert_eq(run("v-half", 6, 18, x).span - 108, six[x - 6], "limit %d", x);
}

/* test the formula of v */
static int is_one_above(int p, int x)
{
    return (p == 7 && x == 7) || (p == 10 && x == 9);
}

Test(pipeline_v, the_formula_for_every_limit)
{
    for (int p = 1; p <= 12; p++)
        for (int x = 2 * ((p + 4) / 3) < 2 * p ? 2 * ((p + 4) / 3) : 2 * p; x <= 2 * p;
             x++) {
            oracle v = run("v-min", p, 3 * p, x);
            cr_assert_eq(v.span, 18 * p + formula(p, x) + is_one_above(p, x), "p%d x%d",
                         p, x);
            int most = 0;
            for (int r = 0; r < p; r++)
                most = v.peak[r] > most ? v.peak[r] : most;
            cr_assert_eq(most, x);
        }
}

/* test the names of v */
Test(pipeline_v, v_half_and_v_min_hold_a_half_and_a_third)
{
    for (int p = 2; p <= 16; p++) {
        int half = 2 * ((p + 2) / 2), third = 2 * ((p + 4) / 3);
        oracle h = run("v-half", p, 2 * p - 1, 0), t = run("v-min", p, 2 * p - 1, 0);
        cr_assert_eq(h.span, 6 * (2 * p - 1) + formula(p, half), "p%d", p);
        cr_assert_eq(t.span, 6 * (2 * p - 1) + formula(p, third), "p%d", p);
        for (int r = 0; r < p; r++) {
            cr_assert_leq(h.peak[r], half);
            cr_assert_leq(t.peak[r], third);
        }
    }
}

/* test a block by hand */
Test(pipeline_v, a_block_of_two_ranks)
{
    static const int expected[2][DLS_V_PASSES] = {{0, 3, 4, 7, 5, 8},
                                                 {1, 2, 5, 6, 9, 10}};
    dls_v_shape shape = {{1, 1}, 1, {1, 1, 1}};
    dls_v_block block[2];
    cr_assert(dls_v_block_lay(&shape, 2, block));
    for (int r = 0; r < 2; r++)
        cr_assert_arr_eq(block[r].at, expected[r], sizeof expected[r], "rank %d", r);
    cr_assert_eq(dls_v_block_peak(block, 2), 4);
    shape.turn[0] = 6;  // F1 of the last rank in the slot of the next F0
    cr_assert_not(dls_v_block_lay(&shape, 2, block));
}

/* test the limits of v */
Test(pipeline_v, two_chunk_activations_are_enough_and_one_is_not)
{
    dls_schedule s;
    dls_schedule_options o = dls_schedule_defaults("v-min", 6, 5);
    for (o.limit = 2; o.limit <= 12; o.limit++) {
        cr_assert_eq(dls_schedule_make(&o, &s), DLS_OK, "%s", dls_status_message());
        cr_assert_eq(dls_schedule_check(&s, NULL), DLS_OK, "%s", dls_status_message());
        dls_schedule_free(&s);
    }
    o.limit = 1;
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "at least two chunk activations, got 1"));
}
