/* tests/kernels/test_reduce.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* read doubles from the device */
static double *device_doubles(kcase *k, const double *x, size_t n)
{
    OK(dls_device_alloc(&k->device[k->devices++], n, DLS_F64, DLS_MEM_OTHER));
    OK(cudaMemcpy(k->device[k->devices - 1], x, n * sizeof *x, cudaMemcpyHostToDevice));
    return k->device[k->devices - 1];
}

static double read_double(kcase *k, const double *device)
{
    double x;
    OK(dls_ctx_sync(&k->ctx));
    OK(cudaMemcpy(&x, device, sizeof x, cudaMemcpyDeviceToHost));
    return x;
}

/* test sums */
static void check_sum(kcase *k, size_t n)
{
    double *x = kcase_random(k, n, 1, -1, 1), sum = 0, absolute = 0, squares = 3;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        absolute += fabs(x[i]);
        squares += x[i] * x[i];
    }
    double e = 2 * n * 0x1p-53 * absolute + k->u * fabs(sum), three = 3;
    void *dev = kcase_put(k, x, n), *out = kcase_space_acc(k, 1);
    double *square = device_doubles(k, &three, 1), got;
    OK(dls_sum(&k->ctx, out, dev, n));
    OK(dls_square_sum(&k->ctx, square, dev, n));
    expect_within(kcase_get_acc(k, out, 1), &sum, e, 1, "sum");
    got = read_double(k, square);
    expect_within(&got, &squares, 2 * (n + 1) * 0x1p-53 * squares, 1, "square sum");
    kcase_release(k, 0, 0);
}

KERNEL_TEST(sums)
{
    check_sum(k, 0);
    check_sum(k, 1);
    check_sum(k, 31);
    check_sum(k, 4097);
    check_sum(k, 100003);
}

KERNEL_TEST(sums_on_two_streams)
{
    dls_ctx other;
    double zero[16] = {0}, *squares = device_doubles(k, zero, 16);
    void *out[16], *x[16];
    OK(dls_ctx_create(&other, 0, k->ctx.dtype));
    for (int i = 0; i < 16; i++) {
        x[i] = kcase_put(k, kcase_random(k, 100 + i, 1, 2, 2), 100 + i);
        out[i] = kcase_space_acc(k, 1);
    }
    for (int i = 0; i < 16; i++) {
        OK(dls_sum(&k->ctx, out[i], x[i], 100 + i));
        OK(dls_square_sum(&other, squares + i, x[i], 100 + i));
    }
    OK(dls_ctx_sync(&other));
    for (int i = 0; i < 16; i++) {
        double sum = 2 * (100 + i), got = read_double(k, squares + i);
        expect_within(kcase_get_acc(k, out[i], 1), &sum, 0, 1, "sum of twos");
        cr_assert_eq(got, 2 * sum, "sum of fours");
    }
    dls_ctx_destroy(&other);
}

/* test clipping */
KERNEL_TEST(clip_coefficients)
{
    double cases[][4] = {
        // square sum, limit, norm, coefficient
        {25, 1, 5, 0.2}, {25, 5, 5, 1},        {25, 10, 5, 1}, {0, 1, 0, 1},
        {25, 0, 5, 1},   {25, INFINITY, 5, 1}, {25, -1, 5, 1}, {INFINITY, 1, INFINITY, 0},
        {NAN, 1, NAN, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double *d = device_doubles(k, cases[i], 4);
        OK(dls_clip_coefficient(&k->ctx, d + 3, d + 2, d, cases[i][1]));
        double got[] = {read_double(k, d + 2), read_double(k, d + 3)};
        expect_within(got, cases[i] + 2, 0, 2, "norm and coefficient");
    }
}
