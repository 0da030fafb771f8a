/* tests/parallel/test_pipeline_orders.c: from chapters/05-pipeline-schedules-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The orders themselves, in action text; the printed schedule table; weight versions. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/groups.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/versions.h"
#include "pipeline_oracle.h"

/* write a rank as text */
static dls_schedule made(const char *name, int p, int m, int v, int g)
{
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    dls_schedule s;
    o.chunks = v;
    o.group = g;
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_OK, "%s", dls_status_message());
    return s;
}

static void expect_rank(const char *name, int p, int m, int v, int rank,
                        const char *expected)
{
    dls_schedule s = made(name, p, m, v, 0);
    char text[4096], *at = text;
    for (size_t i = 0; i < s.order[rank].n; i++, *at++ = ' ')
        at += dls_action_text(&s.order[rank].list[i], at);
    at[-1] = 0;
    cr_assert_str_eq(text, expected);
    dls_schedule_free(&s);
}

/* test small orders */
Test(pipeline_orders, small_orders)
{
    expect_rank("gpipe", 3, 3, 0, 1, "1F0 1F1 1F2 1B0 1B1 1B2");
    expect_rank("1f1b", 3, 4, 0, 0, "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3");
    expect_rank("1f1b", 3, 4, 0, 2, "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3");
    expect_rank("1f1b", 3, 1, 0, 0, "0F0 0B0"); // less than the warm-up
    expect_rank("1f1b-eager", 2, 4, 0, 0, "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3");
    expect_rank("bfs", 2, 2, 2, 1, "1F0 1F1 3F0 3F1 3B0 3B1 1B0 1B1");
    expect_rank("forward-only", 2, 3, 2, 1, "1F0 1F1 1F2 3F0 3F1 3F2");
    expect_rank("interleaved", 2, 4, 2, 1,
                "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3");
    expect_rank("chimera", 4, 4, 0, 0, "0F0 0F2 3F1 3B1 3F3 3B3 0B0 0B2");
    expect_rank("chimera", 4, 4, 0, 1, "1F0 2F1 1F2 2F3 2B1 1B0 2B3 1B2");
    expect_rank("pipedream", 3, 4, 0, 1, "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3");
}

/* test the printed schedule table */
/* Megatron-LM's example: 2 ranks, groups of 3, 5 micro-batches, 2 chunks, rank 0. Chunks
 * count from 1, backward is negative. */
Test(pipeline_orders, the_schedule_table_in_print)
{
    static const int printed[] = {1, 1, 1, 2, 2, 2, -2, 1, -2, 1,
                                  -2, 2, -1, 2, -1, -1, -2, -2, -1, -1};
    dls_schedule s = made("interleaved", 2, 5, 2, 3);
    cr_assert_eq(s.order[0].n, sizeof printed / sizeof *printed);
    for (size_t i = 0; i < s.order[0].n; i++) {
        const dls_action *a = &s.order[0].list[i];
        int chunk = a->stage / 2 + 1;
        cr_assert_eq(a->kind == DLS_DO_F ? chunk : -chunk, printed[i], "place %zu", i);
    }
    dls_schedule_free(&s);
}

/* test groups */
/* Every pass once, chunk after chunk within a group, and no group smaller than p unless
 * there are fewer micro-batches. */
Test(pipeline_orders, groups_cover_all_and_none_is_too_small)
{
    for (int p = 1; p <= 9; p++)
        for (int g = p; g <= 2 * p + 2; g++)
            for (int m = 1; m <= 40; m++) {
                dls_groups x = dls_groups_of(m, p, g);
                int left = m - x.n * x.size, v = 3, seen[40] = {0};
                cr_assert(left == 0 || (left % x.rest == 0 && x.rest <= x.size));
                cr_assert(m < g ? x.size == m : x.size >= p && (!left || x.rest >= p));
                if (m > g && m % g && m % g < p && left)
                    cr_assert_eq(x.size, x.rest + 1); // dealt out evenly
                for (int k = 0; k < m * v; k++) {
                    int chunk, i;
                    dls_groups_pass(&x, v, k, &chunk, &i);
                    cr_assert_eq(seen[i]++, chunk, "p%d g%d m%d pass %d", p, g, m, k);
                }
            }
}

/* test what is refused */
static void expect_refused(const char *name, int p, int m, int v, int g,
                           const char *reason)
{
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    dls_schedule s;
    o.chunks = v;
    o.group = g;
    cr_assert_eq(dls_schedule_make(&o, &s), DLS_ERR_INPUT, "%s", name);
    cr_assert(strstr(dls_status_message(), reason), "%s", dls_status_message());
    cr_assert_null(s.order);
}

Test(pipeline_orders, what_cannot_be_is_refused_with_the_reason)
{
    expect_refused("interleaved", 4, 8, 2, 3, "expected at least the 4 ranks");
    expect_refused("forward-only", 4, 8, 2, 3, "expected at least the 4 ranks");
    expect_refused("1f1b", 4, 8, 2, 0, "expected 1 chunk, got 2");
    expect_refused("chimera", 3, 6, 0, 0, "an even number of ranks");
    expect_refused("chimera", 1, 6, 0, 0, "an even number of ranks");
    expect_refused("pipedream-2bw", 4, 10, 0, 2, "a group of at least 3");
    expect_refused("pipedream-2bw", 4, 10, 0, 4, "no whole number of groups of 4");
    expect_refused("gpipe", 0, 8, 0, 0, "stages");
    expect_refused("bfs", 4, 0, 2, 0, "micro-batches");
}

/* count the tables that hang */
/* Pass k with a small last group, in the order of the forward chunks. */
static dls_action naive(int p, int v, int m, int rank, dls_action_kind kind, int k)
{
    int group = k / (p * v), size = m - group * p < p ? m - group * p : p;
    int within = k - group * p * v, chunk = within / size;
    if (kind == DLS_DO_B)
        chunk = v - 1 - chunk;
    return (dls_action){(uint8_t)kind, 0, (int16_t)(chunk * p + rank),
                        group * p + within % size};
}

static int hangs(int p, int v, int m)
{
    dls_schedule s = made("interleaved", p, m, v, 0);
    for (int r = 0; r < p; r++) {
        int w = 2 * (p - 1 - r) + (v - 1) * p;
        dls_action *at = s.order[r].list;
        for (int k = 0; k < m * v + w; k++) {
            if (k < m * v)
                *at++ = naive(p, v, m, r, DLS_DO_F, k);
            if (k >= w && k - w < m * v)
                *at++ = naive(p, v, m, r, DLS_DO_B, k - w);
        }
    }
    oracle x = oracle_run(&s, 1, 1, 1, 0);
    dls_schedule_free(&s);
    cr_assert_neq(x.verdict, ORACLE_WRONG);
    return x.verdict == ORACLE_STUCK;
}

Test(pipeline_orders, half_of_the_tables_with_a_small_last_group_hang)
{
    int tables = 0, hung = 0;
    for (int p = 2; p <= 8; p++)
        for (int v = 2; v <= 4; v++)
            for (int m = p + 1; m < 4 * p; m++)
                if (m % p) {
                    tables++;
                    hung += hangs(p, v, m);
                }
    cr_assert_eq(tables, 252);
    cr_assert_eq(hung, 120);
}

/* follow the versions */
/* Walks a stage's list, stepping after every step_every-th backward. Asserts that every
 * version exists when a pass needs it; returns the most that had to be held at once. */
static int follow(const dls_schedule *s, int stage, int exact)
{
    const dls_actions *list = &s->order[stage];
    int m = s->options.microbatches, newest = 0, backwards = 0, most = 0;
    char *needed = calloc((size_t)m + 2, 1);
    for (size_t i = 0; i < list->n; i++) {
        const dls_action *a = &list->list[i];
        int version = dls_schedule_version(s, stage, a->microbatch), held = 0;
        if (a->kind == DLS_DO_F)
            cr_assert(exact ? version == newest : version <= newest,
                      "%s p%d g%d: stage %d, micro-batch %d: version %d of %d",
                      s->options.name, s->options.ranks, s->step_every, stage,
                      a->microbatch, version, newest);
        if (a->kind == DLS_DO_B && ++backwards % s->step_every == 0)
            newest++;
        memset(needed, 0, (size_t)m + 2);
        needed[newest] = 1;
        for (int t = backwards; t < m; t++) // under way, or still to come
            if (dls_schedule_version(s, stage, t) < newest)
                needed[dls_schedule_version(s, stage, t)] = 1;
        for (int t = 0; t <= newest; t++)
            held += needed[t];
        most = held > most ? held : most;
    }
    free(needed);
    return most;
}

/* test the version rules */
Test(pipeline_orders, the_version_rules_of_pipedream)
{
    for (int p = 1; p <= 8; p++)
        for (int m = 1; m <= 4 * p + 3; m++) {
            dls_schedule stash = made("pipedream", p, m, 0, 0);
            dls_schedule sync = made("pipedream-vertical", p, m, 0, 0);
            for (int s = 0; s < p; s++) {
                for (int t = 0; t < m; t++) {
                    int w = t - (p - 1 - s), first = t - (p - 1);
                    cr_assert_eq(dls_schedule_version(&stash, s, t), w > 0 ? w : 0);
                    cr_assert_eq(dls_schedule_version(&sync, s, t),
                                 first > 0 ? first : 0);
                }
                int stashed = follow(&stash, s, 1), synced = follow(&sync, s, 0);
                cr_assert_leq(stashed, p - s);
                cr_assert_leq(synced, p);
                if (m >= 2 * p) {
                    cr_assert_eq(stashed, p - s);
                    cr_assert_eq(synced, p);
                }
                cr_assert_eq(dls_schedule_versions_held(&stash, s), p - s);
                cr_assert_eq(dls_schedule_versions_held(&sync, s), p);
            }
            dls_schedule_free(&stash);
            dls_schedule_free(&sync);
        }
}

Test(pipeline_orders, two_versions_with_a_delay_of_one_step)
{
    for (int p = 1; p <= 8; p++)
        for (int g = p > 2 ? p - 1 : 1; g <= 2 * p; g++)
            for (int steps = 1; steps <= 5; steps++) {
                dls_schedule two = made("pipedream-2bw", p, g * steps, 0, g);
                cr_assert_eq(two.step_every, g);
                for (int s = 0; s < p; s++) {
                    for (int t = 0; t < g * steps; t++)
                        cr_assert_eq(dls_schedule_version(&two, s, t),
                                     t / g > 1 ? t / g - 1 : 0);
                    cr_assert_leq(follow(&two, s, 0), 2);
                    cr_assert_eq(dls_schedule_versions_held(&two, s), 2);
                }
                dls_schedule_free(&two);
            }
}

Test(pipeline_orders, a_synchronous_schedule_has_one_version)
{
    dls_schedule s = made("1f1b", 4, 9, 0, 0);
    cr_assert_eq(s.step_every, 0);
    for (int t = 0; t < 9; t++)
        cr_assert_eq(dls_schedule_version(&s, 0, t), 0);
    cr_assert_eq(dls_schedule_versions_held(&s, 0), 1);
    dls_schedule_free(&s);
}

/* test too small a group for two versions */
/* One micro-batch less than p - 1, and stage 0 would need weights that do not exist. */
Test(pipeline_orders, the_smallest_group_of_2bw_is_sharp)
{
    for (int p = 3; p <= 9; p++) {
        int g = p - 2, late = 0;
        dls_schedule s = made("1f1b", p, 6 * g, 0, 0);
        for (size_t i = 0, backwards = 0; i < s.order[0].n; i++) {
            const dls_action *a = &s.order[0].list[i];
            backwards += a->kind == DLS_DO_B;
            late += a->kind == DLS_DO_F && a->microbatch / g - 1 > (int)backwards / g;
        }
        cr_assert_gt(late, 0, "p%d", p);
        dls_schedule_free(&s);
    }
}
