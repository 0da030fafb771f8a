/* tests/parallel/test_pipeline_lower.c: from chapters/05-pipeline-evaluate-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Lowering: small schedules word by word, and laws over all of the table. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"
#include "pipeline_text.h"

/* expect a lowered text */
typedef dls_status pass(const dls_schedule *in, dls_schedule *out);

static void expect_text(const dls_schedule *s, const char *expected)
{
    char *text = text_of(s);
    cr_assert_str_eq(text, expected);
    free(text);
}

static void expect_pass(pass *p, const char *in, const char *expected)
{
    dls_schedule s = schedule_of(in), out;
    cr_assert_eq(p(&s, &out), DLS_OK, "%s", dls_status_message());
    expect_text(&out, expected);
    expect_text(&s, in);  // the pass leaves alone what it was given
    dls_schedule_free(&out);
    dls_schedule_free(&s);
}

/* test passes word by word */
Test(pipeline_lower, updates)
{
    expect_pass(dls_lower_updates, "0F0,2F0,2I0,0I0,0W0,2W0\n1F0,3F0,3B0,1B0\n",
                "0F0,2F0,2I0,0I0,0W0,0REDUCE_GRAD,2W0,2REDUCE_GRAD,0STEP,2STEP\n"
                "1F0,3F0,3B0,3REDUCE_GRAD,1B0,1REDUCE_GRAD,1STEP,3STEP\n");
    expect_pass(dls_lower_updates, "0F0,0F1\n1F0,1F1\n", "0F0,0F1\n1F0,1F1\n");
    expect_pass(dls_lower_updates, "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n",
                "0F0,(0F1;0B0)OVERLAP_F_B,0B1,0REDUCE_GRAD,0STEP\n");
}

Test(pipeline_lower, updates_of_an_asynchronous_schedule)
{
    dls_schedule s = schedule_of("0F0,0B0,0F1,0B1,0F2,0B2\n"), out;
    s.step_every = 2;
    cr_assert_eq(dls_lower_updates(&s, &out), DLS_OK);
    expect_text(&out, "0F0,0B0,0F1,0B1,0REDUCE_GRAD,0STEP,0F2,0B2,0REDUCE_GRAD,0STEP\n");
    dls_schedule_free(&out);
    dls_schedule_free(&s);
}
static dls_status shards_1(const dls_schedule *in, dls_schedule *out)
{
    return dls_lower_shards(in, 1, out);
}

static dls_status shards_2(const dls_schedule *in, dls_schedule *out)
{
    return dls_lower_shards(in, 2, out);
}

Test(pipeline_lower, shards)
{
    expect_pass(shards_1, "0F0,0F1,1F0,2F0,2B0,0B0,0REDUCE_GRAD,0STEP\n",
                "0UNSHARD,0F0,0F1,0RESHARD,1UNSHARD,1F0,1RESHARD,2UNSHARD,2F0,2B0,"
                "2RESHARD,0UNSHARD,0B0,0REDUCE_GRAD,0RESHARD,0STEP\n");
    expect_pass(shards_2, "0F0,0F1,1F0,2F0,2B0,0B0,0REDUCE_GRAD,0STEP\n",
                "0UNSHARD,1UNSHARD,0F0,0F1,0RESHARD,2UNSHARD,1F0,1RESHARD,0UNSHARD,2F0,"
                "2B0,2RESHARD,0B0,0REDUCE_GRAD,0RESHARD,0STEP\n");
    expect_pass(shards_1, "0F0,(1F0;0F1)OVERLAP_F_B,1F1\n",
                "0UNSHARD,1UNSHARD,0F0,(1F0;0F1)OVERLAP_F_B,0RESHARD,1F1,1RESHARD\n");
    dls_schedule s = schedule_of("0F0\n"), out;
    cr_assert_eq(dls_lower_shards(&s, 0, &out), DLS_ERR_INPUT);
    dls_schedule_free(&s);
}
Test(pipeline_lower, messages_and_batches)
{
    expect_pass(dls_lower_messages, "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n",
                "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
                "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n");
    expect_pass(dls_lower_batches, "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
                "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n",
                "0F0,0SEND_F0,0F1,(0SEND_F1;0RECV_B0)BATCH,0B0,0RECV_B1,0B1\n"
                "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n");
    expect_pass(dls_lower_messages, "0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n",
                "0F0,0SEND_F0,3RECV_F0,3F0,3B0,3SEND_B0,0RECV_B0,0B0\n"
                "1RECV_F0,1F0,2F0,2SEND_F0,2RECV_B0,2B0,1B0,1SEND_B0\n");
    dls_schedule s = schedule_of("0F0,0SEND_F0\n1RECV_F0,1F0\n"), out;
    cr_assert_eq(dls_lower_messages(&s, &out), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(),
                     "rank 0: the schedule has its messages already");
    dls_schedule_free(&s);
}
Test(pipeline_lower, a_batch_has_one_peer)
{
    expect_pass(dls_lower_batches, "0F0,0SEND_F0\n1RECV_F0,1F0,1SEND_F0\n2RECV_F0,2F0\n",
                "0F0,0SEND_F0\n1RECV_F0,1F0,1SEND_F0\n2RECV_F0,2F0\n");
    expect_pass(dls_lower_batches,
                "0F0,0F1,0SEND_F0,0SEND_F1\n"
                "1RECV_F0,1F0,1RECV_F1,1SEND_F0,1F1,1SEND_F1\n"
                "2RECV_F0,2F0,2RECV_F1,2F1\n",
                "0F0,0F1,(0SEND_F0;0SEND_F1)BATCH\n"
                "1RECV_F0,1F0,1RECV_F1,1SEND_F0,1F1,1SEND_F1\n"
                "2RECV_F0,2F0,2RECV_F1,2F1\n");
}

/* test laws of lowering */
static const dls_pipeline_costs shapes[] = {
    {.F = 1, .I = 1, .W = 1}, {.F = 3, .I = 2, .W = 1, .hop = 1},
    {.F = 1, .I = 5, .W = 9, .hop = 7}, {.hop = 1}, {.F = 1, .I = 1, .W = 1, .hop = 500},
    {.F = 0, .I = 1, .W = 0}};

static size_t count(const dls_schedule *s, int kind)
{
    size_t n = 0;
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++)
            n += s->order[r].list[i].kind == kind;
    return n;
}

static void strip(dls_schedule *s)
{
    for (int r = 0; r < s->options.ranks; r++) {
        size_t n = 0;
        for (size_t i = 0; i < s->order[r].n; i++)
            if (s->order[r].list[i].kind <= DLS_DO_B)
                s->order[r].list[n++] = s->order[r].list[i];
        s->order[r].n = n;
    }
}

/* Borders that an activation crosses, for all micro-batches. */
static size_t crossings(const dls_schedule *s)
{
    size_t n = 0;
    for (int i = 0; i < s->options.microbatches; i++)
        for (int k = 0; k + 1 < s->stages; k++)
            n += dls_schedule_rank(s, k, i) != dls_schedule_rank(s, k + 1, i);
    return n;
}
static void check_laws(const dls_schedule *made)
{
    dls_schedule s;
    cr_assert_eq(dls_lower(made, 2, &s), DLS_OK, "%s", dls_status_message());
    cr_assert_eq(dls_schedule_check(&s, NULL), DLS_OK, "%s p%d m%d: %s",
                 made->options.name, made->options.ranks, made->options.microbatches,
                 dls_status_message());
    size_t forward = crossings(made), back = made->backward ? forward : 0;
    cr_assert(count(&s, DLS_DO_SEND_F) == forward && count(&s, DLS_DO_RECV_F) == forward);
    cr_assert(count(&s, DLS_DO_SEND_B) == back && count(&s, DLS_DO_RECV_B) == back);
    cr_assert_eq(count(&s, DLS_DO_UNSHARD), count(&s, DLS_DO_RESHARD));
    strip(&s);
    char *plan = text_of(made);
    expect_text(&s, plan);
    free(plan);
    dls_schedule_free(&s);
}

Test(pipeline_lower, laws_over_the_table)
{
    static const int sizes[][2] = {{1, 1}, {1, 4}, {2, 2}, {2, 5}, {3, 3}, {3, 7}, {4, 8},
                                   {6, 12}, {8, 8}};
    int made_some = 0;
    for (int i = 0; dls_schedule_at(i); i++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
            for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
                dls_schedule s;
                dls_schedule_options o = dls_schedule_defaults(
                    dls_schedule_at(i)->name, sizes[k][0], sizes[k][1]);
                o.cost = shapes[c];
                if (dls_schedule_make(&o, &s) != DLS_OK)
                    continue;
                check_laws(&s);
                dls_schedule_free(&s);
                made_some++;
            }
    cr_assert_gt(made_some, 300);
}
static size_t gathers(const char *name, int p, int m, int v)
{
    dls_schedule made, s;
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    o.chunks = v;
    cr_assert_eq(dls_schedule_make(&o, &made), DLS_OK);
    cr_assert_eq(dls_lower(&made, 1, &s), DLS_OK);
    size_t n = count(&s, DLS_DO_UNSHARD);
    dls_schedule_free(&s);
    dls_schedule_free(&made);
    return n;
}

Test(pipeline_lower, breadth_first_gathers_least)
{
    for (int v = 1; v <= 5; v++)
        cr_assert_eq(gathers("bfs", 4, 16, v), (size_t)(4 * (2 * v - 1)));
    cr_assert_eq(gathers("gpipe", 4, 16, 1), 4);
    cr_assert_gt(gathers("interleaved", 4, 16, 2), 4 * gathers("bfs", 4, 16, 2));
}
