/* tests/parallel/test_zero_bubble_auto.c: from chapters/05-pipeline-zero-bubble-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The automatic scheduler: the published rates, its limit, and the exact search. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "parallel/pipeline/auto.h"
#include "parallel/pipeline/evaluate.h"
#include "parallel/pipeline/schedules.h"
#include "pipeline_oracle.h"

/* try given times */
static int64_t fullest;  // of the last evaluation, in units of memory

static int64_t span_of(const dls_schedule_options *o)
{
    dls_schedule s;
    dls_evaluation e;
    cr_assert_eq(dls_schedule_make(o, &s), DLS_OK, "%s", dls_status_message());
    cr_assert_eq(dls_evaluate(&s, &e), DLS_OK, "%s", dls_status_message());
    int64_t span = e.span;
    fullest = 0;
    for (int r = 0; r < o->ranks; r++)
        fullest = e.peak[r] > fullest ? e.peak[r] : fullest;
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
    return span;
}

/* test the published rates */
static const struct {
    int m;
    int64_t F, I, W, hop, a, h;
    const char *rates[5];
} rows[] = {
    {24, 18522, 18086, 9337, 601, 24, 2304,
     {"0.2431", "0.1585", "0.1083", "0.1585", "0.0433"}},
    {32, 18513, 18086, 9331, 626, 24, 2304,
     {"0.1985", "0.1242", "0.0837", "0.1242", "0.0039"}},
    {64, 18546, 18097, 9321, 762, 24, 2304,
     {"0.1240", "0.0674", "0.0444", "0.0674", "0.0026"}},
    {24, 29718, 29444, 19927, 527, 32, 4096,
     {"0.2347", "0.1323", "0.0698", "0.1323", "0.0029"}},
    {32, 29802, 29428, 19530, 577, 32, 4096,
     {"0.1898", "0.1045", "0.0559", "0.1045", "0.0022"}},
    {64, 29935, 29621, 19388, 535, 32, 4096,
     {"0.1091", "0.0554", "0.0294", "0.0554", "0.0010"}}};
static const char *const columns[] = {"1f1b", "zb-h1", "zb-h2", "zb-auto", "zb-auto"};
Test(pipeline_auto, the_published_rates_to_four_digits)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < 5; k++) {
            dls_schedule_options o = dls_schedule_defaults(columns[k], 8, rows[i].m);
            int64_t hold = 34 * rows[i].h + 5 * rows[i].a * 1024;
            o.cost = (dls_pipeline_costs){.F = rows[i].F, .I = rows[i].I, .W = rows[i].W,
                                          .hop = rows[i].hop};
            o.memory = (dls_pipeline_memory){.hold = hold, .keep = 32 * rows[i].h};
            o.limit = k == 3 ? 8 * hold : k == 4 ? 16 * hold : 0;
            int64_t span = span_of(&o);
            int64_t ideal = rows[i].m * (rows[i].F + rows[i].I + rows[i].W);
            char rate[16];
            snprintf(rate, sizeof rate, "%.4f", (double)(span - ideal) / (double)span);
            cr_assert_str_eq(rate, rows[i].rates[k], "row %zu, %s", i, columns[k]);
            cr_assert(!o.limit || fullest <= o.limit);
        }
}

/* test the limit of memory */
Test(pipeline_auto, keeps_its_limit_and_is_no_worse_than_zb_h1)
{
    static const int64_t some[][4] = {{1, 1, 1, 0}, {2, 2, 1, 0}, {3, 4, 2, 1},
                                      {1, 1, 2, 0}, {9, 5, 7, 2}, {4, 9, 1, 0}};
    for (int i = 0; i < 6; i++)
        for (int p = 1; p <= 9; p += 1 + p / 3)
            for (int m = 1; m <= 3 * p + 1; m += 1 + p / 2) {
                dls_schedule_options o = dls_schedule_defaults("zb-auto", p, m);
                o.cost = (dls_pipeline_costs){.F = some[i][0], .I = some[i][1],
                                              .W = some[i][2], .hop = some[i][3]};
                o.memory = (dls_pipeline_memory){.hold = 10, .keep = 10 - 3 * (i % 2)};
                for (o.limit = 10; o.limit <= 20 * p; o.limit += 10) {
                    span_of(&o);
                    cr_assert_leq(fullest, o.limit, "%d p%d m%d", i, p, m);
                }
                o.limit = 10 * p;
                int64_t span = span_of(&o);
                o.name = "zb-h1";
                cr_assert_leq(span, span_of(&o), "%d p%d m%d", i, p, m);
            }
    dls_schedule s;
    dls_schedule_options o = dls_schedule_defaults("zb-auto", 4, 8);
    o.memory.hold = o.memory.keep = 10;
    o.limit = 9;
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "at least one stage activation"));
}
Test(pipeline_auto, is_on_the_bound_for_every_limit_from_p_to_two_p)
{
    static const int64_t some[][3] = {{1, 1, 1}, {2, 2, 1}, {3, 2, 1}, {2, 3, 1},
                                      {3, 4, 2}, {5, 4, 3}};
    for (int i = 0; i < 6; i++)
        for (int p = 2; p <= 9; p++)
            for (int m = 2 * p; m <= 4 * p + 1; m += p)
                for (int x = p; x <= 2 * p; x++) {
                    int64_t F = some[i][0], I = some[i][1], W = some[i][2];
                    int64_t bound = (p - 1) * (F + I) - (x - 1) * W;
                    dls_schedule_options o = dls_schedule_defaults("zb-auto", p, m);
                    o.cost = (dls_pipeline_costs){.F = F, .I = I, .W = W};
                    o.limit = x;
                    cr_assert_eq(span_of(&o),
                                 m * (F + I + W) + (bound > 0 ? bound : 0),
                                 "%d p%d m%d x%d", i, p, m, x);
                }
}

/* test unequal stages */
Test(pipeline_auto, sees_which_stage_is_slow)
{
    static const int64_t stage[] = {2, 2, 1, 2, 2, 1, 2, 2, 1, 4, 4, 3};
    dls_schedule_options o = dls_schedule_defaults("zb-auto", 4, 12);
    o.cost.of_stage = stage;
    o.limit = 4;
    int64_t own = span_of(&o);
    o.name = "zb-h1";
    int64_t fixed = span_of(&o);
    o.name = "1f1b";
    cr_assert_geq(own, 12 * 11);
    cr_assert_leq(own, fixed);
    cr_assert_leq(fixed, span_of(&o));
}

/* try every order */
static char words[462][16];
static int word_count;

static void spell(char *word, int m, int f, int i, int w)
{
    if (w == m)
        memcpy(words[word_count++], word, 16);
    if (f < m)
        word[f + i + w] = 'F', spell(word, m, f + 1, i, w);
    if (i < f)
        word[f + i + w] = 'I', spell(word, m, f, i + 1, w);
    if (w < i)
        word[f + i + w] = 'W', spell(word, m, f, i, w + 1);
}

static int fits(const char *word, int m, int limit)
{
    int held = 0, peak = 0;
    for (int i = 0; i < 3 * m; i++) {
        held += word[i] == 'F' ? 1 : word[i] == 'W' ? -1 : 0;
        peak = held > peak ? held : peak;
    }
    return peak <= limit;
}
/* The span of ranks that work by these words, or -1 if they wait for each other. */
static int64_t play(const char **word, int p, int m, const dls_pipeline_costs *c)
{
    int64_t f[3][4], g[3][4], now[3] = {0}, span = 0;
    int at[3] = {0}, n[3][2] = {{0}}, left = 3 * m * p;
    for (int moved = 1; moved && left; )
        for (int r = moved = 0; r < p; r++)
            for (; at[r] < 3 * m; at[r]++, moved = 1, left--) {
                char what = word[r][at[r]];
                int backward = what == 'I', i = n[r][backward];
                int from = r + (backward ? 1 : -1);
                int64_t ready = 0;
                if (what != 'W' && from >= 0 && from < p) {
                    if (n[from][backward] <= i)
                        break;
                    ready = (backward ? g : f)[from][i] + c->hop;
                }
                now[r] = (now[r] > ready ? now[r] : ready) +
                         (what == 'F' ? c->F : what == 'I' ? c->I : c->W);
                if (what != 'W')
                    (backward ? g : f)[r][n[r][backward]++] = now[r];
            }
    for (int r = 0; r < p; r++)
        span = now[r] - r * (c->F + c->hop) > span ? now[r] - r * (c->F + c->hop) : span;
    return left ? -1 : span;
}

/* test the search against every order */
static int64_t best_of_all(const dls_schedule_options *o, int p, int m)
{
    const char *word[3] = {0};
    int64_t best = INT64_MAX, all = 1;
    for (int r = 0; r < p; r++)
        all *= word_count;
    for (int64_t i = 0; i < all; i++) {
        int64_t code = i, fit = 1;
        for (int r = 0; r < p && fit; r++, code /= word_count) {
            word[r] = words[code % word_count];
            fit = fits(word[r], m, (int)o->limit);
        }
        int64_t span = fit ? play(word, p, m, &o->cost) : -1;
        best = span >= 0 && span < best ? span : best;
    }
    return best;
}
static const dls_pipeline_costs all_costs[] = {  // F, I, W, hop
    {.F = 1, .I = 1, .W = 1}, {.F = 2, .I = 2, .W = 1},
    {.F = 3, .I = 5, .W = 2, .hop = 1}, {.F = 1, .I = 1, .W = 3},
    {.F = 5, .I = 1, .W = 2, .hop = 2}, {.F = 1, .I = 4, .W = 2}};

Test(pipeline_auto, the_search_finds_the_best_of_all_orders)
{
    static const int sizes[][2] = {{1, 3}, {2, 2}, {2, 3}, {3, 2}, {3, 3}};
    for (int k = 0; k < 5; k++) {
        char word[16] = {0};
        int p = sizes[k][0], m = sizes[k][1];
        word_count = 0;
        spell(word, m, 0, 0, 0);
        for (int i = 0; i < 6; i++)
            for (int limit = 1; limit <= m; limit++) {
                dls_schedule_options o = dls_schedule_defaults("zb-exact", p, m);
                o.cost = all_costs[i];
                o.limit = limit;
                cr_assert_eq(span_of(&o), best_of_all(&o, p, m), "p%d m%d limit %d %d", p,
                             m, limit, i);
                cr_assert_leq(fullest, limit);
            }
    }
}

/* test the heuristic against the search */
Test(pipeline_auto, the_heuristic_is_never_better_than_the_best)
{
    int cases = 0, equal = 0;
    for (int i = 0; i < 6; i++)
        for (int p = 2; p <= 4; p++)
            for (int m = p; m <= 7 && m <= 2 * p; m++)
                for (int limit = p; limit <= 2 * p; limit++) {
                    dls_schedule_options o = dls_schedule_defaults("zb-auto", p, m);
                    o.cost = all_costs[i];
                    o.limit = limit;
                    int64_t heuristic = span_of(&o);
                    o.name = "zb-exact";
                    int64_t best = span_of(&o);
                    cr_assert_leq(best, heuristic);
                    cases++;
                    equal += best == heuristic;
                }
    cr_assert_eq(cases, 270);
    cr_assert_eq(equal, 267, "%d of %d", equal, cases);
}

/* test what the search refuses */
Test(pipeline_auto, the_search_refuses_what_is_too_large)
{
    dls_schedule s;
    dls_schedule_options o = dls_schedule_defaults("zb-exact", 16, 64);
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "at most 512 passes, got 3072"));
}
