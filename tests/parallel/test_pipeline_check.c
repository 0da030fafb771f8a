/* tests/parallel/test_pipeline_check.c: from chapters/05-pipeline-evaluate-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The checker: every fault with its sentence, and mutants of every lowered schedule. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"
#include "pipeline_meeting.h"
#include "pipeline_text.h"

/* expect a fault */
typedef struct fault { const char *csv; int rank; const char *words; } fault;

static void expect_fault(const fault *f)
{
    dls_schedule s = schedule_of(f->csv);
    int rank = 77;
    cr_assert_eq(dls_schedule_check(&s, &rank), DLS_ERR_INPUT, "%s", f->csv);
    cr_assert_str_eq(dls_status_message(), f->words);
    cr_assert_eq(rank, f->rank, "%s: rank %d", f->csv, rank);
    dls_schedule_free(&s);
}

static void expect_valid(const char *csv)
{
    dls_schedule s = schedule_of(csv);
    int rank = 77;
    cr_assert_eq(dls_schedule_check(&s, &rank), DLS_OK, "%s: %s", csv,
                 dls_status_message());
    cr_assert_eq(rank, -1);
    dls_schedule_free(&s);
}

/* test faults of computation */
static const fault of_computation[] = {
    {"0F0,0F1,0B0,1B1\n1F0,1B0,1F1,0B1\n", 0,
     "rank 0: 1B1 is on the wrong rank: stage 1 lives on rank 1"},
    {"0F0,0F1,0B0,0B1\n1F0,1B0,1B0,1F1,1B1\n", 1,
     "rank 1: 1B0 stands there twice: as action 2 and as action 3 of the list"},
    {"0F0,0F1,0B0,0B1\n1F0,1B0,1I0,1F1,1B1\n", 1,
     "rank 1: 1I0 repeats what has been done by 1B0"},
    {"0F0,0F1,0B0,0B1\n1F0,1I0,1W0,1B0,1F1,1B1\n", 1,
     "rank 1: 1B0 repeats what has been done by 1I0"},
    {"0F0,0B0,0B1\n1F0,1B0,1F1,1B1\n", 0, "rank 0: 0F1 is missing"},
    {"0F0,0F1,0B0\n1F0,1B0,1F1,1B1\n", 0, "rank 0: 0B1 is missing"},
    {"0F0,0F1,0B0,0B1\n1F0,1I0,1F1,1B1\n", 1, "rank 1: 1W0 is missing"},
    {"0F0,0F1,0B0,0B1\n1F0,1W0,1F1,1B1\n", 1, "rank 1: 1I0 is missing"},
    {"0F0\n\n2F0\n", 1, "rank 1: 1F0 is missing"},
    {"0F0,0F1,0B0,0B1\n1B0,1F0,1F1,1B1\n", 1,
     "rank 1: 1B0 stands before 1F0, which it needs"},
    {"0F0,0W0,0I0\n", 0, "rank 0: 0W0 stands before 0I0, which it needs"},
};
static const fault of_waits[] = {
    {"0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n", 0,
     "ranks wait for each other: rank 0 waits at 0B0 for 1B0, which rank 1 has behind "
     "1F1; rank 1 waits at 1F1 for 0F1, which rank 0 has behind 0B0"},
    {"1F0,0F0,0B0,1B0\n", 0,
     "ranks wait for each other: rank 0 waits at 1F0 for 0F0, which rank 0 has behind "
     "1F0"},
    {"0F0,0I0,0W0,0F1,0I1,0W1\n1F0,1F1,1I1,1I0,1W0,1W1\n2F0,2F1,2B0,2B1\n", 1,
     "ranks wait for each other: rank 1 waits at 1F1 for 0F1, which rank 0 has behind "
     "0I0; rank 0 waits at 0I0 for 1I0, which rank 1 has behind 1F1"},
};

Test(pipeline_check, faults_of_computation)
{
    for (size_t i = 0; i < sizeof of_computation / sizeof *of_computation; i++)
        expect_fault(&of_computation[i]);
    for (size_t i = 0; i < sizeof of_waits / sizeof *of_waits; i++)
        expect_fault(&of_waits[i]);
}
Test(pipeline_check, unusual_and_valid)
{
    expect_valid("0F0,0F1\n1F1,1F0\n");
    expect_valid("0F0,0F1,0I1,0I0,0W0,0W1\n1F1,1B1,1F0,1I0,1W0\n");
    expect_valid("0F0,0F1,0B0,0B1\n1F0,(1F1;1B0)OVERLAP_F_B,1B1\n");
    expect_valid("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n");
    expect_valid("0F0\n");
}
Test(pipeline_check, inference_is_not_an_accident)
{
    dls_schedule_options o = dls_schedule_defaults("gpipe", 1, 1);
    dls_schedule s;
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_OK);
    s.order[0].n = 1;
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "rank 0: 0B0 is missing");
    s.backward = 0;
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_OK);
    dls_schedule_free(&s);
}
Test(pipeline_check, a_long_cycle_is_cut)
{
    enum { RANKS = 40 };
    char csv[1024], *at = csv;
    at += sprintf(at, "%dF0,0F0\n", RANKS);  // the second lap before the first
    for (int r = 1; r < RANKS; r++)
        at += sprintf(at, "%dF0,%dF0\n", r, RANKS + r);
    dls_schedule s = schedule_of(csv);
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_ERR_INPUT);
    const char *words = dls_status_message();
    cr_assert(strncmp(words, "ranks wait for each other: rank ", 32) == 0, "%s", words);
    cr_assert_str_eq(words + strlen(words) - strlen("; and so on"), "; and so on");
    int links = 0;
    for (; (words = strstr(words, "waits at")); words++)
        links++;
    cr_assert_eq(links, 16);
    dls_schedule_free(&s);
}

/* test faults of messages */
#define HEAD0 "0F0,0SEND_F0,0F1,"
#define TAIL0 ",0B0,0RECV_B1,0B1\n"
#define HEAD1 "1RECV_F0,1F0,1B0,"
#define TAIL1 ",1F1,1B1,1SEND_B1\n"

static const fault of_messages[] = {
    {HEAD0 "0SEND_F1,0RECV_B0" TAIL0 HEAD1 "1SEND_B0,1RECV_F1" TAIL1, 0,
     "sends and receives wait for each other: rank 0 is at 0SEND_F1 until rank 1, which "
     "is at 1SEND_B0, comes to its end of it; rank 1 is at 1SEND_B0 until rank 0, which "
     "is at 0SEND_F1, comes to its end of it"},
    {HEAD0 "0SEND_F1,0RECV_B0" TAIL0 HEAD1 "1RECV_F1,1SEND_B0,1F1,1B1\n", 0,
     "rank 0: 0RECV_B1 is sent by nobody"},
    {HEAD0 "0SEND_F1,0RECV_B0" TAIL0 HEAD1 "1SEND_B0" TAIL1, 1,
     "rank 1: 1F1 has no 1RECV_F1 before it"},
    {HEAD0 "0RECV_B0" TAIL0 HEAD1 "1SEND_B0,1RECV_F1" TAIL1, 1,
     "rank 1: 1RECV_F1 is sent by nobody"},
    {"0SEND_F0,0F0,0F1,0SEND_F1,0RECV_B0" TAIL0 HEAD1 "1RECV_F1,1SEND_B0" TAIL1, 0,
     "rank 0: 0SEND_F0 stands before what it sends"},
    {HEAD0 "0SEND_F0,0SEND_F1,0RECV_B0" TAIL0 HEAD1 "1RECV_F1,1SEND_B0" TAIL1, 0,
     "rank 0: 0SEND_F0 stands there twice"},
    {HEAD0 "0SEND_F1,0RECV_F1,0RECV_B0" TAIL0 HEAD1 "1RECV_F1,1SEND_B0" TAIL1, 0,
     "rank 0: 0RECV_F1 has nobody at its other end"},
    {HEAD0 "0SEND_F1,0RECV_B0" TAIL0 HEAD1 "1SEND_F0,1RECV_F1,1SEND_B0" TAIL1, 1,
     "rank 1: 1SEND_F0 has nobody at its other end"},
    {"0F0,0SEND_F0,3RECV_F0,3F0\n1RECV_F0,1F0,1SEND_F0,2F0,2SEND_F0\n", 1,
     "rank 1: 1SEND_F0 has nobody at its other end"},
    {"0F0,0F1,0SEND_F1,0SEND_F0,0RECV_B0" TAIL0 HEAD1 "1RECV_F1,1SEND_B0" TAIL1, 0,
     "rank 0: 0SEND_F1 is message 1 from rank 0 to rank 1, but the receive is its "
     "message 2"},
};

Test(pipeline_check, faults_of_messages)
{
    for (size_t i = 0; i < sizeof of_messages / sizeof *of_messages; i++)
        expect_fault(&of_messages[i]);
    expect_valid(HEAD0 "(0SEND_F1;0RECV_B0)BATCH" TAIL0
                 HEAD1 "(1SEND_B0;1RECV_F1)BATCH" TAIL1);
    expect_valid(HEAD0 "0SEND_F1,0RECV_B0" TAIL0 HEAD1 "1RECV_F1,1SEND_B0" TAIL1);
}

/* test faults of stages */
static const fault of_stages[] = {
    {"0F0,0UNSHARD,0B0,0RESHARD\n", 0,
     "rank 0: 0F0 computes while its shards are not gathered"},
    {"0UNSHARD,0F0,0UNSHARD,0B0,0RESHARD\n", 0,
     "rank 0: 0UNSHARD finds the stage gathered already"},
    {"0UNSHARD,0F0,0RESHARD,0RESHARD,0UNSHARD,0B0,0RESHARD\n", 0,
     "rank 0: 0RESHARD finds the stage not gathered"},
    {"0UNSHARD,0F0,0B0\n", 0, "rank 0: 0RESHARD is missing behind the last use"},
    {"0F0,0I0,0REDUCE_GRAD,0W0,0STEP\n", 0,
     "rank 0: 0STEP steps before its gradients are reduced"},
    {"0F0,0I0,0REDUCE_GRAD,0W0\n", 0,
     "rank 0: 0REDUCE_GRAD is missing behind the last gradient"},
    {"0F0,0B0,0REDUCE_GRAD,0STEP,0F1,0B1,0REDUCE_GRAD\n", 0,
     "rank 0: 0STEP is missing behind the last gradient"},
    {"0F0,0B0,0STEP\n", 0, "rank 0: 0STEP steps before its gradients are reduced"},
    {"0F0,0I0,0STEP,0W0,0REDUCE_GRAD\n", 0, "rank 0: 0STEP has no gradient"},
    {"0F0,0B0,0STEP\n1F0,1B0,0STEP\n", 1,
     "rank 1: 0STEP is on the wrong rank: stage 0 lives on rank 0"},
};

Test(pipeline_check, faults_of_stages)
{
    for (size_t i = 0; i < sizeof of_stages / sizeof *of_stages; i++)
        expect_fault(&of_stages[i]);
    expect_valid("0UNSHARD,0F0,0RESHARD,0UNSHARD,0B0,0REDUCE_GRAD,0RESHARD,0STEP\n");
    expect_valid("0F0,0B0,0REDUCE_GRAD,0STEP,0F1,0B1,0REDUCE_GRAD,0STEP\n");
}
/* Schedules that step after every second micro-batch. */
static const fault of_steps[] = {
    {"0F0,0B0,0F1,0B1,0REDUCE_GRAD,0F2,0B2,0REDUCE_GRAD,0STEP\n", 0,
     "rank 0: 0B2 comes where a step of its stage is missing"},
    {"0F0,0B0,0REDUCE_GRAD,0STEP,0F1,0B1,0F2,0B2,0REDUCE_GRAD,0STEP\n", 0,
     "rank 0: 0B1 comes behind a step that was too early"},
    {"0F0,0B0,0F1,0B1,0REDUCE_GRAD,0STEP,0F2,0B2,0REDUCE_GRAD,0STEP,0STEP\n", 0,
     "rank 0: 0STEP has no gradient"},
    {"0F0,0B0,0F1,0B1,0REDUCE_GRAD,0STEP,0F2,0B2,0REDUCE_GRAD,0STEP\n", -1, NULL},
};

Test(pipeline_check, faults_of_steps)
{
    for (size_t i = 0; i < sizeof of_steps / sizeof *of_steps; i++) {
        dls_schedule s = schedule_of(of_steps[i].csv);
        int rank;
        s.step_every = 2;
        dls_status expected = of_steps[i].words ? DLS_ERR_INPUT : DLS_OK;
        cr_assert_eq(dls_schedule_check(&s, &rank), expected, "%s", of_steps[i].csv);
        if (of_steps[i].words)
            cr_assert_str_eq(dls_status_message(), of_steps[i].words);
        cr_assert_eq(rank, of_steps[i].rank);
        dls_schedule_free(&s);
    }
}

/* test limits of memory */
Test(pipeline_check, limits_of_memory)
{
    dls_schedule s = schedule_of("0F0,0I0,0F1,0I1,0F2,0B2,0W0,0W1\n");
    s.options.memory = (dls_pipeline_memory){4, 3};
    s.options.limit = 10;  // 4, 3, 7, 6, 10
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_OK, "%s", dls_status_message());
    s.options.limit = 9;
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "rank 0: 0F2 raises the memory to 10, where a "
                     "forward holds 4 and the limit is 9");
    s.options.memory.keep = 0;
    s.options.limit = 4;
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_OK, "%s", dls_status_message());
    dls_schedule_free(&s);
}

/* test mutants of lowered schedules */
typedef void on_lowered(dls_schedule *s);

static void lower_each(on_lowered *what, int all, int ranks, int microbatches)
{
    for (int i = 0; dls_schedule_at(i); i++) {
        const char *name = dls_schedule_at(i)->name;
        dls_schedule_options o = dls_schedule_defaults(name, ranks, microbatches);
        dls_schedule made, s;
        if (dls_schedule_make(&o, &made) != DLS_OK)
            continue;
        cr_assert_eq(all ? dls_lower(&made, 1, &s) : dls_lower_messages(&made, &s),
                     DLS_OK, "%s: %s", name, dls_status_message());
        what(&s);
        dls_schedule_free(&s);
        dls_schedule_free(&made);
    }
}
static int farthest;  // how far apart the two that are exchanged may be

/* Exchanges two actions, asks both judges, and puts them back. */
static void exchange(dls_schedule *s, int r, size_t i, size_t j)
{
    dls_action *list = s->order[r].list, other = list[i];
    list[i] = list[j];
    list[j] = other;
    int runs = meeting_ends(s), passes = dls_schedule_check(s, NULL) == DLS_OK;
    cr_assert_eq(runs, passes, "%s rank %d: %zu and %zu: runs %d, checker: %s",
                 s->options.name, r, i, j, runs, passes ? "" : dls_status_message());
    list[j] = list[i];
    list[i] = other;
}

static void exchange_all(dls_schedule *s)
{
    cr_assert_eq(dls_schedule_check(s, NULL), DLS_OK, "%s: %s", s->options.name,
                 dls_status_message());
    cr_assert(meeting_ends(s), "%s", s->options.name);
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++)
            for (size_t j = i + 1; j < s->order[r].n && (int)(j - i) <= farthest; j++)
                exchange(s, r, i, j);
}

Test(pipeline_check, exchanged_actions_pass_exactly_if_they_run)
{
    farthest = 1000;
    lower_each(exchange_all, 0, 2, 3);
    farthest = 2;
    lower_each(exchange_all, 0, 4, 4);
    lower_each(exchange_all, 0, 3, 5);
}
static void drop_all(dls_schedule *s)
{
    cr_assert_eq(dls_schedule_check(s, NULL), DLS_OK, "%s: %s", s->options.name,
                 dls_status_message());
    cr_assert(meeting_ends(s), "%s", s->options.name);
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            dls_actions *order = &s->order[r], whole = *order;
            size_t n = whole.n--;
            order->list = malloc(n * sizeof *order->list);
            memcpy(order->list, whole.list, i * sizeof *order->list);
            memcpy(order->list + i, whole.list + i + 1,
                   (n - 1 - i) * sizeof *order->list);
            if (i && !whole.list[i].paired)
                order->list[i - 1].paired = 0;
            order->n = n - 1;
            cr_assert_neq(dls_schedule_check(s, NULL), DLS_OK, "%s rank %d without %zu",
                          s->options.name, r, i);
            free(order->list);
            *order = (dls_actions){whole.list, n, whole.room};
        }
}

Test(pipeline_check, no_action_can_be_left_out)
{
    lower_each(drop_all, 1, 1, 2);
    lower_each(drop_all, 1, 2, 3);
    lower_each(drop_all, 1, 4, 4);
}
Test(pipeline_check, a_pair_is_of_one_kind)
{
    dls_schedule s = schedule_of("0F0,0SEND_F0\n1RECV_F0,1F0\n");
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_OK, "%s", dls_status_message());
    s.order[0].list[0].paired = 1;
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(),
                     "rank 0: 0F0 is paired with nothing that fits");
    s.order[0].list[0].paired = 0;
    s.order[1].list[1].paired = 1;
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(),
                     "rank 1: 1F0 is paired with nothing that fits");
    dls_schedule_free(&s);
}
