/* tests/parallel/test_ddp_hard.c: from chapters/04-data-parallelism-ddp-hard.md. Edit the chapter, or edit here and run "make untangle". */
/* DDP where ranks differ: unused parameters, no data, no_sync, buffers, order. */
#include "hook_rig.h"

#include "kernels/reduce.h"

/* report some parameters */
static const dls_ddp_options small = {.bucket_bytes = 10000, .first_bucket_bytes = 100};

/* Adds the gradients of (rank, step) of the parameters in the bit set, and reports. */
static dls_status add_and_report(rig *r, int step, unsigned params)
{
    for (int p = RIG_PARAMS - 1; p >= 0; p--) {
        const dls_param *x = &r->params[p];
        if (!(params >> p & 1))
            continue;
        for (size_t i = x->offset; i < x->offset + x->count; i++)
            r->grads[i] += rig_gradient(r, r->rank, step, (int)i);
        DLS_TRY(dls_ddp_grad_ready(r->ddp, p));
    }
    return DLS_OK;
}

/* Compares with the sum over ranks of what `params(rank)` says they have added. */
static dls_status expect_sum(rig *r, int step, unsigned (*params)(int rank))
{
    DLS_TRY(dls_ctx_sync(&r->ctx));
    for (int p = 0; p < RIG_PARAMS; p++)
        for (size_t i = 0; i < r->params[p].count; i++) {
            size_t at = r->params[p].offset + i;
            double due = 0;
            for (int k = 0; k < r->world; k++)
                if (params(k) >> p & 1)
                    due += rig_gradient(r, k, step, (int)at);
            EXPECT(r->grads[at] == due, "%s[%zu] is %g, due %g", r->params[p].name, i,
                   r->grads[at], due);
        }
    return DLS_OK;
}

/* test no sync */
static dls_status accumulate(int rank, void *arg)
{
    rig r = {.integers = 1};
    (void)arg;
    (void)rank;
    DLS_TRY(rig_open(&r, &small));
    uint64_t once = dls_hook_wire_bytes(dls_ddp_hook(r.ddp)) / (uint64_t)r.world;
    memset(r.grads, 0, RIG_ELEMENTS * sizeof(double));
    for (int micro = 0; micro < 4; micro++) {
        dls_ddp_no_sync(r.ddp, micro < 3);
        DLS_TRY(add_and_report(&r, micro, 15));
        EXPECT(dls_comm_stats(r.comm).wire_bytes == 0 || micro == 3, "sent too early");
    }
    DLS_TRY(dls_ddp_finish(r.ddp));
    DLS_TRY(dls_ctx_sync(&r.ctx));
    for (int i = 0; i < RIG_ELEMENTS; i++) {
        double due = 0;
        for (int k = 0; k < 4 * r.world; k++)
            due += rig_gradient(&r, k / 4, k % 4, i);
        EXPECT(r.grads[i] == due, "element %d is %g, due %g", i, r.grads[i], due);
    }
    uint64_t sent = dls_comm_stats(r.comm).wire_bytes; // parts of a ring: nearly equal
    EXPECT(sent > once * 9 / 10 && sent < once * 11 / 10, "%llu bytes instead of %llu",
           (unsigned long long)sent, (unsigned long long)once);
    rig_close(&r);
    return DLS_OK;
}

Test(ddp, accumulation_exchanges_once)
{
    expect_ranks(3, accumulate, NULL);
}

/* test unused parameters */
static unsigned some(int rank) { return rank == 0 ? 15 : 13; }   // bias: rank 0 only
static unsigned other(int rank) { return rank == 1 ? 2 : 8; }    // disjoint
static unsigned nobody_thin(int rank) { (void)rank; return 11; } // thin: nobody
static unsigned nothing(int rank) { (void)rank; return 0; }

static dls_status unused(int rank, void *arg)
{
    unsigned (*const cases[])(int) = {some, other, nobody_thin, nothing, some};
    rig r = {.integers = 1};
    dls_ddp_options o = small;
    (void)arg;
    o.find_unused = 1;
    DLS_TRY(rig_open(&r, &o));
    for (int c = 0; c < 5; c++) {
        memset(r.grads, 0, RIG_ELEMENTS * sizeof(double));
        DLS_TRY(add_and_report(&r, c, cases[c](rank)));
        DLS_TRY(dls_ddp_finish(r.ddp));
        DLS_TRY(expect_sum(&r, c, cases[c]));
        unsigned used = 0, any = 0;
        for (int k = 0; k < r.world; k++)
            used |= cases[c](k);
        for (int p = 0; p < RIG_PARAMS; p++)
            any |= (unsigned)dls_ddp_used(r.ddp, p) << p;
        EXPECT(any == used, "case %d: used are %x, not %x", c, any, used);
    }
    rig_close(&r);
    return DLS_OK;
}

Test(ddp, unused_parameters_count_as_zero)
{
    for (int n = 1; n <= 4; n++)
        expect_ranks(n, unused, NULL);
}

static unsigned first_pass(int rank) { return rank == 1 ? 15 : 13; }

static dls_status used_before_the_last_pass(int rank, void *arg)
{
    rig r = {.integers = 1};
    dls_ddp_options o = small;
    (void)arg;
    o.find_unused = 1;
    DLS_TRY(rig_open(&r, &o));
    memset(r.grads, 0, RIG_ELEMENTS * sizeof(double));
    dls_ddp_no_sync(r.ddp, 1);
    DLS_TRY(add_and_report(&r, 0, first_pass(rank)));
    dls_ddp_no_sync(r.ddp, 0); // the last pass uses nothing but the last parameter
    DLS_TRY(dls_ddp_grad_ready(r.ddp, 3));
    DLS_TRY(dls_ddp_finish(r.ddp));
    DLS_TRY(expect_sum(&r, 0, first_pass));
    EXPECT(dls_ddp_used(r.ddp, 1), "rank 1 has used the bias");
    rig_close(&r);
    return DLS_OK;
}

Test(ddp, a_gradient_from_an_earlier_micro_batch_is_not_unused)
{
    expect_ranks(3, used_before_the_last_pass, NULL);
}

/* test frozen parameters */
static dls_status freeze_some(int rank, void *arg)
{
    rig r = {.integers = 1, .frozen = *(const unsigned *)arg};
    uint64_t elements = 0;
    DLS_TRY(rig_open(&r, &small));
    memset(r.grads, 0, RIG_ELEMENTS * sizeof(double));
    for (int p = 0; p < RIG_PARAMS; p++)
        elements += r.params[p].frozen ? 0 : r.params[p].count;
    EXPECT(dls_hook_wire_bytes(dls_ddp_hook(r.ddp)) == 2 * (uint64_t)(r.world - 1)
           * elements * sizeof(double), "frozen %x: other bytes", r.frozen);
    DLS_TRY(add_and_report(&r, 0, 15));
    DLS_TRY(dls_ddp_finish(r.ddp));
    DLS_TRY(dls_ctx_sync(&r.ctx));
    for (int p = 0; p < RIG_PARAMS; p++)
        for (size_t i = 0; i < r.params[p].count; i++) {
            int at = (int)(r.params[p].offset + i);
            double due = rig_gradient(&r, rank, 0, at);
            for (int k = 0; k < r.world && !r.params[p].frozen; k++)
                due += k == rank ? 0 : rig_gradient(&r, k, 0, at);
            EXPECT(r.grads[at] == due, "frozen %x: %s[%zu] is %g, due %g", r.frozen,
                   r.params[p].name, i, r.grads[at], due);
        }
    rig_close(&r);
    return DLS_OK;
}

static dls_status freeze_differently(int rank, void *arg)
{
    rig r = {.frozen = rank == 1 ? 1 : 2};
    (void)arg;
    return rig_open(&r, &small);
}

Test(ddp, frozen_parameters_are_left_out)
{
    unsigned all = 15;
    for (unsigned frozen = 1; frozen < 15; frozen++)
        expect_ranks(3, freeze_some, &frozen);
    cr_assert_eq(dls_run_ranks(1, freeze_some, &all), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "all 4 parameters are frozen"));
    cr_assert_eq(dls_run_ranks(2, freeze_differently, NULL), DLS_ERR_COMM);
}

/* test joining */
static int examples_of(int rank, int step)
{
    const int batches[] = {5, 2, 0, 3};
    return step >= batches[rank] ? 0 : rank == 0 && step == 4 ? 1 : 4;
}

static dls_status expect_mean(rig *r, int step)
{
    int total = 0;
    for (int k = 0; k < r->world; k++)
        total += examples_of(k, step);
    EXPECT(dls_ddp_total(r->ddp) == total, "step %d has %lld examples, not %d", step,
           (long long)dls_ddp_total(r->ddp), total);
    DLS_TRY(dls_ctx_sync(&r->ctx));
    for (int i = 0; i < RIG_ELEMENTS && total; i++) {
        double due = 0;
        for (int k = 0; k < r->world; k++)
            due += examples_of(k, step) * rig_gradient(r, k, step, i);
        due *= 1.0 / total;
        EXPECT(r->grads[i] == due, "step %d, element %d: %g, due %g", step, i,
               r->grads[i], due);
    }
    return DLS_OK;
}

static dls_status join_steps(int rank, void *arg)
{
    int step, more = 1;
    rig r = {.integers = 1};
    dls_ddp_options o = small;
    (void)arg;
    o.count_examples = 1;
    DLS_TRY(rig_open(&r, &o));
    for (step = 0; examples_of(rank, step); step++) {
        for (int i = 0; i < RIG_ELEMENTS; i++)
            r.grads[i] = examples_of(rank, step) * rig_gradient(&r, rank, step, i);
        for (int p = RIG_PARAMS - 1; p >= 0; p--)
            DLS_TRY(dls_ddp_grad_ready(r.ddp, p));
        dls_ddp_examples(r.ddp, examples_of(rank, step));
        DLS_TRY(dls_ddp_finish(r.ddp));
        DLS_TRY(expect_mean(&r, step));
    }
    for (; more; step++) {
        DLS_TRY(dls_ddp_join(r.ddp, &more));
        DLS_TRY(expect_mean(&r, step));
    }
    EXPECT(step == 6, "all were done after %d rounds", step);
    rig_close(&r);
    return DLS_OK;
}

Test(ddp, ranks_without_data_join)
{
    for (int n = 1; n <= 4; n++)
        expect_ranks(n, join_steps, NULL);
}

Test(ddp, joining_without_counts_is_refused)
{
    rig r = {.integers = 1};
    int more;
    cr_assert_eq(rig_open(&r, &small), DLS_OK, "%s", dls_status_message());
    cr_assert_eq(dls_ddp_join(r.ddp, &more), DLS_ERR_STATE);
    cr_assert(strstr(dls_status_message(), "joining needs count_examples"));
    rig_close(&r);
}

/* test buffers */
static dls_status buffers(int rank, void *arg)
{
    rig r = {.integers = 1};
    double *means;
    (void)arg;
    DLS_TRY(rig_open(&r, &small));
    DLS_TRY(test_buffer(&means, 5 * sizeof *means));
    DLS_TRY(dls_ddp_add_buffer(r.ddp, means, 5, DLS_F64));
    for (int held = 0; held <= 1; held++) {
        for (int i = 0; i < 5; i++)
            means[i] = 10 * rank + i;
        dls_ddp_no_sync(r.ddp, held);
        DLS_TRY(dls_ddp_begin(r.ddp));
        DLS_TRY(dls_ctx_sync(&r.ctx));
        for (int i = 0; i < 5; i++)
            EXPECT(means[i] == (held ? 10 * rank : 0) + i, "means[%d] is %g", i,
                   means[i]);
    }
    cudaFree(means);
    rig_close(&r);
    return DLS_OK;
}

Test(ddp, buffers_are_those_of_rank_0)
{
    expect_ranks(3, buffers, NULL);
}

/* test the order of buckets */
static int wait_run(void *arg, double start, double *finish)
{
    (void)arg;
    *finish = start + 1e-3;
    return 0;
}

static dls_status compute_and_report(rig *r, int param)
{
    dls_gpu_op op = {.name = "backward", .kind = DLS_GPU_COMPUTE, .run = wait_run};
    DLS_CUDA(dls_gpu_enqueue(r->ctx.stream, &op, NULL));
    return dls_ddp_grad_ready(r->ddp, param);
}

static dls_status reorder(int rank, void *arg)
{
    const int orders[2][RIG_PARAMS] = {{0, 1, 2, 3}, {0, 2, 1, 3}};
    dls_ddp_times t[2];
    rig r = {.integers = 1};
    dls_ddp_options o = {.bucket_bytes = 1, .first_bucket_bytes = 1, .reorder = 1};
    (void)arg;
    DLS_TRY(rig_open(&r, &o));
    for (int step = 0; step < 2; step++) {
        for (int i = 0; i < RIG_PARAMS; i++)
            DLS_TRY(compute_and_report(&r, orders[rank == 1][i]));
        DLS_TRY(dls_ddp_finish(r.ddp));
        DLS_TRY(dls_ctx_sync(&r.ctx));
        DLS_TRY(dls_ddp_timing(r.ddp, &t[step]));
    }
    EXPECT(t[0].exposed > 0.95 * t[0].busy, "%g of %g exposed", t[0].exposed, t[0].busy);
    EXPECT(t[1].exposed < 0.5 * t[0].exposed, "%g, then %g exposed", t[0].exposed,
           t[1].exposed);
    rig_close(&r);
    return DLS_OK;
}

Test(ddp, buckets_follow_the_order_of_rank_0)
{
    expect_ranks(3, reorder, NULL);
}
