/* tests/parallel/test_pipeline_grid.c: from chapters/05-pipeline-schedules-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every schedule of the table, on a grid of ranks, micro-batches and chunks: it is valid
 * or refused with a reason, and the evaluator says what the oracle says. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/evaluate.h"
#include "parallel/pipeline/lower.h"
#include "pipeline_oracle.h"

/* compare with the oracle */
static const char *shown(const dls_schedule_options *o)
{
    static char text[128];
    snprintf(text, sizeof text, "%s p%d m%d v%d g%d", o->name, o->ranks,
             o->microbatches, o->chunks, o->group);
    return text;
}

/* Times without a common divisor, so that no two sums are equal by chance. */
static void compare(const dls_schedule *s)
{
    dls_schedule timed = *s;
    timed.options.cost = (dls_pipeline_costs){.F = 101, .I = 97, .W = 89, .hop = 13};
    dls_evaluation e;
    cr_assert_eq(dls_evaluate(&timed, &e), DLS_OK, "%s: %s", shown(&s->options),
                 dls_status_message());
    oracle x = oracle_run(s, 101, 97, 89, 13);
    cr_assert_eq(x.verdict, ORACLE_RUNS, "%s", shown(&s->options));
    cr_assert_eq(e.makespan, x.makespan, "%s", shown(&s->options));
    cr_assert_eq(e.span, x.span, "%s", shown(&s->options));
    for (int r = 0; r < s->options.ranks; r++) {
        cr_assert_eq(e.makespan - e.busy[r], x.idle[r], "%s", shown(&s->options));
        cr_assert_eq(e.peak[r], x.peak[r], "%s rank %d", shown(&s->options), r);
    }
    dls_evaluation_free(&e);
}

/* walk the grid */
/* Makes it, and hands it on if it can be; 0 if it is refused. */
static int visit(const char *name, int p, int m, int v,
                 void (*what)(const dls_schedule *))
{
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    dls_schedule s;
    o.chunks = v;
    dls_status_clear();
    if (dls_schedule_make(&o, &s) != DLS_OK) {
        cr_assert(strlen(dls_status_message()) > 20, "%s", shown(&o));
        cr_assert_null(s.order);
        return 0;
    }
    what(&s);
    dls_schedule_free(&s);
    return 1;
}

/* 1: every point of the grid; 0: a sample. */
static int everything(void)
{
    const char *grid = getenv("DLS_GRID");
    cr_assert(!grid || strcmp(grid, "full") == 0, "DLS_GRID=%s: expected full", grid);
    return grid != NULL;
}

/* test every schedule on the grid */
static int compare_grid(const dls_schedule_entry *e, int all)
{
    static const int some[] = {1, 2, 3, 4, 5, 7, 8, 11, 16, 17, 31, 64};
    int made = 0;
    for (int p = 1; p <= 16; p += all ? 1 : 1 + p / 5)
        for (int k = 0; k < (all ? 64 : (int)(sizeof some / sizeof *some)); k++)
            for (int v = 1; v <= (e->chunks ? 1 : 8); v += all ? 1 : 1 + v / 3)
                made += visit(e->name, p, all ? k + 1 : some[k], e->chunks ? 0 : v,
                              compare);
    return made;
}

Test(pipeline_grid, the_evaluator_and_the_oracle_agree)
{
    int all = everything(), made = 0;
    for (int i = 0; dls_schedule_at(i); i++)
        made += compare_grid(dls_schedule_at(i), all);
    if (all)
        printf("grid: the evaluator and the oracle agree on %d schedules\n", made);
    fflush(stdout);
}

/* test that everything is proven or refused */
static void prove(const dls_schedule *s)
{
    cr_assert_eq(dls_schedule_check(s, NULL), DLS_OK, "%s: %s", shown(&s->options),
                 dls_status_message());
}

/* The same, and once more with its messages and updates. */
static void prove_lowered(const dls_schedule *s)
{
    dls_schedule lowered;
    prove(s);
    cr_assert_eq(dls_lower(s, 0, &lowered), DLS_OK, "%s: %s", shown(&s->options),
                 dls_status_message());
    prove(&lowered);
    dls_schedule_free(&lowered);
}

/* One schedule on the grid; how many combinations are refused. A sample has fewer of the
 * larger numbers of micro-batches if there are several chunks, or a plan to be made. */
static int prove_grid(const dls_schedule_entry *e)
{
    int all = everything(), made = 0, refused = 0;
    int dense = all ? 64 : e->plan ? 9 : e->chunks ? 64 : 12;
    for (int p = 1; p <= 16; p++)
        for (int m = 1; m <= 64; m += m < dense ? 1 : e->plan ? 27 : 7)
            for (int v = 1; v <= (e->chunks ? 1 : 8); v += all ? 1 : 1 + v / 4)
                visit(e->name, p, m, e->chunks ? 0 : v, all ? prove_lowered : prove)
                    ? made++ : refused++;
    if (all)
        printf("grid: %s: %d proven, %d refused\n", e->name, made, refused);
    fflush(stdout);
    return refused;
}

static void prove_all(int several)
{
    for (int i = 0; dls_schedule_at(i); i++) {
        const dls_schedule_entry *e = dls_schedule_at(i);
        if (several != !e->chunks)
            continue;
        int refused = prove_grid(e);
        if (strcmp(e->name, "chimera") == 0)
            cr_expect_eq(refused, 8 * 64);
        else if (strcmp(e->name, "pipedream-2bw") == 0)
            cr_expect_eq(refused, 16 * 64 - 211);
        else if (strcmp(e->name, "dualpipe") == 0)
            cr_expect_eq(refused, 16 * 64 - 192); // 33 - p even m from 2p on, p even
        else if (strcmp(e->name, "dualpipev") == 0)
            cr_expect_eq(refused, 16 * 64 - 768); // 65 - 2p
        else if (strcmp(e->name, "zb-exact") != 0)
            cr_expect_eq(refused, 0, "%s", e->name);
    }
}

Test(pipeline_grid, every_schedule_of_one_shape_is_proven_or_refused)
{
    prove_all(0);
}

Test(pipeline_grid, every_schedule_of_several_chunks_is_proven_or_refused)
{
    prove_all(1);
}
