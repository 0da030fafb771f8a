/* tests/layers/test_dispatch_hard.c: from chapters/08-dispatch-proof.md. Edit the chapter, or edit here and run "make untangle". */
/* What a dispatch sends, how long it is waited for, and what it refuses. */
#include "dispatch_rig.h"

#include "kernels/fp8.h"

/* count the bytes of a dispatch */
typedef struct travel { long over_expert, over_tensor; } travel;

static long rows_between(const dispatch_case *c, int from, int to_ep)
{
    int counts[c->experts], local = c->experts / c->ep, rows = 0;
    dispatch_counts(c, from, counts);
    for (int j = 0; j < local; j++)
        rows += counts[to_ep * local + j];
    return rows;
}

// Rows that come to rank (e, t) over the expert group, its own among them.
static long section_rows(const dispatch_case *c, int e, int t)
{
    long rows = 0;
    for (int from = 0; from < c->ep; from++)
        rows += rows_between(c, from * c->etp + t, e);
    return rows;
}

static travel there(const dispatch_case *c, int e, int t, long bytes)
{
    travel sum = {0, section_rows(c, e, t) * (c->etp - 1) * bytes};
    for (int to = 0; to < c->ep; to++)
        sum.over_expert += to == e ? 0 : rows_between(c, e * c->etp + t, to) * bytes;
    return sum;
}

static travel back(const dispatch_case *c, int e, int t, long bytes, long row)
{
    long mine = rows_between(c, e * c->etp + t, e);
    travel sum = {(section_rows(c, e, t) - mine) * bytes, 0};
    for (int other = 0; other < c->etp; other++)
        sum.over_tensor += other == t ? 0 : section_rows(c, e, other) * row;
    return sum;
}

static long sent_over(const dls_comm *comm)
{
    return comm ? (long)dls_comm_stats(comm).wire_bytes : 0;
}

static dls_status expect_sent(dispatch_groups *g, travel *before, travel want)
{
    travel now = {sent_over(g->expert), sent_over(g->expert_tensor)};
    EXPECT(now.over_expert - before->over_expert == want.over_expert,
           "%ld bytes over the expert group; the formula says %ld",
           now.over_expert - before->over_expert, want.over_expert);
    EXPECT(now.over_tensor - before->over_tensor == want.over_tensor,
           "%ld bytes between sharers; the formula says %ld",
           now.over_tensor - before->over_tensor, want.over_tensor);
    *before = now;
    return DLS_OK;
}

static dls_status count_case(dispatch_groups *g, const dispatch_case *c)
{
    int e = g->axes.sharding.expert_rank, t = g->axes.sharding.expert_tensor_rank;
    long row = c->columns * (long)dls_dtype_size(c->dtype), half = 2L * c->columns;
    long go = c->wire == DLS_ROWS_SAME   ? row
              : c->wire == DLS_ROWS_BF16 ? half
                                         : (long)dls_fp8_row_bytes(c->columns);
    travel before = {sent_over(g->expert), sent_over(g->expert_tensor)};
    dispatch_rig r;
    DLS_TRY(dispatch_begin(&r, c, g));
    DLS_TRY(dispatch_go(&r));
    DLS_TRY(expect_sent(g, &before, there(c, e, t, go)));
    DLS_TRY(dispatch_return(&r));
    DLS_TRY(expect_sent(g, &before,
                        back(c, e, t, c->wire == DLS_ROWS_SAME ? row : half, row)));
    dispatch_end(&r);
    return DLS_OK;
}

static dls_status count_bytes(int rank, void *arg)
{
    dispatch_case c = *(dispatch_case *)arg;
    dispatch_groups g;
    dls_comm *world;
    (void)rank;
    DLS_TRY(test_world(NULL, &world));
    DLS_TRY(dispatch_open(&g, c.ep, c.etp, world));
    for (int i = 0; i < 3 * DISPATCH_PATTERNS; i++) {
        c.pattern = (dispatch_pattern)(i / 3);
        c.wire = (dls_row_type)(i % 3);
        DLS_TRY(count_case(&g, &c));
    }
    dispatch_close(&g);
    dls_comm_destroy(world);
    return DLS_OK;
}

Test(dispatch, sends_the_bytes_of_the_formula)
{
    dispatch_case layouts[] = {
        {.ep = 3, .etp = 1, .experts = 6, .chosen = 2, .tokens = 7, .columns = 133},
        {.ep = 2, .etp = 2, .experts = 4, .chosen = 3, .tokens = 6, .columns = 133}};
    cr_assert_eq(dls_fp8_row_bytes(133), 144);
    for (int i = 0; i < 2; i++)
        expect_ranks(layouts[i].ep * layouts[i].etp, count_bytes, &layouts[i]);
}

/* wait for ones own rows */
static dls_status mark(dispatch_rig *r, cudaEvent_t *event)
{
    DLS_CUDA(cudaEventCreate(event));
    DLS_CUDA(cudaEventRecord(*event, r->ctx.stream));
    return DLS_OK;
}

static dls_status interleave(dispatch_rig *a, dispatch_rig *b, float *ms)
{
    dispatch_rig *both[] = {a, b};
    cudaEvent_t event[2];
    for (int i = 0; i < 2; i++) {
        dispatch_counts(a->c, a->rank, both[i]->counts);
        DLS_TRY(dls_dispatch_count(&both[i]->pass, &both[i]->d, both[i]->counts, NULL));
    }
    for (int i = 0; i < 2; i++)
        DLS_TRY(dls_dispatch_rows(&both[i]->pass, &both[i]->d, both[i]->arrived,
                                  both[i]->sent));
    for (int i = 0; i < 2; i++) {
        DLS_TRY(dls_dispatch_wait(&both[i]->pass));
        DLS_TRY(mark(both[i], &event[i]));
    }
    DLS_TRY(dls_ctx_sync(&a->ctx));
    DLS_TRY(dls_ctx_sync(&b->ctx));
    DLS_CUDA(cudaEventElapsedTime(ms, event[0], event[1]));
    for (int i = 0; i < 2; i++)
        cudaEventDestroy(event[i]);
    return DLS_OK;
}

static dls_status run_interleaved(int rank, void *arg)
{
    dispatch_case c = {2, 1, 2, 1, 100, 2500, ALL_TO_ONE, DLS_F32, DLS_ROWS_SAME,
                       DLS_DISPATCH_FLAT};
    dispatch_groups g;
    dispatch_rig a, b;
    dls_comm *world;
    float ms;
    DLS_TRY(test_world(arg, &world));
    DLS_TRY(dispatch_open(&g, 2, 1, world));
    DLS_TRY(dispatch_begin(&a, &c, &g));
    DLS_TRY(dispatch_begin(&b, &c, &g));
    DLS_TRY(interleave(&a, &b, &ms));
    EXPECT(rank != 0 || fabs(ms - 0.010) < 1e-6,
           "B goes on %g ms after A; its rows take 0.010", ms);
    dispatch_end(&a);
    dispatch_end(&b);
    dispatch_close(&g);
    dls_comm_destroy(world);
    return DLS_OK;
}

Test(dispatch, waits_for_the_rows_of_its_own_pass)
{
    expect_ranks(2, run_interleaved, (void *)test_cluster(1, 2));
}

/* refuse counts */
static dls_status refuse(dispatch_rig *r, dls_comm *world, const char *words)
{
    dls_status s = dls_dispatch_count(&r->pass, &r->d, r->counts, NULL);
    EXPECT(s == DLS_ERR_STATE && strstr(dls_status_message(), words), "expected '%s': %s",
           words, dls_status_message());
    return dls_comm_barrier(world);
}

static dls_status run_refusals(int rank, void *arg)
{
    dispatch_case c = {3, 1, 6, 1, 7, 4, AT_RANDOM, DLS_F32, DLS_ROWS_SAME,
                       DLS_DISPATCH_FLAT};
    dispatch_groups g;
    dispatch_rig r;
    dls_comm *world;
    (void)arg;
    DLS_TRY(test_world(NULL, &world));
    DLS_TRY(dispatch_open(&g, 3, 1, world));
    DLS_TRY(dispatch_begin(&r, &c, &g));
    dispatch_counts(&c, rank, r.counts);
    r.counts[2] = rank == 1 ? -3 : r.counts[2];
    DLS_TRY(refuse(&r, world, "source 1 has -3 rows for expert 2; expected 0 to 7"));
    for (int e = 0; e < 6; e++)
        r.counts[e] = rank == 2 ? 4 : 0;
    DLS_TRY(refuse(&r, world, "source 2 has 24 rows; expected at most 7"));
    dispatch_end(&r);
    dispatch_close(&g);
    dls_comm_destroy(world);
    return DLS_OK;
}

Test(dispatch, tells_everybody_of_counts_that_can_not_be)
{
    expect_ranks(3, run_refusals, NULL);
}

Test(dispatch, refuses_experts_that_can_not_be_shared)
{
    dls_sharding by = {.expert = 4};
    dls_moe moe = {.experts = 6, .chosen = 2};
    cr_assert_eq(dls_dispatch_check(&by, &moe), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(),
                     "experts: 4 ranks (ep) can not share 6 experts equally; the nearest "
                     "numbers of experts that work are 4 and 8");
    moe.experts = 3;
    cr_assert_eq(dls_dispatch_check(&by, &moe), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "number of experts that works is 4"));
    moe.experts = 12;
    cr_assert_eq(dls_dispatch_check(&by, &moe), DLS_OK);
}

Test(dispatch, refuses_to_go_without_groups)
{
    dls_dispatch d = {.sharding = {.expert = 2}, .moe = {.experts = 2, .chosen = 1}};
    dls_pass p = {0};
    cr_assert_eq(dls_dispatch_count(&p, &d, NULL, NULL), DLS_ERR_STATE);
    cr_assert(strstr(dls_status_message(), "over 2 x 1 ranks, and no communicator"));
}

/* believe known counts */
static dls_status run_known(int rank, void *arg)
{
    dispatch_case c = {2, 2, 4, 2, 7, 4, AT_RANDOM, DLS_F32, DLS_ROWS_SAME,
                       DLS_DISPATCH_FLAT};
    dls_gpu_options timed = {.kernels = DLS_KERNELS_TIMED};
    dispatch_groups g;
    dispatch_rig r;
    dls_comm *world;
    int known[4], want[4];
    (void)arg;
    DLS_TRY(dls_gpu_init(&timed));
    DLS_TRY(dls_comm_create(&world, NULL));
    DLS_TRY(dispatch_open(&g, 2, 2, world));
    DLS_TRY(dispatch_begin(&r, &c, &g));
    dispatch_counts(&c, rank, known);
    memset(r.counts, 0x7f, sizeof known);
    DLS_TRY(dls_dispatch_count(&r.pass, &r.d, r.counts, known));
    for (int source = 0; source < 4; source++) {
        dispatch_counts(&c, source % 2 * 2 + source / 2, want);
        EXPECT(!memcmp(dls_dispatch_routes(&r.pass, &r.d)->counts + 4 * source, want,
                       sizeof want), "the counts of source %d are others", source);
    }
    dispatch_end(&r);
    dispatch_close(&g);
    dls_comm_destroy(world);
    return DLS_OK;
}

Test(dispatch, believes_counts_that_are_known)
{
    expect_ranks(4, run_known, NULL);
}

/* plan for the worst */
static void expect_room(dls_moe m, dls_sharding s, int sent, int room)
{
    dls_plan plan = {.dtype = DLS_F32};
    dls_dispatch d;
    dls_dispatch_plan(&d, &plan, &s, &m, 16, 8, 4);
    cr_expect_eq(d.sent_room, sent, "%d rows can leave, expected %d", d.sent_room, sent);
    cr_expect_eq(d.room, room, "%d rows can arrive, expected %d", d.room, room);
}

Test(dispatch, plans_for_the_rows_that_can_come)
{
    dls_moe m = {.experts = 4, .chosen = 2};
    dls_sharding two = {.expert = 2}, shared = {.expert = 2, .expert_tensor = 2};
    expect_room(m, two, 32, 64);        // all of both ranks to the same two experts
    expect_room(m, shared, 32, 128);    // of all four ranks
    m.chosen = 3;
    expect_room(m, two, 48, 64);        // a rank has only two of the three
    m.chosen = 2;
    m.capacity = 1.25;                  // 5 of a sequence, 10 of the pass
    expect_room(m, two, 32, 40);
    m.padded = 1;
    expect_room(m, two, 40, 40);
    m = (dls_moe){.experts = 4, .chosen = 2, .balanced = 1};
    expect_room(m, two, 32, 32);
}

/* spoil a dispatch */
static dls_routes *routes_of(dispatch_rig *r)
{
    return (dls_routes *)dls_dispatch_routes(&r->pass, &r->d);
}

static void trade_counts(dispatch_rig *r)
{
    dls_routes *to = routes_of(r);
    for (int s = 0; s < to->segments; s++)
        to->segment[s].expert = to->experts - 1 - to->segment[s].expert;
}

static void trade_segments(dispatch_rig *r)
{
    dls_routes *to = routes_of(r);
    for (int s = 0; s + 1 < to->segments; s++)
        if (to->segment[s].expert > to->segment[s + 1].expert) {
            dls_segment first = to->segment[s];
            to->segment[s] = to->segment[s + 1];
            to->segment[s + 1] = first;
        }
}

static void begin_at_zero(dispatch_rig *r) { routes_of(r)->own_first = 0; }

static void shift_by_a_row(dispatch_rig *r)
{
    dls_routes *to = routes_of(r);
    for (int s = 0; s < to->segments; s++)
        to->segment[s].begin += to->segment[s].begin + to->segment[s].count < r->d.room;
}

static dls_comm *kept_apart;

static void forget_the_shares(dispatch_rig *r)
{
    kept_apart = r->axes->expert_tensor;
    r->axes->expert_tensor = NULL;
}

// 1: the proof accepts what this fault makes of a case, on this rank.
static dls_status accepts(dispatch_groups *g, const dispatch_case *c,
                          void (*spoil)(dispatch_rig *), int *passes)
{
    dispatch_rig r;
    DLS_TRY(dispatch_begin(&r, c, g));
    r.spoil = spoil == forget_the_shares ? NULL : spoil;
    DLS_TRY(dispatch_go(&r));
    *passes = dispatch_expect_arrived(&r) == DLS_OK;
    if (spoil == forget_the_shares)
        spoil(&r);
    DLS_TRY(dispatch_return(&r));
    *passes &= dispatch_expect_back(&r) == DLS_OK;
    g->axes.expert_tensor = g->expert_tensor;
    dispatch_end(&r);
    return DLS_OK;
}

static dls_status run_mutants(int rank, void *arg)
{
    static void (*const faults[])(dispatch_rig *) = {
        NULL, trade_counts, trade_segments, begin_at_zero, shift_by_a_row,
        forget_the_shares};
    dispatch_case c = {2, 2, 4, 2, 7, 5, AT_RANDOM, DLS_F32, DLS_ROWS_SAME,
                       DLS_DISPATCH_FLAT};
    dispatch_groups g;
    dls_comm *world;
    (void)rank;
    (void)arg;
    DLS_TRY(test_world(NULL, &world));
    DLS_TRY(dispatch_open(&g, 2, 2, world));
    for (int f = 0; f < 6; f++) {
        int passes, all[4];
        DLS_TRY(accepts(&g, &c, faults[f], &passes));
        DLS_TRY(dls_comm_all_gather_host(world, &passes, sizeof passes, all));
        passes = all[0] && all[1] && all[2] && all[3];
        EXPECT(passes == (f == 0), "fault %d: the proof %s it", f,
               passes ? "accepts" : "rejects");
    }
    dispatch_close(&g);
    dls_comm_destroy(world);
    return DLS_OK;
}

Test(dispatch, proof_rejects_rows_that_went_wrong)
{
    expect_ranks(4, run_mutants, NULL);
}
