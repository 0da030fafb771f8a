/* tests/parallel/test_pipeline_csv.c: from chapters/05-pipeline-command-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* CSV: round trips of the whole table, and what a reader's own file may get wrong. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/csv.h"
#include "parallel/pipeline/lower.h"
#include "pipeline_text.h"

/* test csv round trips */
static void there_and_back(const dls_schedule *s)
{
    char *text = text_of(s);
    dls_schedule back = schedule_of(text);
    char *again = text_of(&back);
    cr_assert_str_eq(again, text);
    cr_assert_eq(back.options.ranks, s->options.ranks);
    cr_assert_eq(back.options.microbatches, s->options.microbatches);
    cr_assert_eq(back.stages, s->stages);
    for (int stage = 0; stage < s->stages; stage++)
        for (int i = 0; i < s->options.microbatches; i++)
            cr_assert_eq(dls_schedule_rank(&back, stage, i),
                         dls_schedule_rank(s, stage, i), "%s", s->options.name);
    free(again);
    free(text);
    dls_schedule_free(&back);
}

Test(pipeline_csv, every_schedule_there_and_back)
{
    for (int i = 0; dls_schedule_at(i); i++)
        for (int p = 1; p <= 6; p++) {
            dls_schedule s, lowered;
            dls_schedule_options o =
                dls_schedule_defaults(dls_schedule_at(i)->name, p, 2 * p + 1);
            if (dls_schedule_make(&o, &s) != DLS_OK)
                continue;
            there_and_back(&s);
            cr_assert_eq(dls_lower(&s, 1, &lowered), DLS_OK);
            there_and_back(&lowered);
            dls_schedule_free(&lowered);
            dls_schedule_free(&s);
        }
}

/* test lenient reading */
static void expect_same(const char *written, const char *read)
{
    dls_schedule s = schedule_of(written);
    char *text = text_of(&s);
    cr_assert_str_eq(text, read);
    free(text);
    dls_schedule_free(&s);
}

Test(pipeline_csv, spaces_and_empty_cells_mean_nothing)
{
    expect_same("0F0,0F1,,,0B0, 0B1 \r\n,1F0,1B0,1F1\t,1B1", "0F0,0F1,0B0,0B1\n"
                "1F0,1B0,1F1,1B1\n");
    expect_same("0F0\n\n\n,,\n \n", "0F0\n");
    expect_same("\n1F0\n", "\n1F0\n");
    expect_same("(0F0;0B1)OVERLAP_F_B , (0SEND_F0;0RECV_B0;0SEND_F1)BATCH\n",
                "(0F0;0B1)OVERLAP_F_B,(0SEND_F0;0RECV_B0;0SEND_F1)BATCH\n");
}
Test(pipeline_csv, the_placement_that_fits_best)
{
    dls_schedule s = schedule_of("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n");
    cr_assert_eq(s.placement, DLS_PLACE_V);
    dls_schedule_free(&s);
    s = schedule_of("0F0,3F0,3B0,1B0\n1F0,2F0,2B0,0B0\n");
    cr_assert_eq(s.placement, DLS_PLACE_V);
    dls_schedule_free(&s);
    s = schedule_of("0F0,1F1,1B1,0B0\n0F1,1F0,1B0,0B1\n");
    cr_assert_eq(s.placement, DLS_PLACE_BOTH);
    dls_schedule_free(&s);
    s = schedule_of("0F0,2F0,2B0,0B0\n1F0,3F0,3B0,1B0\n");
    cr_assert_eq(s.placement, DLS_PLACE_LOOP);
    cr_assert(s.options.chunks == 2 && s.stages == 4);
    dls_schedule_free(&s);
}

/* test hostile csv */
static void expect_refused(const char *text, size_t size, const char *start)
{
    dls_schedule s;
    cr_assert_eq(dls_schedule_from_csv("own.csv", text, size, &s), DLS_ERR_INPUT,
                 "%.60s", text);
    cr_assert(strncmp(dls_status_message(), start, strlen(start)) == 0, "%.60s: %s", text,
              dls_status_message());
    cr_assert_null(s.order);
}

Test(pipeline_csv, what_is_no_action)
{
    static const char *const bad[] = {
        "0X0", "F0", "0F", "0f0", "-1F0", "0F-1", "0F0x", "0F0 0F1", "0 F0", "32768F0",
        "99999999999999999999F0", "0F2147483647", "0F99999999999999999999", "0STEP0",
        "0SEND0", "0SEND_F", "SEND_F0", "(0F0)", "(0F0;0B1", "(0F0;0B1)", "()BATCH",
        "(0F0;0B1)BATCH", "(0SEND_F0;0RECV_B0)OVERLAP_F_B", "(0SEND_F0)BATCH",
        "(0F0;0B1;0F2)OVERLAP_F_B", "(0F0;)OVERLAP_F_B", "(;0F0)OVERLAP_F_B",
        "(0F0;0STEP)OVERLAP_F_B", "\"0F0\"", "0F0;0F1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[128];
        int n = snprintf(line, sizeof line, "0F0\n0F1, ,%s,0F2\n", bad[i]);
        expect_refused(line, (size_t)n, "own.csv:2: cell 3: expected an action like ");
    }
    expect_refused("0F0\0,0F1", 8, "own.csv:1: cell 1: expected an action");
}
Test(pipeline_csv, what_is_no_schedule)
{
    expect_refused("", 0, "own.csv: expected a line of actions for each of 1 to 4096 "
                   "ranks, got 0");
    expect_refused(" ,\n,,\n", 6, "own.csv: expected a line of actions");
    expect_refused("32767F0", 7, "own.csv: chunks: expected a number from 1 to 32767, "
                   "got 32768");
    expect_refused("0F1048576", 9, "own.csv: micro-batches: expected a number from 1 to "
                   "1048576, got 1048577");
    expect_refused("999F9999\n", 9, "own.csv: 1 stages x 1000 chunks x 10000 "
                   "micro-batches are 10000000 passes: expected at most 4194304");
    static char lines[2 * 4097 + 4];
    for (int i = 0; i < 4097; i++)
        memcpy(lines + 2 * i, ",\n", 2);
    memcpy(lines + 2 * 4097, "0F0", 3);
    expect_refused(lines, 2 * 4097 + 3, "own.csv: expected a line of actions for each of "
                   "1 to 4096 ranks, got more than 4096");
}
Test(pipeline_csv, random_bytes_end_in_a_sentence)
{
    static const char letters[] = "0123456789FIWB_,;()\n SENDRCVHATCOLP\0\xff";
    uint64_t state = 1;
    int read = 0;
    for (int trial = 0; trial < 10000; trial++) {
        char text[24];
        size_t n = (size_t)(trial % (int)sizeof text);
        for (size_t i = 0; i < n; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            text[i] = letters[(state >> 33) % (trial % 3 ? 12 : sizeof letters - 1)];
        }
        dls_schedule s;
        dls_status status = dls_schedule_from_csv("r", text, n, &s);
        cr_assert(status == DLS_OK || status == DLS_ERR_INPUT);
        read += status == DLS_OK;
        dls_schedule_free(&s);
    }
    cr_assert_gt(read, 10);
}
