/* tests/kernels/test_compress.c: from chapters/04-data-parallelism-hooks-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

#include "kernels/compress.h"
#include "kernels/orthogonal.h"

#define WIDE_TEST(name)                                                  \
    static void name(kcase *k);                                          \
    Test(kernels, name##_host_f32) { kcase_run(name, "host", DLS_F32); } \
    Test(kernels, name##_host_f64) { kcase_run(name, "host", DLS_F64); } \
    Test(kernels, name##_simt_f32) { kcase_run(name, "simt", DLS_F32); } \
    Test(kernels, name##_simt_f64) { kcase_run(name, "simt", DLS_F64); } \
    static void name(kcase *k)

/* test top k */
static int precedes(const double *x, size_t j, size_t i)
{
    double a = isnan(x[j]) ? INFINITY : fabs(x[j]);
    double b = isnan(x[i]) ? INFINITY : fabs(x[i]);
    return a > b || (a == b && j < i);
}

static void check_top_k(kcase *k, const double *x, size_t n, double keep)
{
    size_t count = dls_top_k_count(n, keep), out = 0;
    double *rest = kcase_zeros(k, n), *taken = kcase_zeros(k, count + 1);
    double *sum = kcase_zeros(k, n);
    for (size_t first = 0; first < n; first += DLS_CHUNK) {
        size_t end = first + DLS_CHUNK < n ? first + DLS_CHUNK : n;
        for (size_t i = first; i < end; i++) {
            size_t before = 0;
            for (size_t j = first; j < end; j++)
                before += (size_t)precedes(x, j, i);
            int is = before < (size_t)ceil(keep * (double)(end - first));
            rest[i] = is ? 0 : x[i];
            sum[i] = is ? 2 * x[i] : 0;
            if (is)
                taken[out++] = x[i];
        }
    }
    cr_assert_eq(out, count, "%zu are taken of %zu, the count says %zu", out, n, count);
    void *dx = kcase_put(k, x, n), *values = kcase_space(k, 2 * count);
    int *indices = kcase_put_ints(k, calloc(2 * count, sizeof(int)), 2 * count);
    OK(dls_top_k(&k->ctx, values, indices, dx, n, keep));
    expect_within(kcase_get(k, dx, n), rest, 0, n, "the rest");
    expect_within(kcase_get(k, values, count), taken, 0, count, "the taken");
    OK(dls_ctx_sync(&k->ctx));
    size_t size = dls_dtype_size(k->ctx.dtype); // a second rank with the same list
    cudaMemcpy((char *)values + count * size, values, count * size,
               cudaMemcpyDeviceToDevice);
    cudaMemcpy(indices + count, indices, count * sizeof(int), cudaMemcpyDeviceToDevice);
    cudaDeviceSynchronize(); // copies within the device do not wait
    OK(dls_top_k_sum(&k->ctx, dx, values, indices, 2, n, keep));
    expect_within(kcase_get(k, dx, n), sum, 0, n, "the sum of two");
}

WIDE_TEST(top_k_takes_the_largest)
{
    const size_t sizes[] = {1, 31, 1024, 1025, 2999};
    for (int s = 0; s < 5; s++) {
        double *x = kcase_random(k, sizes[s], 1, -4, 4);
        for (size_t i = 0; i < sizes[s]; i++)
            x[i] = i % 3 ? floor(x[i]) : x[i]; // ties
        if (sizes[s] > 20)
            x[17] = NAN;
        for (double keep = 0.01; keep <= 1; keep *= 10)
            check_top_k(k, x, sizes[s], keep);
    }
}

/* test signs */
WIDE_TEST(signs_and_what_they_leave)
{
    enum { N = 2500, CHUNKS = 4 }; // the last chunk does not exist
    double *x = kcase_random(k, N, 1, -1, 1), *want = kcase_zeros(k, N);
    double *twice = kcase_zeros(k, N);
    for (int i = 0; i < N; i++)
        x[i] = (floor(8 * x[i]) + 0.5) / 8;
    void *dx = kcase_put(k, x, N);
    int *words = kcase_put_ints(k, calloc(2 * CHUNKS * DLS_CHUNK_WORDS, sizeof(int)),
                                2 * CHUNKS * DLS_CHUNK_WORDS);
    OK(dls_signs_pack(&k->ctx, words, dx, N, CHUNKS));
    OK(dls_ctx_sync(&k->ctx));
    cudaMemcpy(words + CHUNKS * DLS_CHUNK_WORDS, words,
               CHUNKS * DLS_CHUNK_WORDS * sizeof(int), cudaMemcpyDeviceToDevice);
    cudaDeviceSynchronize();
    for (int c = 0; c < CHUNKS; c++) {
        int first = c * DLS_CHUNK, end = first + DLS_CHUNK < N ? first + DLS_CHUNK : N;
        double sum = 0;
        for (int i = first; i < end; i++)
            sum += fabs(x[i]);
        for (int i = first; i < end; i++) {
            double s = (float)(sum / (end - first)) * (x[i] < 0 ? -1 : 1);
            want[i] = x[i] - s;
            twice[i] = kcase_round(k, 2 * s + 1);
        }
    }
    expect_within(kcase_get(k, dx, N), want, 4 * k->u, N, "the rest");
    for (int i = 0; i < N; i++)
        want[i] = 1;
    void *sum = kcase_put(k, want, N);
    OK(dls_signs_sum(&k->ctx, sum, words, 2, N, CHUNKS, 1));
    expect_within(kcase_get(k, sum, N), twice, 4 * k->u, N, "1 + the sum of two");
    int *host = malloc(CHUNKS * DLS_CHUNK_WORDS * sizeof(int));
    cudaMemcpy(host, words, CHUNKS * DLS_CHUNK_WORDS * sizeof(int),
               cudaMemcpyDeviceToHost);
    for (int w = 0; w < DLS_CHUNK_WORDS; w++)
        cr_assert_eq(host[3 * DLS_CHUNK_WORDS + w], 0, "word %d of an empty chunk", w);
}

/* test orthogonal columns */
static void check_columns(kcase *k, int rows, int columns, int dependent)
{
    double *p = kcase_random(k, (size_t)rows * columns, 1, -1, 1);
    for (int i = 0; i < rows; i++) // the last column is a sum of the others
        for (int j = 0; dependent && j < columns - 1; j++)
            p[i * columns + columns - 1] = (j ? p[i * columns + columns - 1] : 0) +
                                           p[i * columns + j];
    void *dp = kcase_put(k, p, (size_t)rows * columns);
    OK(dls_orthogonalise(&k->ctx, dp, rows, columns));
    double *q = kcase_get(k, dp, (size_t)rows * columns);
    for (int a = 0; a < columns; a++)
        for (int b = 0; b <= a; b++) {
            double sum = 0;
            for (int i = 0; i < rows; i++)
                sum += q[i * columns + a] * q[i * columns + b];
            double want = a == b && !(dependent && a == columns - 1);
            cr_assert_lt(fabs(sum - want), 8 * rows * k->u, "columns %d, %d: %g", a, b,
                         sum);
        }
}

WIDE_TEST(columns_become_orthonormal)
{
    check_columns(k, 1, 1, 0);
    check_columns(k, 33, 4, 0);
    check_columns(k, 1000, 3, 1);
    check_columns(k, 700, 8, 0);
}

WIDE_TEST(empty_columns_are_refilled)
{
    double p[] = {3, 1, 2, 4, 0, 5}, fresh[] = {7, 8, 9, 7, 8, 9}; // (2, 3)
    void *dp = kcase_put(k, p, 6), *df = kcase_put(k, fresh, 6);
    OK(dls_orthogonalise(&k->ctx, dp, 2, 3));
    double *q = kcase_get(k, dp, 6);
    cr_assert_eq(q[2], 0);
    cr_assert_eq(q[5], 0);
    double want[] = {q[0], q[1], 9, q[3], q[4], 9};
    OK(dls_refill_columns(&k->ctx, dp, df, 2, 3));
    expect_within(kcase_get(k, dp, 6), want, 0, 6, "refilled");
}
