/* tests/parallel/test_pairs.c: from chapters/08-dualpipe-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Paired passes: whose turn it is, whether numbers survive it, and DualPipe. */
#include "pipeline_layout.h"

#include "exact_model.h"
#include "pointed.h"

/* test the order of turns */
Test(pairs, an_order_is_letters_and_blanks)
{
    dls_pair_order o;
    cr_assert_eq(dls_pair_order_read("x", " bf f", &o), DLS_OK);
    cr_assert_eq(o.n, 3);
    cr_assert(o.turn[0] == DLS_PAIR_BACKWARD && o.turn[1] == DLS_PAIR_FORWARD
              && o.turn[2] == DLS_PAIR_FORWARD);
    cr_assert_eq(dls_pair_order_read("x", NULL, &o), DLS_OK);
    cr_assert(o.n == 2 && o.turn[0] == DLS_PAIR_BACKWARD);
    const char *wrong[] = {"", "  ", "b,f", "bfx",
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(dls_pair_order_read("pair_order", wrong[i], &o), DLS_ERR_INPUT);
        cr_assert(strstr(dls_status_message(), "pair_order: expected"));
    }
}

/* test pairs of one stage */
/* F0 (F1 B0) (F2 B1) ... and the last B; of the first pair, I and W instead of B. */
static void pair_up(dls_schedule *s)
{
    dls_actions *list = &s->order[0], made = {0};
    int n = s->options.microbatches;
    dls_actions_add(&made, DLS_DO_F, 0, 0);
    for (int i = 1; i <= n; i++) {
        if (i < n) {
            dls_actions_add(&made, DLS_DO_F, 0, i);
            dls_actions_pair(&made);
        }
        dls_actions_add(&made, i == 1 ? DLS_DO_I : DLS_DO_B, 0, i - 1);
        if (i == 1)
            dls_actions_add(&made, DLS_DO_W, 0, i - 1);
    }
    dls_actions_free(list);
    *list = made;
}

/* F, I and B of a rank. */
static dls_status count_passes(const pipeline_setup *setup, int rank, int *passes)
{
    dls_schedule s;
    DLS_TRY(pipeline_schedule(setup, &s));
    *passes = 0;
    for (size_t i = 0; i < s.order[rank].n; i++)
        *passes += dls_action_computes(&s.order[rank].list[i])
            && s.order[rank].list[i].kind != DLS_DO_W;
    dls_schedule_free(&s);
    return DLS_OK;
}


/* One device's numbers; and from one layer to the next there were more changes between
 * forward and backward than if all passes had run one behind the other. */
static dls_status prove_pairs(int rank, void *arg)
{
    const layout_proof *p = arg;
    const pipeline_setup *setup = p->layout->options;
    int turns = 0, passes, apart = setup->order && setup->order[1] == 0;
    DLS_TRY(layout_prove(rank, arg));
    DLS_TRY(count_passes(setup, rank, &passes));
    for (int i = 1; i < pointed_count; i++)
        turns += pointed_log[i] != pointed_log[i - 1];
    passes *= p->steps;
    EXPECT(apart ? turns < passes : turns > 2 * passes, "%d turns in %d passes", turns,
           passes);
    return DLS_OK;
}

#define expect_pairs(n, ...)                                            \
    do {                                                                \
        pipeline_setup setup_ = {__VA_ARGS__};                          \
        const layout layout_ = pipeline_layout(&setup_);                \
        setup_.proof.layout = &layout_;                                 \
        setup_.proof.pipeline = setup_.ranks;                           \
        setup_.make = setup_.proof.exact ? pointed_exact_make           \
                                         : pointed_make;                \
        expect_ranks(n, prove_pairs, &setup_.proof);                    \
    } while (0)

Test(pairs, of_one_stage_in_any_order)
{
    const char *orders[] = {"b f", "f b", "f", "b", "b b f", "f f f b"};
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        expect_pairs(1, .schedule = "gpipe", .ranks = 1, .microbatches = 4,
                     .change = pair_up, .order = orders[i],
                     .proof = {.exact = 1, .rows = 7, .micro = 2, .steps = 1, .clip = 8});
        expect_pairs(1, .schedule = "gpipe", .ranks = 1, .microbatches = 4,
                     .change = pair_up, .order = orders[i],
                     .proof = {.rows = 7, .micro = 2, .steps = 2, .clip = 1,
                               .llama = i % 2});
    }
}

/* A pass that forgets its stash has it in the scratch memory while it lasts. */
Test(pairs, of_one_stage_have_working_memory_of_their_own)
{
    const char *orders[] = {"b f", "f f b"};
    pointed_recompute = DLS_RECOMPUTE_FULL;
    for (size_t i = 0; i < 2; i++)
        expect_pairs(1, .schedule = "gpipe", .ranks = 1, .microbatches = 4,
                     .change = pair_up, .order = orders[i],
                     .proof = {.rows = 7, .micro = 2, .steps = 2, .clip = 1});
}

Test(pairs, without_rows_for_the_other_half)
{
    expect_pairs(1, .schedule = "gpipe", .ranks = 1, .microbatches = 12,
                 .change = pair_up,
                 .proof = {.exact = 1, .rows = 6, .micro = 1, .steps = 1});
}

/* test a pair that fails */
/* A point of the second F fails, while B waits at one of its own. */
static dls_status break_a_pair(int rank, void *arg)
{
    (void)rank;
    pointed_fails = 60;
    dls_status s = layout_prove(0, arg);
    EXPECT(s == DLS_ERR_DEVICE, "%s: %s", dls_status_name(s), dls_status_message());
    EXPECT(strstr(dls_status_message(), "point 60 fails"), "%s", dls_status_message());
    EXPECT(memchr(pointed_log, 'b', 60), "the pass that failed was in no pair");
    dls_status_clear();
    return DLS_OK;
}

Test(pairs, a_failure_ends_both_passes)
{
    pipeline_setup setup = {.schedule = "gpipe", .ranks = 1, .microbatches = 4,
                            .change = pair_up, .make = pointed_exact_make,
                            .proof = {.exact = 1, .rows = 8, .micro = 2, .steps = 1,
                                      .pipeline = 1}};
    const layout l = pipeline_layout(&setup);
    setup.proof.layout = &l;
    expect_ranks(1, break_a_pair, &setup.proof);
}

/* test orders that differ */
typedef struct two_ranks {
    const char *order[2];
    int apart;              /* 1: the second's first pair is none */
    const char *refused;    /* part of the message, or NULL */
} two_ranks;

static void pair_up_but_one(dls_schedule *s)
{
    pair_up(s);
    s->order[0].list[1].paired = 0;
}

static dls_status make_with_order(int rank, void *arg)
{
    const two_ranks *two = arg;
    pipeline_setup setup = {.schedule = "gpipe", .ranks = 1, .microbatches = 4,
                            .change = two->apart && rank ? pair_up_but_one : pair_up,
                            .proof = {.exact = 1}};
    dls_transformer_config config = layout_config(&setup.proof);
    const int first[] = {0, 5};
    dls_axes axes = {0};
    dls_comm *self;
    dls_ctx ctx;
    dls_schedule s;
    dls_pipeline *p;
    DLS_TRY(test_world(NULL, &axes.expert));
    DLS_TRY(dls_comm_split(axes.expert, rank, 0, &self));
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_F32));
    DLS_TRY(pipeline_schedule(&setup, &s));
    dls_pipeline_options o = {.model = &config, .schedule = &s, .partition = first,
                              .make = exact_model_make, .max_B = 1, .T = EXACT_T,
                              .axes = &axes, .pair_order = two->order[rank]};
    dls_status status = dls_pipeline_create(&p, &ctx, self, self, &o);
    EXPECT(status == (two->refused ? DLS_ERR_INPUT : DLS_OK), "%s: %s",
           dls_status_name(status), dls_status_message());
    EXPECT(!two->refused || strstr(dls_status_message(), two->refused), "%s",
           dls_status_message());
    dls_status_clear();
    return dls_comm_barrier(axes.expert);
}


Test(pairs, ranks_that_share_experts_have_one_order)
{
    const two_ranks cases[] = {
        {{"b f", "bf"}, 0, NULL},
        {{"b f", "f b"}, 0, "ranks 0 and 1 of an expert group run pairs in different"},
        {{"b f", "b f b"}, 0, "ranks 0 and 1 of an expert group run pairs in different"},
        {{"b f", "b f"}, 1, "ranks 0 and 1 of an expert group have different lists"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_ranks(2, make_with_order, (void *)&cases[i]);
}

/* test dualpipe executed */
#define expect_dual(name, p, n, ...)                                              \
    expect_pairs(p, .schedule = name, .ranks = p, .microbatches = n,              \
                 .proof = {__VA_ARGS__})

Test(pairs, dualpipe_on_two_and_four_ranks_is_one_device)
{
    expect_dual("dualpipe", 2, 4, .exact = 1, .rows = 4, .micro = 1, .steps = 1);
    expect_dual("dualpipe", 2, 6, .rows = 11, .micro = 2, .steps = 2, .clip = 1,
                .llama = 1, .untied = 1);
    expect_dual("dualpipe", 4, 10, .exact = 1, .rows = 20, .micro = 2, .steps = 1,
                .clip = 8, .layers = 6);
    expect_dual("dualpipe", 4, 8, .rows = 15, .micro = 2, .steps = 1, .layers = 5);
}

Test(pairs, dualpipe_on_six_ranks_is_one_device)
{
    expect_dual("dualpipe", 6, 12, .exact = 1, .rows = 12, .micro = 1, .steps = 1,
                .layers = 7);
    expect_dual("dualpipe", 6, 14, .rows = 13, .micro = 1, .steps = 1, .layers = 10);
}

Test(pairs, dualpipe_on_eight_ranks_with_twenty_micro_batches_is_one_device)
{
    expect_dual("dualpipe", 8, 20, .exact = 1, .rows = 20, .micro = 1, .steps = 1,
                .clip = 8, .layers = 14);
    expect_dual("dualpipe", 8, 20, .rows = 39, .micro = 2, .steps = 2, .clip = 1,
                .layers = 14);
}

Test(pairs, dualpipev_is_one_device)
{
    expect_dual("dualpipev", 1, 3, .exact = 1, .rows = 3, .micro = 1, .steps = 1);
    expect_dual("dualpipev", 2, 5, .exact = 1, .rows = 9, .micro = 2, .steps = 1,
                .clip = 8, .layers = 5);
    expect_dual("dualpipev", 3, 7, .rows = 7, .micro = 1, .steps = 1, .layers = 6);
    expect_dual("dualpipev", 4, 10, .exact = 1, .rows = 10, .micro = 1, .steps = 1,
                .layers = 14);
    expect_dual("dualpipev", 4, 10, .rows = 10, .micro = 1, .steps = 2, .clip = 1,
                .layers = 14);
}
