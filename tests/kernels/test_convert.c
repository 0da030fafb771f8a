/* tests/kernels/test_convert.c: from chapters/04-data-parallelism-zero-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

#include "kernels/convert.h"

/* test conversions of the accumulator */
KERNEL_TEST(accumulators_round_once_and_widen_exactly)
{
    enum { N = 1003 };
    double *x = kcase_random(k, N, 5, -2, 2), *y = kcase_random(k, N, 6, -2, 2);
    double odd[] = {0x1p-8, 0x1p-8 + 0x1p-16, 3 * 0x1p-8, -0x1p-8, 0, 0x1p-24, 1e30,
                    0x1p-9};
    double *sum = kcase_zeros(k, N), *alone = kcase_zeros(k, N);
    for (int i = 0; i < N; i++) {
        x[i] = kcase_round_acc(k, i < 8 ? odd[i] : x[i]);
        y[i] = kcase_round(k, i < 8 ? 1 : y[i]);
        alone[i] = kcase_round(k, x[i]);
        sum[i] = kcase_round(k, kcase_round_acc(k, y[i] + x[i]));
    }
    void *from = kcase_put_acc(k, x, N), *to = kcase_put(k, y, N);
    void *fresh = kcase_space(k, N), *wide = kcase_space_acc(k, N);
    OK(dls_to_wide(&k->ctx, wide, to, N));
    expect_within(kcase_get_acc(k, wide, N), y, 0, N, "widened");
    OK(dls_to_narrow(&k->ctx, fresh, from, N, 0));
    expect_within(kcase_get(k, fresh, N), alone, 0, N, "rounded");
    OK(dls_to_narrow(&k->ctx, to, from, 0, 1)); // nothing
    expect_within(kcase_get(k, to, N), y, 0, N, "left alone");
    OK(dls_to_narrow(&k->ctx, to, from, N, 1));
    expect_within(kcase_get(k, to, N), sum, 0, N, "added, then rounded");
}
