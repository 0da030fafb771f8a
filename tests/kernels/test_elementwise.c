/* tests/kernels/test_elementwise.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

KERNEL_TEST(add_and_scale)
{
    double *a = kcase_random(k, 1009, 1, -1, 1), *b = kcase_random(k, 1009, 2, -1e6, 1e6);
    double *sum = kcase_zeros(k, 1009), *product = kcase_zeros(k, 1009);
    for (int i = 0; i < 1009; i++) {
        sum[i] = kcase_round(k, kcase_round_acc(k, a[i] + b[i]));
        product[i] = kcase_round(k, 0.375 * a[i]);
    }
    void *x = kcase_put(k, a, 1009), *y = kcase_put(k, b, 1009);
    OK(dls_add(&k->ctx, y, x, y, 1009));  // in place
    OK(dls_scale(&k->ctx, x, 0.375, 1009));
    expect_within(kcase_get(k, y, 1009), sum, 0, 1009, "a + b");
    expect_within(kcase_get(k, x, 1009), product, 0, 1009, "0.375 a");
}

KERNEL_TEST(scale_keeps_nan)
{
    double x[] = {1, INFINITY, NAN, -2}, want[] = {0, NAN, NAN, -0.0};
    void *dev = kcase_put(k, x, 4);
    OK(dls_scale(&k->ctx, dev, 0, 4));
    expect_within(kcase_get(k, dev, 4), want, 0, 4, "0 * x");
}
