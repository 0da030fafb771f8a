/* tests/parallel/test_pipeline_evaluate.c: from chapters/05-pipeline-evaluate-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The evaluator on cases computed by hand: every start and end. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "parallel/pipeline/evaluate.h"
#include "pipeline_text.h"

/* expect an evaluation */
/* Times as "start-end start-end ..." of a rank. */
static void expect_times(const dls_evaluation *e, const dls_schedule *s, int rank,
                         const char *expected)
{
    char text[512] = "", *at = text;
    for (size_t i = 0; i < s->order[rank].n; i++)
        at += snprintf(at, 32, "%s%lld-%lld", i ? " " : "",
                       (long long)e->start[rank][i], (long long)e->end[rank][i]);
    cr_assert_str_eq(text, expected);
}

static dls_evaluation evaluate(const dls_schedule *s)
{
    dls_evaluation e;
    cr_assert_eq(dls_evaluate(s, &e), DLS_OK, "%s", dls_status_message());
    return e;
}

/* test two ranks by hand */
static const char gpipe[] = "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n";

Test(pipeline_evaluate, two_ranks_by_hand)
{
    dls_schedule s = schedule_of(gpipe);
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-1 1-2 5-7 7-9");
    expect_times(&e, &s, 1, "1-2 2-3 3-5 5-7");
    cr_assert(e.makespan == 9 && e.span == 9 && e.ideal == 6 && e.ranks == 2);
    cr_assert(e.busy[0] == 6 && e.busy[1] == 6);
    cr_assert(e.peak[0] == 2 && e.peak[1] == 2);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

Test(pipeline_evaluate, one_rank_never_waits)
{
    dls_schedule s = schedule_of("0F0,1F0,1I0,0I0,1W0,0W0\n");
    s.options.cost = (dls_pipeline_costs){.F = 3, .I = 5, .W = 7, .hop = 1000};
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-3 3-6 6-11 11-16 16-23 23-30");
    cr_assert(e.makespan == 30 && e.ideal == 30 && e.busy[0] == 30 && e.peak[0] == 2);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
    s = schedule_of("0F0,0B0\n");
    s.options.cost = (dls_pipeline_costs){.F = 3, .I = 5, .W = 7};
    e = evaluate(&s);
    expect_times(&e, &s, 0, "0-3 3-15");
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

/* test hops by hand */
Test(pipeline_evaluate, a_hop_delays_and_does_not_occupy)
{
    dls_schedule s = schedule_of(gpipe);
    s.options.cost.hop = 2;
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-1 1-2 9-11 11-13");
    expect_times(&e, &s, 1, "3-4 4-5 5-7 7-9");
    cr_assert(e.makespan == 13 && e.span == 13 && e.busy[0] == 6);
    dls_evaluation_free(&e);
    s.options.cost.sends_occupy = 1;
    e = evaluate(&s);
    expect_times(&e, &s, 0, "0-1 3-4 11-13 15-17");
    expect_times(&e, &s, 1, "3-4 6-7 7-9 11-13");
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

Test(pipeline_evaluate, a_hop_within_a_rank_is_free)
{
    dls_schedule s = schedule_of("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n");
    cr_assert_eq(s.placement, DLS_PLACE_V);
    s.options.cost.hop = 10;
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-1 23-24 24-26 50-52");
    expect_times(&e, &s, 1, "11-12 12-13 36-38 38-40");
    cr_assert(e.span == 52);
    dls_evaluation_free(&e);
    s.options.cost.sends_occupy = 1;  // nothing is sent at the turn
    e = evaluate(&s);
    expect_times(&e, &s, 1, "11-12 12-13 36-38 38-40");
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}
Test(pipeline_evaluate, the_span_is_the_longest_of_a_rank)
{
    dls_schedule s = schedule_of("0F0,0F1\n1F0,1F1\n");
    s.options.cost.of_stage = (const int64_t[]){1, 0, 0, 2, 0, 0};
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 1, "1-3 3-5");
    cr_assert(e.makespan == 5 && e.span == 4 && e.ideal == 4);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
    s = schedule_of("0F0\n1STEP\n");  // a rank that computes nothing has no span
    s.options.cost.F = 0;
    e = evaluate(&s);
    cr_assert(e.makespan == 0 && e.span == 0 && e.busy[1] == 0);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

/* test memory by hand */
static void expect_peak(const char *csv, int64_t hold, int64_t keep, int64_t peak)
{
    dls_schedule s = schedule_of(csv);
    s.options.memory = (dls_pipeline_memory){hold, keep};
    dls_evaluation e = evaluate(&s);
    cr_assert_eq(e.peak[0], peak, "%s: %lld", csv, (long long)e.peak[0]);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

Test(pipeline_evaluate, memory_by_hand)
{
    expect_peak("0F0,0F1,0I0,0I1,0W0,0W1\n", 4, 3, 8);
    expect_peak("0F0,0I0,0F1,0I1,0W0,0W1\n", 4, 3, 7);
    expect_peak("0F0,0I0,0F1,0I1,0W0,0W1\n", 4, 4, 8);
    expect_peak("0F0,0I0,0F1,0I1,0W0,0W1\n", 4, 0, 4);
    expect_peak("0F0,0I0,0W0,0F1,0I1,0W1\n", 4, 3, 4);
    expect_peak("0F0,0B0,0F1,0B1\n", 4, 3, 4);
    expect_peak("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n", 4, 3, 8);
    expect_peak("0F0,(0B0;0F1)OVERLAP_F_B,0B1\n", 4, 3, 8);
    expect_peak("0F0,0F1\n", 4, 3, 8);
}

/* test costs of stages */
Test(pipeline_evaluate, an_overlapped_pair_has_its_own_cost)
{
    dls_schedule s = schedule_of("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n");
    s.options.cost.F = 2;
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-2 2-6 2-6 6-8");
    cr_assert(e.busy[0] == 8 && e.ideal == 8);
    dls_evaluation_free(&e);
    s.options.cost.overlapped = 3;
    e = evaluate(&s);
    expect_times(&e, &s, 0, "0-2 2-5 2-5 5-7");
    cr_assert(e.makespan == 7 && e.busy[0] == 7 && e.ideal == 8);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

Test(pipeline_evaluate, a_pair_waits_for_all_that_both_need)
{
    dls_schedule s = schedule_of("0F0,0F1,0B0,0B1\n1F0,(1F1;1B0)OVERLAP_F_B,1B1\n");
    s.options.cost = (dls_pipeline_costs){
        .hop = 5, .of_stage = (const int64_t[]){4, 1, 1, 1, 1, 1}};
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 1, "9-10 13-16 13-16 16-18");
    expect_times(&e, &s, 0, "0-4 4-8 21-23 23-25");
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

Test(pipeline_evaluate, two_results_of_a_pair_go_one_after_the_other)
{
    dls_schedule s = schedule_of(
        "0F0,2F0,(0F1;2I0)OVERLAP_F_B,2W0,2F1,0B0,2B1,0B1\n"
        "1F0,3F0,3B0,1F1,1B0,3F1,3B1,1B1\n");
    s.options.cost = (dls_pipeline_costs){.F = 2, .I = 1, .W = 1, .hop = 5, .wire = 3};
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-2 14-16 30-33 30-33 33-34 45-47 48-50 61-63 75-77");
    expect_times(&e, &s, 1, "7-9 21-23 23-25 38-40 41-43 52-54 54-56 68-70");
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

Test(pipeline_evaluate, results_for_different_ranks_have_different_wires)
{
    dls_schedule s = schedule_of("0F0,0F1,0B0,0B1\n1F0,(1F1;1B0)OVERLAP_F_B,1B1\n"
                                 "2F0,2B0,2F1,2B1\n");
    s.options.cost = (dls_pipeline_costs){.F = 2, .I = 1, .W = 1, .hop = 1, .wire = 50};
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-2 2-4 16-18 24-26");
    expect_times(&e, &s, 1, "3-5 11-15 11-15 21-23");
    expect_times(&e, &s, 2, "6-8 8-10 16-18 18-20");
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

/* test stages of different cost */
Test(pipeline_evaluate, stages_of_different_cost)
{
    dls_schedule s = schedule_of(gpipe);
    s.options.cost.of_stage = (const int64_t[]){1, 1, 1, 3, 3, 3};
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-1 1-2 13-15 19-21");
    expect_times(&e, &s, 1, "1-4 4-7 7-13 13-19");
    cr_assert(e.ideal == 18 && e.busy[0] == 6 && e.makespan == 21);
    dls_evaluation_free(&e);
    s.options.cost.of_stage = (const int64_t[]){3, 3, 3, 1, 1, 1};
    e = evaluate(&s);
    cr_assert(e.ideal == 18 && e.busy[0] == 18 && e.busy[1] == 6);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

Test(pipeline_evaluate, a_backward_pass_in_one_piece_has_its_own_cost)
{
    dls_schedule s = schedule_of(gpipe);
    s.options.cost.of_stage = (const int64_t[]){1, 1, 1, 3, 3, 3};
    s.options.cost.of_B = (const int64_t[]){1, 5};
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-1 1-2 12-13 17-18");
    expect_times(&e, &s, 1, "1-4 4-7 7-12 12-17");
    cr_assert(e.ideal == 16 && e.busy[0] == 4);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

/* test what takes no time */
Test(pipeline_evaluate, what_lowering_puts_in_takes_no_time)
{
    dls_schedule s = schedule_of(
        "0UNSHARD,0F0,0SEND_F0,0F1,(0SEND_F1;0RECV_B0)BATCH,0B0,0RECV_B1,0B1,"
        "0REDUCE_GRAD,0RESHARD,0STEP\n"
        "1RECV_F0,1F0,1RECV_F1,1F1,1B0,1SEND_B0,1B1,1SEND_B1,1STEP\n");
    s.options.cost.overlapped = 77;
    dls_evaluation e = evaluate(&s);
    expect_times(&e, &s, 0, "0-0 0-1 1-1 1-2 2-2 2-2 5-7 7-7 7-9 9-9 9-9 9-9");
    cr_assert(e.makespan == 9 && e.span == 9 && e.ideal == 6 && e.peak[0] == 2);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
}

/* test what can not be evaluated */
static void expect_refused(dls_schedule *s, const char *words)
{
    dls_evaluation e;
    cr_assert_eq(dls_evaluate(s, &e), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), words), "%s", dls_status_message());
    cr_assert_null(e.start);
}

Test(pipeline_evaluate, costs_that_do_not_fit)
{
    dls_schedule s = schedule_of(gpipe);
    s.options.cost.F = INT64_MAX / 8;
    expect_refused(&s, "cost of F: expected 0 to ");
    s.options.cost.F = INT64_MAX / 72;  // nine: eight actions and one
    s.options.cost.hop = s.options.cost.F + 1;
    expect_refused(&s, "cost of a hop: expected 0 to ");
    s.options.cost.hop = s.options.cost.F;
    dls_evaluation e = evaluate(&s);
    cr_assert_eq(e.makespan, 5 * s.options.cost.F + 6);
    dls_evaluation_free(&e);
    s.options.cost.W = -1;
    expect_refused(&s, "cost of W: expected 0 to ");
    s.options.cost = (dls_pipeline_costs){.of_stage = (const int64_t[6]){0, 0, 0, -2}};
    expect_refused(&s, "cost of a stage: expected 0 to ");
    s.options.cost = (dls_pipeline_costs){.of_B = (const int64_t[2]){0, -1}};
    expect_refused(&s, "cost of B of a stage: expected 0 to ");
    s.options.cost = (dls_pipeline_costs){.wire = -1};
    expect_refused(&s, "cost of the wire: expected 0 to ");
    s.options.cost.wire = 0;
    s.options.memory = (dls_pipeline_memory){1, 2};
    expect_refused(&s, "memory kept until W: expected 0 to 1");
    dls_schedule_free(&s);
}

Test(pipeline_evaluate, an_order_without_an_end)
{
    dls_schedule s = schedule_of("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n");
    expect_refused(&s, "rank 0 never gets past 0B0, which waits for 1I0");
    s.order[1].list[0].stage = 7;
    expect_refused(&s, "rank 1: 7F1: expected a stage below 2 and a micro-batch below 2");
    s.order[1].list[0].kind = 99;
    expect_refused(&s, "rank 1: action 0 is none");
    dls_schedule_free(&s);
}
