/* tests/kernels/test_cache.c: from chapters/09-transformer-generation-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

/* test the append */
static void check_append(kcase *k, int B, int T, int width, int row, int length)
{
    int N = B * T, positions[64];
    size_t n = (size_t)B * length * width;
    double *cache = kcase_random(k, n, 1, -1, 1);
    double *rows = kcase_random(k, (size_t)N * row, 2, -1, 1);
    for (int i = 0; i < N; i++)
        positions[i] = (int)(dls_rng_u32(4, (uint64_t)B, i) % (length + 2)) - 1;
    void *device = kcase_put(k, cache, n);
    OK(dls_cache_append(&k->ctx, device, kcase_put(k, rows, (size_t)N * row), row,
                        kcase_put_ints(k, positions, N), N, T, width, length));
    for (int i = 0; i < N; i++)
        for (int c = 0; c < width && positions[i] >= 0 && positions[i] < length; c++)
            cache[((size_t)(i / T) * length + positions[i]) * width + c]
                = rows[i * row + c];
    expect_within(kcase_get(k, device, n), cache, 0, n, "cache");
}

KERNEL_TEST(cache_append)
{
    check_append(k, 1, 1, 1, 1, 1);
    check_append(k, 3, 1, 7, 9, 5);
    check_append(k, 1, 2, 130, 131, 400);
    check_append(k, 4, 1, 33, 99, 2);
    OK(dls_cache_append(&k->ctx, NULL, NULL, 1, NULL, 0, 1, 1, 1));
    cr_assert_eq(dls_cache_append(&k->ctx, NULL, NULL, 2, NULL, 1, 1, 3, 1),
                 DLS_ERR_INPUT);
}
