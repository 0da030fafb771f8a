/* tests/model/test_draw.c: from chapters/09-transformer-generation-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The draw: by hand, against another implementation, against its definition. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/draw.h"

#define OK(expr) cr_assert_eq((expr), DLS_OK, "%s", dls_status_message())

/* probe the steps */
typedef struct kept { int token; double p; } kept;

static int draw_at(const dls_draw *s, double u, const double *logits, int V,
                   const char *seen)
{
    double copy[64];
    dls_candidate room[64];
    int token = -1;
    memcpy(copy, logits, (size_t)V * sizeof *copy);
    OK(dls_draw_token(s, u, copy, V, seen, room, &token));
    return token;
}

/* The n kept tokens, likeliest first, with probabilities known to `error`. */
static void expect_steps(const dls_draw *s, const double *logits, int V,
                         const char *seen, const kept *want, int n, double error)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        cr_assert_eq(draw_at(s, sum + error, logits, V, seen), want[i].token, "%d", i);
        sum += want[i].p;
        double last = sum - error < 1 ? sum - error : 1 - 0x1p-33;
        cr_assert_eq(draw_at(s, last, logits, V, seen), want[i].token, "end of %d", i);
    }
    cr_assert(fabs(sum - 1) < n * error);
}

/* test the steps */
Test(draw, follows_the_table)
{
    const double logits[6] = {1, 2, 0.5, 1.2, -0.5, 0.2};
    const char seen[6] = {0, 1, 0, 0, 0, 0};
    const dls_draw s = {0.5, 5, 0.9, 1.25};
    const kept want[3] = {{1, 0.57126}, {3, 0.25668}, {0, 0.17206}};
    expect_steps(&s, logits, 6, seen, want, 3, 1e-4);
    cr_assert_eq(draw_at(&s, 0.7, logits, 6, seen), 3);
}

Test(draw, a_penalty_lowers_negative_logits_too)
{
    const double logits[2] = {1, -1};       // become 0.5 and -2
    const char seen[2] = {1, 1};
    const dls_draw s = {1, 0, 1, 2};
    const kept want[2] = {{0, 0.924142}, {1, 0.075858}};    // 1 / (1 + exp(-2.5))
    expect_steps(&s, logits, 2, seen, want, 2, 1e-6);
}

Test(draw, agrees_with_another_implementation)
{
    const dls_draw s = {0.7, 12, 0.8, 1.3};
    const kept want[5] = {{35, 0.3228321387417074}, {33, 0.3046286010481978},
        {4, 0.14329517215667387}, {27, 0.134898161221103}, {39, 0.09434592683231804}};
    double logits[40];
    char seen[40] = {0};
    for (int i = 0; i < 40; i++)
        logits[i] = 8 * dls_rng_uniform(7, 1, i) - 4;
    seen[3] = seen[17] = seen[21] = 1;
    expect_steps(&s, logits, 40, seen, want, 5, 1e-12);
}

/* test against the definition */
static const double *sorted_by;

static int by_logit(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return sorted_by[x] != sorted_by[y] ? (sorted_by[x] < sorted_by[y] ? 1 : -1) : x - y;
}

static int defined(const dls_draw *s, double u, const double *logits, int V)
{
    int order[64], n = s->top_k > 0 && s->top_k < V ? s->top_k : V, keep = 0;
    double p[64], all = 0, sum = 0;
    for (int i = 0; i < V; i++)
        order[i] = i;
    sorted_by = logits;
    qsort(order, (size_t)V, sizeof *order, by_logit);
    for (int i = 0; i < n; i++)
        all += p[i] = exp((logits[order[i]] - logits[order[0]]) / s->temperature);
    while (keep < n && (keep == 0 || sum < s->top_p * all * (1 - 1e-15)))
        sum += p[keep++];
    for (int i = 0; i + 1 < keep; i++)
        if ((u -= p[i] / sum) < 0)
            return order[i];
    return order[keep - 1];
}

/* compare with the definition */
Test(draw, agrees_with_the_definition)
{
    for (unsigned c = 0; c < 2000; c++) {
        double logits[64];
        int V = 1 + (int)(dls_rng_u32(3, c, 0) % 64);
        dls_draw s = {0.05 + 3 * dls_rng_uniform(3, c, 1),
                         (int)(dls_rng_u32(3, c, 2) % 70),
                         dls_rng_uniform(3, c, 3), 1};
        if (c % 3 == 0)
            s.top_p = 1;
        for (int i = 0; i < V; i++)
            logits[i] = floor(20 * dls_rng_uniform(3, c, 8 + i)) / 4; // many are equal
        double u = dls_rng_uniform(3, c, 4);
        cr_assert_eq(draw_at(&s, u, logits, V, NULL), defined(&s, u, logits, V), "%u", c);
    }
}

/* test the extremes */
Test(draw, extremes_are_defined)
{
    const double equal[4] = {1, 1, 1, 1}, logits[4] = {1, 3, 3, 2},
                 far[3] = {0, 800, -INFINITY}, one[1] = {-5};
    const double last = 1 - 0x1p-33, first = 0x1p-33;
    const char all[4] = {1, 1, 1, 1};
    cr_assert_eq(draw_at(&(dls_draw){0, 0, 1, 1}, last, logits, 4, NULL), 1, "tie");
    cr_assert_eq(draw_at(&(dls_draw){9, 1, 1, 1}, last, logits, 4, NULL), 1, "tie");
    cr_assert_eq(draw_at(&(dls_draw){9, 0, 1e-9, 1}, last, logits, 4, NULL), 1);
    cr_assert_eq(draw_at(&(dls_draw){1, 0, 1, 1}, last, logits, 4, NULL), 0);
    cr_assert_eq(draw_at(&(dls_draw){1, 0, 0.5, 1}, last, equal, 4, NULL), 1,
                 "two of four are half");
    cr_assert_eq(draw_at(&(dls_draw){1e-3, 0, 1, 1}, first, far, 3, NULL), 1);
    cr_assert_eq(draw_at(&(dls_draw){1e9, 0, 1, 1}, last, far, 3, NULL), 0,
                 "-inf is never drawn");
    cr_assert_eq(draw_at(&(dls_draw){1, 0, 0.5, 1}, 0.5, one, 1, NULL), 0);
    cr_assert_eq(draw_at(&(dls_draw){0, 0, 1, 1e3}, 0.5, logits, 4, all), 1,
                 "a penalty for all keeps the order");
}

/* test the refused draws */
Test(draw, what_means_nothing_is_refused)
{
    const dls_draw bad[] = {{-1, 0, 1, 1}, {NAN, 0, 1, 1}, {INFINITY, 0, 1, 1},
        {1, -1, 1, 1}, {1, 0, 0, 1}, {1, 0, 1.01, 1}, {1, 0, NAN, 1}, {1, 0, 1, 0},
        {1, 0, 1, -2}, {1, 0, 1, INFINITY}};
    const dls_draw good = {1, 0, 1, 1};
    double scores[3][2] = {{0, NAN}, {INFINITY, 0}, {-INFINITY, -INFINITY}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(dls_draw_check(&bad[i]), DLS_ERR_INPUT, "%zu", i);
    OK(dls_draw_check(&good));
    for (int i = 0; i < 3; i++) {
        dls_candidate room[2];
        int token = 7;
        cr_assert_eq(dls_draw_token(&good, 0.5, scores[i], 2, NULL, room, &token),
                     DLS_ERR_STATE);
        cr_assert_eq(token, 7);
    }
}

Test(draw, each_sequence_has_its_own_numbers)
{
    double a = dls_draw_uniform(1, 0, 0);
    cr_assert_eq(a, dls_draw_uniform(1, 0, 0));
    cr_assert(a != dls_draw_uniform(2, 0, 0) && a != dls_draw_uniform(1, 1, 0)
              && a != dls_draw_uniform(1, 0, 1));
    cr_assert(dls_draw_uniform(1, 1, 0) != dls_draw_uniform(1, 0, 1));
}
