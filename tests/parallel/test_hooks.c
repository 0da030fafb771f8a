/* tests/parallel/test_hooks.c: from chapters/04-data-parallelism-hooks-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Communication hooks: exact ones exact, lossy ones owing exactly what is missing. */
#include "hook_rig.h"

#include "kernels/compress.h"
#include "tensor/bf16.h"

/* run a hook on ranks */
typedef struct hook_case {
    dls_ddp_options options;
    int integers, steps;
    double worst;     // of |delivered + owed - due|
} hook_case;

/* The law of conservation, after every step; and the bytes. */
static dls_status conserve(int rank, void *arg)
{
    hook_case *c = arg;
    static double owed[RIG_ELEMENTS];
    rig r = {.integers = c->integers};
    (void)rank;
    DLS_TRY(rig_open(&r, &c->options));
    for (int step = 0; step < c->steps; step++) {
        DLS_TRY(rig_step(&r, step));
        memset(owed, 0, sizeof owed);
        if (dls_ddp_hook(r.ddp)->error)
            DLS_TRY(rig_owed(&r, owed));
        for (int i = 0; i < RIG_ELEMENTS; i++)
            EXPECT(fabs(r.delivered[i] + owed[i] - r.sum[i]) <= c->worst,
                   "step %d, element %d: %.17g came, %.17g is owed, %.17g was due", step,
                   i, r.delivered[i], owed[i], r.sum[i]);
    }
    DLS_TRY(rig_check_bytes(&r));
    rig_close(&r);
    return DLS_OK;
}

static void expect_conserved(int n, hook_case c)
{
    c.options.bucket_bytes = 10000; // three buckets
    c.options.first_bucket_bytes = 100;
    expect_ranks(n, conserve, &c);
}

/* test exact hooks */
Test(hooks, sums_of_integers_are_exact_in_every_type)
{
    const int types[] = {DLS_F32, DLS_F64, DLS_BF16, DLS_COMM_F16};
    for (int n = 1; n <= 5; n++) {
        expect_conserved(n, (hook_case){.integers = 1, .steps = 1});
        for (int t = 0; t < 4; t++)
            expect_conserved(n, (hook_case){
                .options.hook = {.sums_in = 1, .reduce_type = types[t]},
                .integers = 1, .steps = 1});
    }
}

Test(hooks, names_of_types_are_sums_in_them)
{
    for (dls_hook_choice c = DLS_HOOK_BF16; c <= DLS_HOOK_FP16; c++)
        expect_conserved(3, (hook_case){.options.hook.choice = c, .integers = 1,
                                        .steps = 1});
}

Test(hooks, top_k_that_keeps_all_is_exact)
{
    for (int n = 2; n <= 5; n++)
        expect_conserved(n, (hook_case){
            .options.hook = {.choice = DLS_HOOK_TOP_K, .keep = 1}, .integers = 1,
            .steps = 2});
}

static dls_status bound(int rank, void *arg)
{
    double worst = 0;
    rig r = {.integers = 0};
    (void)arg;
    (void)rank;
    dls_ddp_options o = {.bucket_bytes = 1 << 20, .hook.choice = DLS_HOOK_BF16,
                         .first_bucket_bytes = 1 << 20};
    DLS_TRY(rig_open(&r, &o));
    DLS_TRY(rig_step(&r, 0));
    double gamma = r.world * 0x1p-8 / (1 - r.world * 0x1p-8);
    for (int i = 0; i < RIG_ELEMENTS; i++) {
        double size = 0;
        for (int k = 0; k < r.world; k++)
            size += fabs(rig_gradient(&r, k, 0, i));
        double error = fabs(r.grads[i] - r.sum[i]) / (gamma * size);
        worst = error > worst ? error : worst;
    }
    EXPECT(worst <= 1 && worst > 0.01, "the error is %g of its bound", worst);
    rig_close(&r);
    return DLS_OK;
}

Test(hooks, sums_in_bf16_are_as_good_as_derived)
{
    expect_ranks(4, bound, NULL);
}

/* test lossy hooks */
Test(hooks, top_k_owes_what_it_did_not_send)
{
    for (int n = 2; n <= 5; n++)
        expect_conserved(n, (hook_case){
            .options.hook = {.choice = DLS_HOOK_TOP_K, .keep = 0.03}, .steps = 4,
            .worst = 1e-12});
}

Test(hooks, powersgd_owes_what_it_did_not_send)
{
    for (int n = 2; n <= 5; n++)
        expect_conserved(n, (hook_case){
            .options.hook = {.choice = DLS_HOOK_POWERSGD, .rank = 3}, .steps = 4,
            .worst = 1e-11});
}

Test(hooks, lossy_hooks_warm_up_plainly)
{
    for (dls_hook_choice c = DLS_HOOK_POWERSGD; c <= DLS_HOOK_TOP_K; c++)
        expect_conserved(3, (hook_case){
            .options.hook = {.choice = c, .rank = 2, .keep = 0.1, .warmup = 2},
            .integers = 1, .steps = 2});
}

Test(hooks, top_k_comes_down_a_ramp)
{
    for (int n = 2; n <= 5; n++)
        expect_conserved(n, (hook_case){
            .options.hook = {.choice = DLS_HOOK_TOP_K, .keep = 0.03, .ramp = 4,
                             .warmup = 1},
            .steps = 7, .worst = 1e-12});
}

static dls_status count_ramp(int rank, void *arg)
{
    dls_ddp_options o = {.bucket_bytes = 1 << 20, .first_bucket_bytes = 1 << 20,
                         .hook = {.choice = DLS_HOOK_TOP_K, .keep = 0.0001, .ramp = 4}};
    const double shares[] = {0.1, 0.01, 0.001, 0.0001, 0.0001};
    rig r = {.integers = 0};
    (void)rank, (void)arg;
    DLS_TRY(rig_open(&r, &o));
    for (int step = 0; step < 5; step++) {
        uint64_t was = r.predicted, each = dls_top_k_count(RIG_ELEMENTS, shares[step]);
        DLS_TRY(rig_step(&r, step));
        EXPECT(r.predicted - was == 3 * 2 * each * 12, "step %d: %llu bytes", step,
               (unsigned long long)(r.predicted - was));
    }
    DLS_TRY(rig_check_bytes(&r));
    rig_close(&r);
    return DLS_OK;
}

Test(hooks, a_ramp_falls_by_the_same_factor)
{
    expect_ranks(3, count_ramp, NULL);
}

static dls_status check_average(rig *r, int step, double *values)
{
    dls_hook *h = dls_ddp_hook(r->ddp);
    int due = step == 3 || step == 5;   // after a warm-up of 2, every second one
    uint64_t before = dls_comm_stats(r->comm).wire_bytes, all[r->world], sum = 0;
    uint64_t n = (uint64_t)r->world;
    for (int i = 0; i < RIG_ELEMENTS; i++)
        values[i] = r->world * (double)(i % 100 + r->rank * (step + 1));
    DLS_TRY(dls_hook_updated(h, &r->ctx, values, NULL));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    uint64_t mine = dls_comm_stats(r->comm).wire_bytes - before;
    DLS_TRY(dls_comm_all_gather_host(r->comm, &mine, sizeof mine, all));
    for (int k = 0; k < r->world; k++)
        sum += all[k];
    EXPECT(sum == (due ? 2 * (n - 1) * RIG_ELEMENTS * sizeof(double) : 0),
           "step %d: %llu bytes", step, (unsigned long long)sum);
    for (int i = 0; i < RIG_ELEMENTS; i++) {
        double mean = r->world * ((double)(i % 100) + (r->world - 1) / 2.0 * (step + 1));
        double own = r->world * (double)(i % 100 + r->rank * (step + 1));
        EXPECT(values[i] == (due ? mean : own), "step %d, %d: %g", step, i, values[i]);
    }
    return DLS_OK;
}

static dls_status average_locally(int rank, void *arg)
{
    dls_ddp_options o = {.bucket_bytes = 1 << 20, .first_bucket_bytes = 1 << 20,
                         .hook = {.choice = DLS_HOOK_LOCAL_SGD, .period = 2, .warmup = 2,
                                  .local = 3}};
    rig r = {.integers = 1};
    double *values;
    (void)arg;
    DLS_TRY(rig_open(&r, &o));
    DLS_TRY(test_buffer(&values, RIG_ELEMENTS * sizeof *values));
    for (int step = 0; step < 6; step++) {
        uint64_t predicted = dls_hook_wire_bytes(dls_ddp_hook(r.ddp));
        uint64_t whole = 2 * (uint64_t)(r.world - 1) * RIG_ELEMENTS * sizeof(double);
        EXPECT(predicted == (step == 2 || step == 4 ? 0 : whole), "step %d: %llu", step,
               (unsigned long long)predicted);
        DLS_TRY(rig_step(&r, step));
        for (int i = 0; i < RIG_ELEMENTS; i++) {
            double want = 3 * rig_gradient(&r, rank, step, i);
            for (int k = 0; step < 2 && k < r.world; k++)
                want = (k ? want : 0) + rig_gradient(&r, k, step, i);
            EXPECT(r.grads[i] == want, "step %d: %g, not %g", step, r.grads[i], want);
        }
        DLS_TRY(check_average(&r, step, values));
    }
    cudaFree(values);
    rig_close(&r);
    return DLS_OK;
}

Test(hooks, local_sgd_averages_when_it_is_due)
{
    for (int n = 2; n <= 5; n++)
        expect_ranks(n, average_locally, NULL);
}

static dls_status average_masters(int rank, void *arg)
{
    dls_ddp_options o = {.bucket_bytes = 1 << 20, .first_bucket_bytes = 1 << 20,
                         .hook = {.choice = DLS_HOOK_LOCAL_SGD, .period = 1, .local = 1}};
    rig r = {.integers = 1};
    dls_ctx narrow;
    float *master;
    dls_bfloat16 *values;
    (void)arg;
    DLS_TRY(rig_open(&r, &o));
    DLS_TRY(dls_ctx_create(&narrow, 0, DLS_BF16));
    DLS_TRY(test_buffer(&master, RIG_ELEMENTS * sizeof *master));
    DLS_TRY(test_buffer(&values, RIG_ELEMENTS * sizeof *values));
    for (int i = 0; i < RIG_ELEMENTS; i++)
        master[i] = rank ? 2.0f * (float)(1000 + i) : 0;
    DLS_TRY(rig_step(&r, 0));
    DLS_TRY(dls_hook_updated(dls_ddp_hook(r.ddp), &narrow, values, master));
    DLS_TRY(dls_ctx_sync(&narrow));
    for (int i = 0; i < RIG_ELEMENTS; i++)
        EXPECT(master[i] == (float)(1000 + i)
               && dls_widen_bf16(values[i])
                   == dls_widen_bf16(dls_narrow_bf16((float)(1000 + i))),
               "element %d: %g, rounded to %g", i, master[i], dls_widen_bf16(values[i]));
    cudaFree(master);
    cudaFree(values);
    dls_ctx_destroy(&narrow);
    rig_close(&r);
    return DLS_OK;
}

Test(hooks, local_sgd_rounds_the_average)
{
    expect_ranks(2, average_masters, NULL);
}

static dls_status low_rank(int rank, void *arg)
{
    const int r2 = 2;
    rig r = {.integers = 0};
    (void)arg;
    dls_ddp_options o = {.bucket_bytes = 1 << 20, .first_bucket_bytes = 1 << 20,
                         .hook = {.choice = DLS_HOOK_POWERSGD, .rank = 3, .seed = 5}};
    DLS_TRY(rig_open(&r, &o));
    for (int i = 0; i < RIG_ELEMENTS; i++) {
        r.grads[i] = 0;
        for (int k = 0; k < r2; k++) // rank 2 in all: the factors are everybody's
            r.grads[i] += (rank + k + 1) * sin(i / 60 + 50 * k) * cos(i % 60 + 9 * k);
        r.sum[i] = r.grads[i] / 1;
    }
    memset(r.grads + 2400, 0, (RIG_ELEMENTS - 2400) * sizeof(double));
    for (int p = RIG_PARAMS - 1; p >= 0; p--)
        DLS_TRY(dls_ddp_grad_ready(r.ddp, p));
    DLS_TRY(dls_ddp_finish(r.ddp));
    DLS_TRY(dls_ctx_sync(&r.ctx));
    for (int i = 0; i < 2400; i++) {
        double due = 0;
        for (int m = 0; m < r.world; m++)
            for (int k = 0; k < r2; k++)
                due += (m + k + 1) * sin(i / 60 + 50 * k) * cos(i % 60 + 9 * k);
        EXPECT(fabs(r.grads[i] - due) < 1e-11, "element %d: %.17g, due %.17g", i,
               r.grads[i], due);
    }
    rig_close(&r);
    return DLS_OK;
}

Test(hooks, powersgd_sends_a_low_rank_whole)
{
    expect_ranks(3, low_rank, NULL);
}

static dls_status warm_start(int rank, void *arg)
{
    double first = 0, error = 0;
    rig r = {.integers = 0};
    (void)arg;
    dls_ddp_options o = {.bucket_bytes = 1 << 20, .first_bucket_bytes = 1 << 20,
                         .hook = {.choice = DLS_HOOK_POWERSGD, .rank = 1, .seed = 5}};
    DLS_TRY(rig_open(&r, &o));
    for (int step = 0; step < 6; step++) {
        for (int i = 0; i < RIG_ELEMENTS; i++) // one strong direction, and noise
            r.grads[i] = i < 2400 ? sin(i / 60) * cos(i % 60) +
                                    0.5 * rig_gradient(&r, rank, 0, i) : 0;
        memset(dls_ddp_hook(r.ddp)->error, 0, RIG_ELEMENTS * sizeof(double));
        for (int p = RIG_PARAMS - 1; p >= 0; p--)
            DLS_TRY(dls_ddp_grad_ready(r.ddp, p));
        DLS_TRY(dls_ddp_finish(r.ddp));
        DLS_TRY(dls_ctx_sync(&r.ctx));
        error = 0;
        for (int i = 0; i < 2400; i++)
            error += pow(r.grads[i] - r.world * sin(i / 60) * cos(i % 60), 2);
        first = step ? first : error;
    }
    EXPECT(error < 0.5 * first, "%g after six steps, %g after one", error, first);
    rig_close(&r);
    return DLS_OK;
}

Test(hooks, powersgd_starts_from_its_last_step)
{
    expect_ranks(2, warm_start, NULL);
}

/* test one bit adam */
/* What the owners of segments owe, added to `owed`. */
static dls_status add_owned(rig *r, double *owed)
{
    size_t chunks = (RIG_ELEMENTS + DLS_CHUNK - 1) / DLS_CHUNK;
    size_t each = (chunks + (size_t)r->world - 1) / (size_t)r->world * DLS_CHUNK;
    double *all = malloc((size_t)r->world * each * sizeof(double));
    DLS_TRY(dls_comm_all_gather_host(r->comm, dls_ddp_hook(r->ddp)->owned,
                                     each * sizeof(double), all));
    for (size_t i = 0; i < RIG_ELEMENTS; i++)
        owed[i] += all[i];
    free(all);
    return DLS_OK;
}

static dls_status one_bit(int rank, void *arg)
{
    static double owed[RIG_ELEMENTS];
    rig r = {.integers = 0};
    (void)arg;
    (void)rank;
    dls_ddp_options o = {.bucket_bytes = 1 << 20, .first_bucket_bytes = 1 << 20,
                         .hook = {.choice = DLS_HOOK_ONE_BIT_ADAM, .warmup = 1}};
    DLS_TRY(rig_open(&r, &o));
    for (int step = 0; step < 5; step++) {
        DLS_TRY(rig_step(&r, step));
        EXPECT(dls_hook_gives_momentum(dls_ddp_hook(r.ddp)) == (step > 0), "step %d",
               step);
        DLS_TRY(rig_owed(&r, owed));
        DLS_TRY(add_owned(&r, owed));
        for (int i = 0; i < RIG_ELEMENTS; i++)
            EXPECT(fabs(r.delivered[i] + owed[i] - r.sum[i]) < 1e-12,
                   "step %d, element %d: %.17g came, %.17g is owed, %.17g was due", step,
                   i, r.delivered[i], owed[i], r.sum[i]);
    }
    DLS_TRY(rig_check_bytes(&r));
    rig_close(&r);
    return DLS_OK;
}

Test(hooks, one_bit_adam_owes_what_it_did_not_send)
{
    for (int n = 2; n <= 5; n++)
        expect_ranks(n, one_bit, NULL);
}

Test(hooks, one_bit_adam_hands_over_the_momentum)
{
    rig r = {.integers = 0};
    dls_ddp_options o = {.bucket_bytes = 1 << 20, .first_bucket_bytes = 1 << 20,
                         .hook = {.choice = DLS_HOOK_ONE_BIT_ADAM, .warmup = 1,
                                  .beta1 = 0.75}};
    cr_assert_eq(rig_open(&r, &o), DLS_OK, "%s", dls_status_message());
    for (int i = 0; i < RIG_ELEMENTS; i++)
        r.momentum[i] = i;
    for (int step = 0; step < 3; step++) {
        cr_assert_eq(rig_step(&r, step), DLS_OK, "%s", dls_status_message());
        for (int i = 0; i < RIG_ELEMENTS; i++) {
            double g = rig_gradient(&r, 0, step, i), want = 0.75 * i + 0.25 * g;
            want = step ? want : g;
            cr_assert_float_eq(r.grads[i], want, 1e-12 * (1 + fabs(want)));
        }
    }
    rig_close(&r);
}

/* test refused options */
static dls_status try_options(int rank, void *arg)
{
    rig r = {.integers = 0};
    dls_ddp_options o = {.bucket_bytes = 1, .first_bucket_bytes = 1,
                         .hook = *(const dls_hook_options *)arg};
    (void)rank;
    return rig_open(&r, &o);
}

Test(hooks, options_out_of_range_are_refused)
{
    struct { dls_hook_options o; const char *says; } cases[] = {
        {{.choice = DLS_HOOKS}, "communication hook 7: there is none"},
        {{.choice = DLS_HOOK_POWERSGD, .rank = 0}, "hook powersgd: rank 0; expected"},
        {{.choice = DLS_HOOK_TOP_K, .keep = NAN}, "hook top_k: keeps nan after 0"},
        {{.choice = DLS_HOOK_ONE_BIT_ADAM}, "hook one_bit_adam: expected the optimizer"},
        {{.choice = DLS_HOOK_LOCAL_SGD}, "hook local_sgd: expected a period"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_neq(dls_run_ranks(1, try_options, &cases[i].o), DLS_OK);
        cr_assert(strstr(dls_status_message(), cases[i].says), "%s",
                  dls_status_message());
    }
}
