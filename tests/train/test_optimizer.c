/* tests/train/test_optimizer.c: from chapters/09-transformer-training-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* AdamW, clipping and the schedule against values computed elsewhere. */
#include <criterion/criterion.h>
#include <math.h>

#include "tensor/bf16.h"
#include "train/optimizer.h"

/* name the reference values */
static const double start[4] = {0.5, -1.25, 2, 0.75};
static const double gradients[3][4] = {
    {0.3, -0.7, 1.1, 0}, {-0.2, 0.4, 2.5, 0.01}, {5, -3, 0.25, -0.02}};
static const double rates[3] = {0.01, 0.02, 0.015};
static const double norms[3] = {
    1.3379088160259651, 2.5397047072445251, 5.8363430330987232};
static const double unclipped[4] = {
    0.4754444418299853, -1.220470819121285, 1.9592374553696068, 0.73992276311290806};
static const double clipped[4] = {
    0.46980701105613948, -1.2156242102855432, 1.957988641058398, 0.73508842130719099};

/* hold an optimizer under test */
typedef struct fixture { dls_ctx ctx; dls_params params; dls_optimizer *o; } fixture;

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

static void begin(fixture *f, double clip)
{
    dls_adamw_options options = {0.9, 0.95, 1e-8, 0.1, clip};
    int index;
    *f = (fixture){0};
    OK(dls_ctx_create(&f->ctx, 0, DLS_F64));
    OK(dls_params_add(&f->params, &(dls_param){.name = "w", .ndim = 1, .shape = {2},
                                               .decay = 1}, &index));
    OK(dls_params_add(&f->params, &(dls_param){.name = "b", .ndim = 1, .shape = {2}},
                      &index));
    OK(dls_params_allocate(&f->params, &f->ctx));
    OK(dls_optimizer_create(&f->o, &f->ctx, &f->params, &options));
    OK(dls_ctx_sync(&f->ctx)); // the zeros are in, before the default stream writes
    cudaMemcpy(f->params.values, start, sizeof start, cudaMemcpyHostToDevice);
}

static double step(fixture *f, int t, const double *gradient, double *values)
{
    double norm;
    cudaMemcpy(f->params.grads, gradient, 4 * sizeof *gradient, cudaMemcpyHostToDevice);
    OK(dls_optimizer_step(f->o, rates[t], t + 1));
    OK(dls_ctx_sync(&f->ctx));
    cudaMemcpy(&norm, f->o->scalars + 1, sizeof norm, cudaMemcpyDeviceToHost);
    cudaMemcpy(values, f->params.values, 4 * sizeof *values, cudaMemcpyDeviceToHost);
    return norm;
}

static void end(fixture *f)
{
    dls_optimizer_free(f->o);
    dls_params_free(&f->params);
    dls_ctx_destroy(&f->ctx);
}

/* test the optimizer */
static void compare(double clip, const double *want)
{
    double values[4];
    fixture f;
    begin(&f, clip);
    for (int t = 0; t < 3; t++) {
        double norm = step(&f, t, gradients[t], values);
        cr_assert(fabs(norm - norms[t]) < 1e-14, "norm %.17g", norm);
    }
    for (int i = 0; i < 4; i++)
        cr_assert(fabs(values[i] - want[i]) < 1e-14, "%d: %.17g, expected %.17g", i,
                  values[i], want[i]);
    end(&f);
}

Test(train, adamw_gives_the_stored_values)
{
    compare(0, unclipped);
    compare(1, clipped);
    compare(100, unclipped);
}

Test(train, a_gradient_that_is_not_finite_changes_nothing)
{
    double values[4], bad[4] = {0.1, INFINITY, 0.2, NAN};
    fixture f;
    begin(&f, 0);
    cr_assert(!isfinite(step(&f, 0, bad, values)));
    cr_assert_arr_eq(values, start, sizeof start);
    end(&f);
}

Test(train, schedule_warms_up_and_ends_at_the_minimum)
{
    dls_lr_schedule s = {1.0, 0.1, 10, 110};
    cr_assert_eq(dls_lr_schedule_at(&s, 1), 0.1);
    cr_assert_eq(dls_lr_schedule_at(&s, 10), 1.0);
    cr_assert(fabs(dls_lr_schedule_at(&s, 60) - 0.55) < 1e-15);
    cr_assert_eq(dls_lr_schedule_at(&s, 110), 0.1);
    cr_assert_eq(dls_lr_schedule_at(&s, 1000), 0.1);
    for (int t = 11; t <= 110; t++)
        cr_assert_lt(dls_lr_schedule_at(&s, t), dls_lr_schedule_at(&s, t - 1));
    s.warmup = 0;
    cr_assert(dls_lr_schedule_at(&s, 1) < 1 && dls_lr_schedule_at(&s, 1) > 0.999);
}

Test(train, a_frozen_parameter_stays_and_does_not_count)
{
    for (int frozen = 0; frozen < 2; frozen++) {
        double values[4];
        fixture f;
        begin(&f, 1);
        f.params.items[frozen].frozen = 1;
        const double *g = gradients[0] + 2 * (1 - frozen), *was = start + 2 * frozen;
        double norm = step(&f, 0, gradients[0], values);
        cr_assert(fabs(norm - hypot(g[0], g[1])) < 1e-15, "norm %.17g", norm);
        cr_assert(values[2 * frozen] == was[0] && values[2 * frozen + 1] == was[1]);
        cr_assert_neq(values[2 - 2 * frozen], start[2 - 2 * frozen]);
        end(&f);
    }
}

/* test the master */
static void walk(int with_master, double values[5])
{
    dls_adamw_options options = {0.9, 0.95, 1e-12, 0, 0};
    float one = 1, gradient = 1;
    dls_bfloat16 value;
    fixture f = {0};
    int index;
    OK(dls_ctx_create(&f.ctx, 0, DLS_BF16));
    OK(dls_params_add(&f.params, &(dls_param){.name = "w", .ndim = 1, .shape = {1}},
                      &index));
    OK(dls_params_allocate(&f.params, &f.ctx));
    OK(dls_optimizer_create(&f.o, &f.ctx, &f.params, &options));
    OK(dls_optimizer_put(f.o, &one));
    OK(dls_ctx_sync(&f.ctx)); // the zeros are in, before the default stream writes
    void *master = f.o->master;
    f.o->master = with_master ? master : NULL;
    for (int t = 0; t <= 4; t++) {
        cudaMemcpy(&value, f.params.values, sizeof value, cudaMemcpyDeviceToHost);
        values[t] = dls_widen_bf16(value);
        cudaMemcpy(f.params.grads, &gradient, sizeof gradient, cudaMemcpyHostToDevice);
        OK(dls_optimizer_step(f.o, 0.001, t + 1));
        OK(dls_ctx_sync(&f.ctx));
    }
    f.o->master = master;
    end(&f);
}

Test(train, small_steps_are_kept_by_the_master)
{
    const double want[2][5] = {{1, 1, 1, 1, 1},
                               {1, 1, 0.99609375, 0.99609375, 0.99609375}};
    for (int with = 0; with < 2; with++) {
        double values[5];
        walk(with, values);
        for (int t = 0; t <= 4; t++)
            cr_assert_eq(values[t], want[with][t], "master %d, step %d: %.9g", with, t,
                         values[t]);
    }
}

Test(train, bytes_of_the_optimizer_are_the_table)
{
    const size_t scalars = 3 * sizeof(double);
    cr_assert_eq(dls_optimizer_predict_memory(1000, DLS_F32), 8000 + scalars);
    cr_assert_eq(dls_optimizer_predict_memory(1000, DLS_F64), 16000 + scalars);
    cr_assert_eq(dls_optimizer_predict_memory(1000, DLS_BF16), 12000 + scalars);
}
