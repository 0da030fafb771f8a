/* tests/kernels/test_embedding.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* test the embedding example */
KERNEL_TEST(embedding_example)
{
    int tokens[] = {5, 2, 5};
    double dout[] = {10, 20, 40}, table[] = {0, 0, 20, 0, 0, 50, 0};
    int *t = kcase_put_ints(k, tokens, 3);
    void *dwte = kcase_put_acc(k, kcase_zeros(k, 7), 7);
    void *dwpe = kcase_put_acc(k, kcase_zeros(k, 3), 3);
    OK(dls_embedding_backward(&k->ctx, dwte, dwpe, kcase_put(k, dout, 3), t, 1, 3, 1, 7));
    expect_within(kcase_get_acc(k, dwte, 7), table, 0, 7, "dwte");
    expect_within(kcase_get_acc(k, dwpe, 3), dout, 0, 3, "dwpe");
}

/* test the embedding in bits */
/* a + b, rounded as the accumulator rounds. */
static double add_rounded(const kcase *k, double a, double b)
{
    return kcase_round_acc(k, a + b);
}

static void check_embedding(kcase *k, int B, int T, int C, int V)
{
    int N = B * T, tokens[128];
    double *wte = kcase_random(k, (size_t)V * C, 1, -1, 1);
    double *wpe = kcase_random(k, (size_t)T * C, 2, -1, 1);
    double *dout = kcase_random(k, (size_t)N * C, 3, -1, 1);
    double *out = kcase_zeros(k, (size_t)N * C);
    for (int n = 0; n < N; n++)
        tokens[n] = n * n % V;
    int *t = kcase_put_ints(k, tokens, N);
    void *to = kcase_space(k, (size_t)N * C);
    void *dwte = kcase_put_acc(k, wte, (size_t)V * C);
    void *dwpe = kcase_put_acc(k, wpe, (size_t)T * C);
    OK(dls_embedding_forward(&k->ctx, to, t, NULL, kcase_put(k, wte, (size_t)V * C),
                             kcase_put(k, wpe, (size_t)T * C), B, T, C));
    OK(dls_embedding_backward(&k->ctx, dwte, dwpe, kcase_put(k, dout, (size_t)N * C), t,
                              B, T, C, V));
    /* repeat the embedding by hand */
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++)
            out[n * C + c] = kcase_round(
                k, add_rounded(k, wte[tokens[n] * C + c], wpe[n % T * C + c]));
    expect_within(kcase_get(k, to, (size_t)N * C), out, 0, (size_t)N * C, "out");
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++) {
            double *a = &wte[tokens[n] * C + c], *b = &wpe[n % T * C + c];
            *a = add_rounded(k, *a, dout[n * C + c]);
            *b = add_rounded(k, *b, dout[n * C + c]);
        }
    expect_within(kcase_get_acc(k, dwte, (size_t)V * C), wte, 0, (size_t)V * C, "dwte");
    expect_within(kcase_get_acc(k, dwpe, (size_t)T * C), wpe, 0, (size_t)T * C, "dwpe");
}

KERNEL_TEST(embedding_positions)
{
    int tokens[] = {1, 0, 1, 1}, positions[] = {2, 0, 1, 2};
    double wte[] = {1, 2, 3, 4}, wpe[] = {10, 20, 30, 40, 50, 60};
    double with[] = {53, 64, 11, 22, 33, 44, 53, 64},
           without[] = {3, 4, 1, 2, 3, 4, 3, 4};
    double dout[] = {1, 2, 4, 8, 16, 32, 64, 128}, dwte[] = {4, 8, 81, 162};
    int *t = kcase_put_ints(k, tokens, 4), *at = kcase_put_ints(k, positions, 4);
    void *w = kcase_put(k, wte, 4), *p = kcase_put(k, wpe, 6), *to = kcase_space(k, 8);
    void *d = kcase_put_acc(k, kcase_zeros(k, 4), 4);
    OK(dls_embedding_forward(&k->ctx, to, t, at, w, p, 2, 2, 2));
    expect_within(kcase_get(k, to, 8), with, 0, 8, "with positions");
    OK(dls_embedding_forward(&k->ctx, to, t, NULL, w, NULL, 2, 2, 2));
    expect_within(kcase_get(k, to, 8), without, 0, 8, "without a table");
    OK(dls_embedding_backward(&k->ctx, d, NULL, kcase_put(k, dout, 8), t, 2, 2, 2, 2));
    expect_within(kcase_get_acc(k, d, 4), dwte, 0, 4, "dwte");
}

KERNEL_TEST(embedding_sizes)
{
    check_embedding(k, 1, 1, 1, 1);
    check_embedding(k, 3, 5, 7, 3);
    check_embedding(k, 2, 31, 33, 11);
    check_embedding(k, 1, 67, 129, 2);
}
