/* tests/parallel/test_pipeline_mutants.c: from chapters/05-pipeline-schedules-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Schedules with one mistake: dropped, repeated, misplaced, relabelled, swapped. */
#include <criterion/criterion.h>
#include <string.h>

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/evaluate.h"
#include "pipeline_oracle.h"

/* change a list */
static void take(dls_actions *a, size_t at)
{
    memmove(a->list + at, a->list + at + 1, (--a->n - at) * sizeof *a->list);
}

static void put(dls_actions *a, size_t at, dls_action action)
{
    cr_assert_eq(dls_actions_add(a, DLS_DO_F, 0, 0), DLS_OK);
    memmove(a->list + at + 1, a->list + at, (a->n - 1 - at) * sizeof *a->list);
    a->list[at] = action;
}

static void swap(dls_actions *a, size_t i, size_t j)
{
    dls_action kept = a->list[i];
    a->list[i] = a->list[j];
    a->list[j] = kept;
}

/* Every schedule of the table in a size that has all its phases. */
static int make(int i, int p, int m, dls_schedule *s)
{
    dls_schedule_options o = dls_schedule_defaults(dls_schedule_at(i)->name, p, m);
    return dls_schedule_make(&o, s) == DLS_OK;
}

static void expect_no(const dls_schedule *s, const char *what, int rank, size_t at)
{
    char text[DLS_ACTION_TEXT] = "";
    if (at < s->order[rank].n)
        dls_action_text(&s->order[rank].list[at], text);
    cr_assert_eq(dls_schedule_check(s, NULL), DLS_ERR_INPUT, "%s p%d: %s, rank %d, %s",
                 s->options.name, s->options.ranks, what, rank, text);
    cr_assert_neq(oracle_run(s, 1, 1, 1, 0).verdict, ORACLE_RUNS, "%s", what);
}

/* test dropped repeated and misplaced actions */
static void mutate(dls_schedule *s, int rank, size_t at)
{
    dls_actions *mine = &s->order[rank];
    dls_action a = mine->list[at];
    take(mine, at);
    expect_no(s, "dropped", rank, at);
    for (int other = 0; other < s->options.ranks; other++) {
        dls_actions *list = &s->order[other];
        size_t place = at < list->n ? at : list->n;
        if (other == rank)
            continue;
        put(list, place, a);
        expect_no(s, "moved", other, place);
        take(list, place);
    }
    put(mine, at, a);
    put(mine, mine->n, a);
    expect_no(s, "repeated", rank, at);
    take(mine, mine->n - 1);
    mine->list[at].microbatch = (a.microbatch + 1) % s->options.microbatches;
    expect_no(s, "relabelled", rank, at);
    mine->list[at] = a;
}

Test(pipeline_mutants, dropped_repeated_moved_or_relabelled_actions_are_refused)
{
    dls_schedule s;
    for (int i = 0; dls_schedule_at(i); i++)
        for (int p = 2; p <= 4; p++)
            if (make(i, p, 12, &s)) {
                cr_assert_eq(dls_schedule_check(&s, NULL), DLS_OK);
                for (int r = 0; r < p; r++)
                    for (size_t at = 0; at < s.order[r].n; at++)
                        mutate(&s, r, at);
                dls_schedule_free(&s);
            }
}

/* test swapped actions */
/* All pairs of all ranks: refused exactly when the simulator gets stuck, which is to say
 * when one of the two, or something between them, needed the old order. */
Test(pipeline_mutants, swaps_are_refused_exactly_if_they_break_a_dependency)
{
    dls_schedule s;
    for (int i = 0; dls_schedule_at(i); i++)
        for (int p = 2; p <= 4; p++) {
            int broken = 0;
            if (!make(i, p, 6, &s))
                continue;
            for (int r = 0; r < p; r++)
                for (size_t a = 0; a < s.order[r].n; a++)
                    for (size_t b = a + 1; b < s.order[r].n; b++) {
                        swap(&s.order[r], a, b);
                        int runs = oracle_run(&s, 1, 1, 1, 0).verdict == ORACLE_RUNS;
                        cr_assert_eq(dls_schedule_check(&s, NULL) == DLS_OK, runs,
                                     "%s p%d rank %d: %zu and %zu", s.options.name, p, r,
                                     a, b);
                        broken += !runs;
                        swap(&s.order[r], a, b);
                    }
            cr_assert_gt(broken, 0);
            dls_schedule_free(&s);
        }
}

/* test what harmless swaps cost */
enum { STUCK, WORSE, SAME, BETTER, OUTCOMES };

static int outcome_of(const dls_schedule *s, const oracle *before)
{
    oracle x = oracle_run(s, 1, 1, 1, 0);
    int worse = x.makespan > before->makespan;
    if (x.verdict != ORACLE_RUNS)
        return STUCK;
    for (int r = 0; r < s->options.ranks; r++)
        worse |= x.peak[r] > before->peak[r];
    return worse ? WORSE : x.makespan < before->makespan ? BETTER : SAME;
}

static void count_swaps(const char *name, const int expected[OUTCOMES])
{
    dls_schedule_options o = dls_schedule_defaults(name, 4, 8);
    dls_schedule s;
    int counts[OUTCOMES] = {0};
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_OK);
    oracle before = oracle_run(&s, 1, 1, 1, 0);
    for (int r = 0; r < 4; r++)
        for (size_t a = 0; a < s.order[r].n; a++)
            for (size_t b = a + 1; b < s.order[r].n; b++) {
                swap(&s.order[r], a, b);
                counts[outcome_of(&s, &before)]++;
                swap(&s.order[r], a, b);
            }
    cr_assert_arr_eq(counts, expected, sizeof counts, "%s: %d stuck, %d worse, %d same, "
                     "%d better", name, counts[0], counts[1], counts[2], counts[3]);
    dls_schedule_free(&s);
}

/* Those that break nothing are schedules too: nearly all are slower or hold more. */
Test(pipeline_mutants, what_swaps_that_break_nothing_cost)
{
    count_swaps("gpipe", (int[]){228, 245, 7, 0});
    count_swaps("1f1b", (int[]){384, 91, 5, 0});
    count_swaps("interleaved", (int[]){1602, 305, 77, 0});
}
