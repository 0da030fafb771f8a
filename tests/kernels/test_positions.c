/* tests/kernels/test_positions.c: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The gradient of a table of positions, for rows that are not the first ones. */
#include "support.h"

KERNEL_TEST(adds_to_the_table_at_the_positions)
{
    enum { B = 2, T = 3, C = 4, LONG = 9 };
    static const int at[] = {5, 0, 8, 5, 0, 8}, tokens[] = {0, 0, 0, 0, 0, 0};
    double *d = kcase_random(k, B * T * C, 1, -1, 1), *want = kcase_zeros(k, LONG * C);
    void *table = kcase_put_acc(k, want, LONG * C), *wte = kcase_put_acc(k, want, C);
    for (int n = 0; n < B * T * C; n++)
        want[at[n / C] * C + n % C] += kcase_round(k, d[n]);
    OK(dls_embedding_part_backward(&k->ctx, wte, table, kcase_put(k, d, B * T * C),
                                   kcase_put_ints(k, tokens, B * T),
                                   kcase_put_ints(k, at, B * T), B, T, C, 0, 1));
    expect_within(kcase_get_acc(k, table, LONG * C), want, 4 * rounding(k, B), LONG * C,
                  "dwpe");
}
