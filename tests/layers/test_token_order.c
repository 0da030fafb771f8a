/* tests/layers/test_token_order.c: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The orders of tokens: by hand, and as a partition of every length. */
#include <criterion/criterion.h>
#include <string.h>

#include "layers/token_order.h"

/* expect the orders by hand */
static void expect_order(dls_token_order order, int T, int n, int rank, int count,
                         const int *want)
{
    int got[16];
    cr_assert_eq(dls_token_count(order, T, n, rank), count);
    cr_assert_eq(dls_token_positions(order, T, n, rank, got), DLS_OK);
    cr_assert_arr_eq(got, want, sizeof(int) * count, "order %d rank %d", order, rank);
}

Test(token_order, follows_the_table)
{
    expect_order(DLS_TOKENS_CONTIGUOUS, 8, 2, 1, 4, (int[]){4, 5, 6, 7});
    expect_order(DLS_TOKENS_ZIGZAG, 8, 2, 0, 4, (int[]){0, 1, 6, 7});
    expect_order(DLS_TOKENS_ZIGZAG, 8, 2, 1, 4, (int[]){2, 3, 4, 5});
    expect_order(DLS_TOKENS_STRIPED, 8, 2, 1, 4, (int[]){1, 3, 5, 7});
    expect_order(DLS_TOKENS_ZIGZAG, 10, 2, 0, 5, (int[]){0, 1, 2, 8, 9});
    expect_order(DLS_TOKENS_ZIGZAG, 10, 2, 1, 5, (int[]){3, 4, 5, 6, 7});
    expect_order(DLS_TOKENS_STRIPED, 7, 3, 1, 2, (int[]){1, 4});
    expect_order(DLS_TOKENS_CONTIGUOUS, 2, 3, 2, 0, (int[]){0});
}

/* expect a partition */
static void expect_partition(dls_token_order order, int T, int n)
{
    int seen[64] = {0}, got[64], least = T, most = 0;
    for (int rank = 0; rank < n; rank++) {
        int count = dls_token_count(order, T, n, rank);
        cr_assert_eq(dls_token_positions(order, T, n, rank, got), DLS_OK);
        for (int i = 0; i < count; i++) {
            cr_assert(i == 0 || got[i] > got[i - 1]);
            seen[got[i]]++;
        }
        least = count < least ? count : least;
        most = count > most ? count : most;
    }
    for (int t = 0; t < T; t++)
        cr_assert_eq(seen[t], 1, "order %d: token %d of %d on %d ranks", order, t, T, n);
    cr_assert_leq(most - least, 1, "order %d: %d tokens on %d ranks", order, T, n);
}

Test(token_order, every_token_is_on_one_rank)
{
    for (int order = 0; order < DLS_TOKEN_ORDERS; order++)
        for (int n = 1; n <= 9; n++)
            for (int T = 0; T <= 40; T++)
                expect_partition((dls_token_order)order, T, n);
    int got;
    cr_assert_eq(dls_token_positions(DLS_TOKENS_ZIGZAG, 8, 2, 2, &got), DLS_ERR_INPUT);
    cr_assert_eq(dls_token_positions((dls_token_order)3, 8, 2, 0, &got), DLS_ERR_INPUT);
}
