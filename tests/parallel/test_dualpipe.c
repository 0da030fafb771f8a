/* tests/parallel/test_dualpipe.c: from chapters/08-dualpipe-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* DualPipe and DualPipeV: golden numbers, the law of the bubble proven for all costs, the
 * published formula and where it ends, pairs in memory and in messages, mutants.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/evaluate.h"
#include "parallel/pipeline/lower.h"
#include "pipeline_meeting.h"
#include "pipeline_oracle.h"
#include "pipeline_text.h"

/* run both pipes */
typedef struct pipe_case {
    dls_schedule s;
    int half, count;  // distances; micro-batches of a direction
} pipe_case;

static pipe_case pipe_of(const char *name, int ranks, int microbatches)
{
    dls_schedule_options o = dls_schedule_defaults(name, ranks, microbatches);
    int both = strcmp(name, "dualpipe") == 0;
    pipe_case c = {.half = both ? ranks / 2 : ranks,
                   .count = both ? microbatches / 2 : microbatches};
    cr_assert_eq(dls_schedule_make(&o, &c.s), DLS_OK, "%s", dls_status_message());
    return c;
}
/* With these costs; pair 0: F + I + W. */
static dls_evaluation evaluate(pipe_case *c, int64_t F, int64_t I, int64_t W,
                               int64_t pair)
{
    dls_evaluation e;
    c->s.options.cost = (dls_pipeline_costs){.F = F, .I = I, .W = W, .overlapped = pair};
    cr_assert_eq(dls_evaluate(&c->s, &e), DLS_OK, "%s", dls_status_message());
    return e;
}

/* The idle time of a rank. */
static int64_t idle(pipe_case *c, int rank, int64_t F, int64_t I, int64_t W, int64_t pair)
{
    dls_evaluation e = evaluate(c, F, I, W, pair);
    int64_t time = e.makespan - e.busy[rank];
    dls_evaluation_free(&e);
    return time;
}
typedef void on_pipe(pipe_case *c);

/* All shapes up to so many ranks of DualPipe, and half as many of DualPipeV. */
static void for_all_pipes(int ranks, on_pipe *what)
{
    for (int p = 1; p <= ranks; p++)
        for (int m = 2 * p; m <= 4 * p; m++)
            for (int both = 0; both <= 1; both++) {
                if (both ? p % 2 || m % 2 : p > ranks / 2)
                    continue;
                pipe_case c = pipe_of(both ? "dualpipe" : "dualpipev", p, m);
                what(&c);
                dls_schedule_free(&c.s);
            }
}

/* test the printed numbers of dualpipe */
static const struct { int ranks, m; int64_t makespan, idle, peak; } golden[] = {
    {4, 8, 26, 2, 5}, {4, 12, 38, 2, 5}, {8, 16, 54, 6, 9}, {8, 20, 66, 6, 9},
    {16, 32, 110, 14, 17}};

Test(dualpipe, the_golden_numbers)
{
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        pipe_case c = pipe_of("dualpipe", golden[i].ranks, golden[i].m);
        dls_evaluation e = evaluate(&c, 1, 1, 1, 3);
        cr_assert_eq(e.makespan, golden[i].makespan);
        for (int r = 0; r < e.ranks; r++) {
            cr_assert_eq(e.makespan - e.busy[r], golden[i].idle);
            cr_assert_eq(e.peak[r], golden[i].peak);
        }
        dls_evaluation_free(&e);
        dls_schedule_free(&c.s);
    }
}
static void expect_list(const char *name, int ranks, int m, int rank, const char *list)
{
    pipe_case c = pipe_of(name, ranks, m);
    char *text = text_of(&c.s), *line = text;
    for (int r = 0; r < rank; r++)
        line = strchr(line, '\n') + 1;
    cr_assert_eq(strncmp(line, list, strlen(list)), 0, "%s", line);
    cr_assert_eq(line[strlen(list)], '\n', "%s", line);
    free(text);
    dls_schedule_free(&c.s);
}
#define PAIR(a, b) "(" a ";" b ")OVERLAP_F_B"

Test(dualpipe, lists_word_by_word)
{
    expect_list("dualpipe", 4, 8, 0, "0F0,0F2,0F4,3F1,3I1,3W1,3F3," PAIR("0F6", "3B3") ","
                PAIR("3F5", "0B0") ",3B5," PAIR("3F7", "0B2") ",3B7,0I4,0W4,0I6,0W6");
    expect_list("dualpipe", 4, 8, 1, "1F0,2F1,1F2,2F3,1F4,2B1," PAIR("2F5", "1B0") ","
                PAIR("1F6", "2B3") "," PAIR("2F7", "1B2")
                ",2B5,1B4,2I7,1I6,2W7,1W6");
    expect_list("dualpipe", 2, 4, 1,
                "0F1,1F0,0F3,1B0," PAIR("1F2", "0B1") ",1B2,0I3,0W3");
    expect_list("dualpipev", 1, 2, 0,
                "0F0,1F0,0F1,1B0," PAIR("1F1", "0B0") ",1B1,0I1,0W1");
}

/* prove the law of the bubble */
typedef int64_t costs4[4];  // F, I, W and the pair

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* What the innermost ranks idle. */
static int64_t law(int half, const costs4 x)
{
    int64_t start = most((half - 1) * x[0], (half - 1) * x[1] - x[0]);
    return start + (half - 1) * (x[3] - x[2] - (x[1] < x[2] ? x[1] : x[2]));
}
enum { WALLS = 7 };

/* Costs x are in the cell where none of walls . x is negative. */
static void walls_of(int half, int cell, costs4 walls[WALLS])
{
    int64_t a = cell & 1 ? -1 : 1, b = cell & 2 ? -1 : 1;
    const costs4 all[WALLS] = {
        {1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {-1, 0, 0, 1}, {0, -1, -1, 1},
        {0, a, -a, 0}, {b * half, -b * (half - 1), 0, 0}};
    memcpy(walls, all, sizeof all);
}
/* out: orthogonal to a, b and c; zero if they are not independent. */
static void across(const int64_t *a, const int64_t *b, const int64_t *c, costs4 out)
{
    for (int i = 0; i < 4; i++) {
        int j = i == 0, k = i <= 1 ? 2 : 1, l = i <= 2 ? 3 : 2;
        int64_t d = a[j] * (b[k] * c[l] - b[l] * c[k]) -
                    a[k] * (b[j] * c[l] - b[l] * c[j]) +
                    a[l] * (b[j] * c[k] - b[k] * c[j]);
        out[i] = i % 2 ? -d : d;
    }
}

static int inside(costs4 walls[WALLS], const costs4 x)
{
    for (int w = 0; w < WALLS; w++) {
        int64_t sum = 0;
        for (int i = 0; i < 4; i++)
            sum += walls[w][i] * x[i];
        if (sum < 0)
            return 0;
    }
    return x[0] || x[1] || x[2] || x[3];
}
/* What the schedule idles at x beyond the law. */
static int64_t beyond(pipe_case *c, const costs4 x)
{
    return idle(c, c->half - 1, x[0], x[1], x[2], x[3]) - law(c->half, x);
}

/* Visits the edge that these three walls share, in both directions; adds it to sum. */
static int visit_edge(pipe_case *c, costs4 walls[WALLS], int i, int j, int k, costs4 sum)
{
    costs4 x;
    int edges = 0;
    across(walls[i], walls[j], walls[k], x);
    for (int turn = 0; turn < 2; turn++) {
        if (inside(walls, x)) {
            cr_assert_leq(beyond(c, x), 0, "%s p%d m%d: (%d,%d,%d) pair %d",
                          c->s.options.name, c->s.options.ranks,
                          c->s.options.microbatches, (int)x[0], (int)x[1], (int)x[2],
                          (int)x[3]);
            for (int n = 0; n < 4; n++)
                sum[n] += x[n];
            edges++;
        }
        for (int n = 0; n < 4; n++)
            x[n] = -x[n];
    }
    return edges;
}
static void prove_law(pipe_case *c)
{
    for (int cell = 0; cell < 4; cell++) {
        costs4 walls[WALLS], sum = {0};
        int edges = 0;
        walls_of(c->half, cell, walls);
        for (int i = 0; i < WALLS; i++)
            for (int j = i + 1; j < WALLS; j++)
                for (int k = j + 1; k < WALLS; k++)
                    edges += visit_edge(c, walls, i, j, k, sum);
        cr_assert(c->half == 1 || edges >= 4);
        cr_assert(c->half == 1 || (sum[0] && sum[1] && sum[2] && sum[3]));
        cr_assert_eq(beyond(c, sum), 0, "%s p%d m%d: cell %d", c->s.options.name,
                     c->s.options.ranks, c->s.options.microbatches, cell);
    }
}

Test(dualpipe, the_law_holds_for_all_costs)
{
    for_all_pipes(16, prove_law);
}
/* How long a rank waits from list[from] on to the start of list[to]. */
static int64_t waits(const dls_evaluation *e, int rank, size_t from, size_t to)
{
    int64_t sum = 0;
    for (size_t i = from + 1; i <= to; i++) // halves of a pair start together
        sum += most(e->start[rank][i] - e->end[rank][i - 1], 0);
    return sum;
}

static void expect_two_ends(pipe_case *c, const costs4 x)
{
    dls_evaluation e = evaluate(c, x[0], x[1], x[2], x[3]);
    int rank = c->half - 1;
    const dls_actions *a = &c->s.order[rank];
    size_t gradient = 0, pair = 0;
    while (a->list[gradient].kind == DLS_DO_F)
        gradient++;
    for (size_t i = 0; i < a->n; i++)
        pair = a->list[i].paired ? i : pair;
    int64_t start = e.start[rank][0] + waits(&e, rank, 0, gradient);
    int64_t rest = e.makespan - e.end[rank][a->n - 1];
    int64_t end = waits(&e, rank, pair + 1, a->n - 1) + rest;
    cr_assert_eq(start, most(rank * x[0], rank * x[1] - x[0]));
    cr_assert_eq(waits(&e, rank, gradient, pair + 1), 0);
    cr_assert_eq(end, rank * (x[3] - x[2] - (x[1] < x[2] ? x[1] : x[2])));
    dls_evaluation_free(&e);
}
static void expect_all_ends(pipe_case *c)
{
    static const costs4 some[] = {{1, 1, 1, 3}, {4, 4, 3, 9}, {2, 5, 2, 8}, {5, 2, 2, 6},
                                  {2, 2, 5, 7}, {1, 9, 0, 9}, {7, 1, 3, 7}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        expect_two_ends(c, some[i]);
}

Test(dualpipe, the_innermost_ranks_wait_at_both_ends_and_nowhere_else)
{
    for_all_pipes(16, expect_all_ends);
}
Test(dualpipe, the_law_holds_on_a_grid_and_ends_where_a_pair_is_too_short)
{
    pipe_case c = pipe_of("dualpipe", 6, 14);
    int tried = 0, off = 0;
    for (int64_t F = 0; F <= 5; F++)
        for (int64_t I = 0; I <= 5; I++)
            for (int64_t W = 0; W <= 5; W++)
                for (int64_t pair = 1; pair <= F + I + W + 2; pair++) {
                    int fair = pair >= F && pair >= I + W;
                    int64_t more = beyond(&c, (costs4){F, I, W, pair});
                    tried += fair;
                    off += !fair && more != 0;
                    cr_assert(!fair || more == 0, "(%d,%d,%d) pair %d", (int)F, (int)I,
                              (int)W, (int)pair);
                }
    cr_assert_gt(tried, 900);
    cr_assert_gt(off, 500);
    dls_schedule_free(&c.s);
}

/* test the printed formula */
static int64_t formula(int half, const costs4 x)
{
    return (half - 1) * (x[3] + x[1] + x[2] - 3 * x[2]);
}

/* 1 if the formula is right by the condition of the text. */
static int should_hold(int half, const costs4 x)
{
    int64_t w = (half - 1) * most(x[2] - x[1], 0);
    int64_t f = most((half - 1) * (x[0] - x[1]), -x[0]);
    return w + f == 0;
}
Test(dualpipe, the_printed_formula_holds_exactly_where_it_should)
{
    int right = 0, plain = 0;
    for (int ranks = 4; ranks <= 10; ranks += 2) {
        pipe_case c = pipe_of("dualpipe", ranks, 2 * ranks);
        for (int i = 0; i < 6 * 6 * 6; i++)
            for (int less = 0; less <= 1; less++) {
                costs4 x = {1 + i % 6, 1 + i / 6 % 6, 1 + i / 36, 0};
                x[3] = x[0] + x[1] + x[2] - less;
                int holds = idle(&c, c.half - 1, x[0], x[1], x[2], x[3]) ==
                            formula(c.half, x);
                cr_assert_eq(holds, should_hold(c.half, x), "p%d (%d,%d,%d)", ranks,
                             (int)x[0], (int)x[1], (int)x[2]);
                right += holds;
                plain += x[0] == x[1] && x[1] >= x[2];
            }
        dls_schedule_free(&c.s);
    }
    cr_assert_eq(plain, 4 * 2 * 21);
    cr_assert_eq(right - plain, 2 * (8 + 5 + 3 + 1), "where two errors cancel");
}
static const struct { int ranks; costs4 x; int64_t idle, formula; } examples[] = {
    {8, {1, 1, 1, 3}, 6, 6},    {8, {2, 3, 2, 7}, 16, 18}, {8, {3, 2, 2, 7}, 18, 15},
    {8, {1, 1, 2, 4}, 6, 3},    {8, {3, 3, 4, 10}, 18, 15}, {4, {1, 2, 3, 6}, 2, 2},
    {8, {4, 4, 4, 9}, 15, 15},  {8, {4, 4, 1, 9}, 33, 33}};

Test(dualpipe, the_counter_examples)
{
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const int64_t *x = examples[i].x;
        pipe_case c = pipe_of("dualpipe", examples[i].ranks, 2 * examples[i].ranks);
        cr_assert_eq(idle(&c, c.half - 1, x[0], x[1], x[2], x[3]), examples[i].idle);
        cr_assert_eq(formula(c.half, x), examples[i].formula);
        cr_assert_eq(law(c.half, x), examples[i].idle);
        dls_schedule_free(&c.s);
    }
}

/* test idle times rank by rank */
static void expect_steps(pipe_case *c)
{
    static const costs4 some[] = {{4, 4, 4, 9}, {4, 4, 4, 8}, {5, 3, 2, 6}, {2, 3, 4, 7},
                                  {3, 1, 0, 4}};
    int p = c->s.options.ranks;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        const int64_t *x = some[i];
        dls_evaluation e = evaluate(c, x[0], x[1], x[2], x[3]);
        int64_t saved = x[0] + x[1] + x[2] - x[3];
        for (int h = 0; h < c->half; h++) {
            int64_t there = e.makespan - e.busy[h];
            cr_assert_eq(there, law(c->half, x) - saved * most(c->half - 2 - h, 0),
                         "%s p%d rank %d", c->s.options.name, p, h);
            if (c->s.placement == DLS_PLACE_BOTH)
                cr_assert_eq(e.makespan - e.busy[p - 1 - h], there);
        }
        dls_evaluation_free(&e);
    }
}

Test(dualpipe, outer_ranks_idle_less_by_what_a_pair_saves)
{
    for_all_pipes(16, expect_steps);
}

/* test where the three w come from */
/* Makes a whole B of list[i], an I, and takes its W away. */
static void undo_split(dls_actions *a, size_t i)
{
    size_t w = i + 1;
    while (a->list[w].kind != DLS_DO_W || a->list[w].stage != a->list[i].stage ||
           a->list[w].microbatch != a->list[i].microbatch)
        w++;
    a->list[i].kind = DLS_DO_B;
    memmove(a->list + w, a->list + w + 1, (a->n - w - 1) * sizeof *a->list);
    a->n--;
}

/* Undoes the splits of the third phase, of the end, or of both. */
static void join(pipe_case *c, int third, int end)
{
    for (int r = 0; r < c->s.options.ranks; r++) {
        int mirror = c->s.options.ranks - 1 - r;
        int h = c->s.placement == DLS_PLACE_BOTH && mirror < r ? mirror : r, nth = 0;
        dls_actions *a = &c->s.order[r];
        for (size_t i = 0; i < a->n; i++)
            if (a->list[i].kind == DLS_DO_I &&
                (nth++ < c->half - 1 - h ? third : end))
                undo_split(a, i);
    }
    cr_assert_eq(dls_schedule_check(&c->s, NULL), DLS_OK, "%s", dls_status_message());
}
static void expect_joined(pipe_case *c)
{
    static const costs4 some[] = {{1, 1, 1, 3}, {4, 4, 3, 11}, {4, 4, 3, 9},
                                  {9, 9, 1, 19}, {5, 3, 2, 8}, {3, 5, 2, 9}};
    for (int which = 1; which < 4; which++) {
        pipe_case w = pipe_of(c->s.options.name, c->s.options.ranks,
                              c->s.options.microbatches);
        join(&w, which & 1, which & 2);
        for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
            const int64_t *x = some[i], in = which & 1 ? x[1] + x[2] : x[1];
            int64_t n = c->half - 1, start = most(n * x[0], n * in - x[0]);
            int64_t end = which & 2 ? n * x[3] : n * (x[3] - 2 * x[2]);
            cr_assert_eq(idle(&w, n, x[0], x[1], x[2], x[3]), start + end,
                         "%s p%d m%d: joined %d", w.s.options.name, w.s.options.ranks,
                         w.s.options.microbatches, which);
        }
        dls_schedule_free(&w.s);
    }
}

Test(dualpipe, splits_at_the_end_save_two_w_and_those_before_the_rest)
{
    for_all_pipes(12, expect_joined);
}

/* test what pairs hold */
/* Takes pairs apart; backward: that half first. */
static void unpair(dls_schedule *s, int backward)
{
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            dls_action *a = &s->order[r].list[i], first = *a;
            if (!a->paired)
                continue;
            a->paired = first.paired = 0;
            if (backward) {
                a[0] = a[1];
                a[1] = first;
            }
        }
}
/* Way 0: as it is; 1: in the same order, unpaired; 2: backward first. */
static void expect_peak(const pipe_case *like, int way)
{
    const dls_schedule_options *o = &like->s.options;
    pipe_case c = pipe_of(o->name, o->ranks, o->microbatches);
    if (way)
        unpair(&c.s, way == 2);
    dls_evaluation e = evaluate(&c, 1, 1, 1, 0);
    for (int r = 0; r < e.ranks; r++) {
        int inner = r == c.half - 1 || (c.s.placement == DLS_PLACE_BOTH && r == c.half);
        cr_assert_eq(e.peak[r], 2 * c.half + (way < 2 || inner), "%s p%d rank %d",
                     o->name, o->ranks, r);
    }
    dls_evaluation_free(&e);
    dls_schedule_free(&c.s);
}

static void expect_peaks(pipe_case *c)
{
    for (int way = 0; way < 3; way++)
        expect_peak(c, way);
}

Test(dualpipe, a_pair_holds_one_more_than_a_forward_behind_a_backward)
{
    for_all_pipes(16, expect_peaks);
}

/* test that both pipes are one */
static void expect_same_times(int half, int count)
{
    pipe_case two = pipe_of("dualpipe", 2 * half, 2 * count);
    pipe_case v = pipe_of("dualpipev", half, count);
    dls_evaluation a = evaluate(&two, 7, 5, 4, 13), b = evaluate(&v, 7, 5, 4, 13);
    cr_assert_eq(a.makespan, b.makespan);
    for (int r = 0; r < 2 * half; r++) {
        int h = r < half ? r : 2 * half - 1 - r;
        const dls_actions *x = &two.s.order[r], *y = &v.s.order[h];
        cr_assert_eq(x->n, y->n);
        cr_assert_eq(a.peak[r], b.peak[h]);
        for (size_t i = 0; i < x->n; i++) {
            cr_assert(x->list[i].kind == y->list[i].kind &&
                      x->list[i].stage == y->list[i].stage &&
                      x->list[i].paired == y->list[i].paired);
            cr_assert_eq(x->list[i].microbatch / 2, y->list[i].microbatch);
            cr_assert(a.start[r][i] == b.start[h][i] && a.end[r][i] == b.end[h][i]);
        }
    }
    dls_evaluation_free(&a);
    dls_evaluation_free(&b);
    dls_schedule_free(&two.s);
    dls_schedule_free(&v.s);
}

Test(dualpipe, dualpipev_is_one_half_of_it)
{
    for (int half = 1; half <= 8; half++)
        for (int count = 2 * half; count <= 4 * half; count++)
            expect_same_times(half, count);
}
static int64_t with_a_head(pipe_case *c, int64_t *ideal)
{
    int64_t (*of_stage)[3] = calloc((size_t)c->s.stages, sizeof *of_stage);
    for (int i = 0; i < c->s.stages; i++)
        for (int k = 0; k < 3; k++)
            of_stage[i][k] = 1 + (i == c->s.stages - 1);
    c->s.options.cost = (dls_pipeline_costs){.F = 1, .I = 1, .W = 1,
                                             .of_stage = of_stage[0]};
    dls_evaluation e;
    cr_assert_eq(dls_evaluate(&c->s, &e), DLS_OK);
    int64_t makespan = e.makespan;
    *ideal = e.ideal;
    dls_evaluation_free(&e);
    free(of_stage);
    return makespan;
}

Test(dualpipe, two_ranks_share_a_heavy_end)
{
    for (int p = 4; p <= 12; p += 2) {
        pipe_case two = pipe_of("dualpipe", p, 4 * p);
        pipe_case one = pipe_of("dualpipev", p, 4 * p);
        int64_t ideal;
        cr_assert_eq(with_a_head(&two, &ideal), 4 * p * 3 * 3 / 2);
        cr_assert_eq(ideal, 4 * p * 3 * 3 / 2);
        cr_assert_geq(with_a_head(&one, &ideal), 4 * p * 3 * 3);
        dls_schedule_free(&one.s);
        dls_schedule_free(&two.s);
    }
}

/* test the messages of pairs */
/* What a pair waits for stands before it, what it sends behind; nothing within. */
static void expect_whole_pairs(const dls_schedule *s, int rank)
{
    const dls_actions *a = &s->order[rank];
    for (size_t i = 0; i + 1 < a->n; i++)
        if (a->list[i].paired && dls_action_computes(&a->list[i]))
            cr_assert(a->list[i].kind == DLS_DO_F && a->list[i + 1].kind == DLS_DO_B);
}

static void expect_lowered(pipe_case *c)
{
    static const costs4 some[] = {{1, 1, 1, 3}, {5, 3, 2, 7}, {2, 7, 3, 11}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        dls_schedule lowered;
        c->s.options.cost = (dls_pipeline_costs){.F = some[i][0], .I = some[i][1],
                                                 .W = some[i][2], .hop = (int64_t)i,
                                                 .overlapped = some[i][3]};
        cr_assert_eq(dls_lower(&c->s, 0, &lowered), DLS_OK, "%s", dls_status_message());
        cr_assert_eq(dls_schedule_check(&lowered, NULL), DLS_OK, "%s p%d m%d: %s",
                     c->s.options.name, c->s.options.ranks, c->s.options.microbatches,
                     dls_status_message());
        if (c->s.options.ranks <= 4 && c->s.options.microbatches <= 8)
            cr_assert(meeting_ends(&lowered));
        for (int r = 0; r < c->s.options.ranks; r++)
            expect_whole_pairs(&lowered, r);
        dls_schedule_free(&lowered);
    }
}

Test(dualpipe, no_shape_waits_for_its_own_messages)
{
    for_all_pipes(16, expect_lowered);
}
Test(dualpipe, two_ranks_with_their_messages)
{
    pipe_case c = pipe_of("dualpipe", 2, 4);
    dls_schedule lowered;
    cr_assert_eq(dls_lower(&c.s, 0, &lowered), DLS_OK);
    char *text = text_of(&lowered);
    cr_assert_str_eq(text,
                     "0F0,(0SEND_F0;1RECV_F1)BATCH,1F1,0F2,(1RECV_F3;0SEND_F2)BATCH,1B1,"
                     "(0RECV_B0;1SEND_B1)BATCH," PAIR("1F3", "0B0") ",1B3,1SEND_B3,"
                     "1REDUCE_GRAD,0RECV_B2,0I2,0W2,0REDUCE_GRAD,0STEP,1STEP\n"
                     "0F1,(1RECV_F0;0SEND_F1)BATCH,1F0,0F3,0SEND_F3,1B0,"
                     "(1RECV_F2;1SEND_B0;0RECV_B1)BATCH," PAIR("1F2", "0B1") ",1B2,"
                     "(0RECV_B3;1SEND_B2)BATCH,1REDUCE_GRAD,0I3,0W3,0REDUCE_GRAD,0STEP,"
                     "1STEP\n");
    free(text);
    dls_schedule_free(&lowered);
    dls_schedule_free(&c.s);
}
static void compare_with_oracle(pipe_case *c)
{
    c->s.options.cost = (dls_pipeline_costs){.F = 101, .I = 97, .W = 89, .hop = 13,
                                             .overlapped = 211};
    dls_evaluation e;
    cr_assert_eq(dls_evaluate(&c->s, &e), DLS_OK);
    oracle x = oracle_run_costs(&c->s, &c->s.options.cost);
    cr_assert_eq(x.verdict, ORACLE_RUNS);
    cr_assert_eq(e.makespan, x.makespan);
    cr_assert_eq(e.span, x.span);
    for (int r = 0; r < e.ranks; r++) {
        cr_assert_eq(e.makespan - e.busy[r], x.idle[r]);
        cr_assert_eq(e.peak[r], x.peak[r]);
    }
    dls_evaluation_free(&e);
}

Test(dualpipe, the_oracle_agrees_about_pairs)
{
    for_all_pipes(16, compare_with_oracle);
}

/* test mutants of dualpipe */
/* 1 if the checker or the numbers notice. */
static int noticed(pipe_case *c)
{
    if (dls_schedule_check(&c->s, NULL) != DLS_OK)
        return 1;
    dls_evaluation e = evaluate(c, 4, 4, 3, 11);
    const costs4 x = {4, 4, 3, 11};
    int wrong = 0;
    for (int r = 0; r < e.ranks; r++)
        wrong |= e.makespan - e.busy[r] != law(c->half, x) ||
                 e.peak[r] != 2 * c->half + 1;
    dls_evaluation_free(&e);
    return wrong;
}

static void flip_parity(pipe_case *c)
{
    for (int r = 0; r < c->s.options.ranks; r++)
        for (size_t i = 0; i < c->s.order[r].n; i++)
            c->s.order[r].list[i].microbatch ^= 1;
}
static void forward_first(pipe_case *c)
{
    for (int r = 0; r < c->s.options.ranks; r++) {
        dls_action *a = c->s.order[r].list;
        for (size_t i = 0; i + 2 < c->s.order[r].n; i++)
            if (a[i].kind == DLS_DO_I && a[i + 1].kind == DLS_DO_W &&
                a[i + 2].kind == DLS_DO_F) {
                dls_action forward = a[i + 2];
                memmove(a + i + 1, a + i, 2 * sizeof *a);
                a[i] = forward;
                i += 2;
            }
    }
}

/* The last two phases the other way round: all I, then all W. */
static void weights_last(pipe_case *c)
{
    for (int r = 0; r < c->s.options.ranks; r++) {
        dls_actions *list = &c->s.order[r];
        for (size_t n = list->n; n-- > 1;)
            for (size_t i = list->n - 1; i > 1; i--)
                if (i > list->n / 2 && list->list[i].kind == DLS_DO_I &&
                    list->list[i - 1].kind == DLS_DO_W) {
                    dls_action w = list->list[i - 1];
                    list->list[i - 1] = list->list[i];
                    list->list[i] = w;
                }
    }
}
static void no_split(pipe_case *c) { join(c, 1, 1); }
static void no_split_at_the_end(pipe_case *c) { join(c, 0, 1); }
static void no_split_before(pipe_case *c) { join(c, 1, 0); }
static void backward_first(pipe_case *c) { unpair(&c->s, 1); }
static void no_change(pipe_case *c) { (void)c; }

Test(dualpipe, mutants_are_noticed)
{
    static const struct { on_pipe *mutate; int noticed; } mutants[] = {
        {no_change, 0},   {flip_parity, 1},     {forward_first, 1}, {weights_last, 1},
        {no_split, 1},    {no_split_at_the_end, 1}, {no_split_before, 1},
        {backward_first, 1}};
    for (size_t i = 0; i < sizeof mutants / sizeof *mutants; i++)
        for (int ranks = 6; ranks <= 10; ranks += 2) {
            pipe_case c = pipe_of("dualpipe", ranks, 2 * ranks + 4);
            mutants[i].mutate(&c);
            cr_assert_eq(noticed(&c), mutants[i].noticed, "mutant %zu of %d", i, ranks);
            dls_schedule_free(&c.s);
        }
}

/* test the latency of dualpipe */
Test(dualpipe, latency_grows_by_almost_a_hop_per_micro_batch)
{
    for (int H = 1; H <= 8; H++)
        for (int n = 2 * H; n <= 6 * H; n++) {
            pipe_case c = pipe_of("dualpipe", 2 * H, 2 * n);
            dls_evaluation e = evaluate(&c, 100, 100, 100, 300), with;
            c.s.options.cost.hop = 1;
            cr_assert_eq(dls_evaluate(&c.s, &with), DLS_OK);
            int k = n - 2 * H;
            cr_assert_eq(with.makespan - e.makespan,
                         7 * H - 5 + 2 * k - (k + 2 * H - 2) / H + 1, "H%d n%d", H, n);
            dls_evaluation_free(&e);
            dls_evaluation_free(&with);
            dls_schedule_free(&c.s);
        }
}

/* test refusals of dualpipe */
static void expect_refusal(const char *name, int ranks, int m, const char *message)
{
    dls_schedule_options o = dls_schedule_defaults(name, ranks, m);
    dls_schedule s;
    dls_status_clear();
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), message);
}

Test(dualpipe, says_what_would_do)
{
    expect_refusal("dualpipe", 7, 20, "dualpipe: expected an even number of stages, "
                   "since each pair of ranks holds the same two, got 7: the nearest is 8");
    expect_refusal("dualpipe", 8, 14, "dualpipe: expected an even number of "
                   "micro-batches from 16 on, 2 x 8 stages, got 14: the nearest is 16");
    expect_refusal("dualpipe", 8, 17, "dualpipe: expected an even number of "
                   "micro-batches from 16 on, 2 x 8 stages, got 17: the nearest is 18");
    expect_refusal("dualpipev", 3, 5, "dualpipev: expected micro-batches from 6 on, "
                   "2 x 3 stages, got 5: the nearest is 6");
}
