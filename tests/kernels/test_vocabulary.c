/* tests/kernels/test_vocabulary.c: from chapters/06-tensor-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "cross_entropy_reference.h"

/* sum over bands */
typedef struct band_case {
    dls_band band;
    void *own, *most, *sum, *right, *losses, *logits;   // device
} band_case;

/* The columns of a band, of z (N, V). */
static void *columns(kcase *k, const double *z, dls_band b, int N)
{
    double *part = kcase_zeros(k, (size_t)N * b.V);
    for (int n = 0; n < N; n++)
        memcpy(part + n * b.V, z + n * b.whole + b.first, b.V * sizeof *part);
    return kcase_put(k, part, (size_t)N * b.V);
}

/* One all-reduce: every band's array becomes the largest, or the sum. */
static void reduce(kcase *k, band_case *b, int bands, size_t at, int N, int max)
{
    double *all = kcase_zeros(k, N);
    for (int i = 0; i < bands; i++) {
        double *x = kcase_get_acc(k, *(void **)((char *)&b[i] + at), N);
        for (int n = 0; n < N; n++)
            all[n] = i == 0 ? x[n] : max ? fmax(all[n], x[n])
                                         : kcase_round_acc(k, all[n] + x[n]);
    }
    for (int i = 0; i < bands; i++)
        *(void **)((char *)&b[i] + at) = kcase_put_acc(k, all, N);
}

static void lose(kcase *k, band_case *b, int bands, const double *z, int *targets,
                 double scale, int N, int V)
{
    for (int i = 0; i < bands; i++) {
        int first = i * V / bands;
        b[i] = (band_case){{first, (i + 1) * V / bands - first, V},
                           kcase_space_acc(k, N), kcase_space_acc(k, N),
                           kcase_space_acc(k, N), kcase_space_acc(k, N),
                           kcase_space_acc(k, N), NULL};
        b[i].logits = columns(k, z, b[i].band, N);
        OK(dls_vocabulary_scan(&k->ctx, b[i].own, b[i].most, b[i].sum, b[i].right,
                               b[i].logits, targets, b[i].band, N));
    }
    reduce(k, b, bands, offsetof(band_case, most), N, 1);
    for (int i = 0; i < bands; i++)
        OK(dls_vocabulary_rescale(&k->ctx, b[i].sum, b[i].own, b[i].most, N));
    reduce(k, b, bands, offsetof(band_case, sum), N, 0);
    reduce(k, b, bands, offsetof(band_case, right), N, 0);
    for (int i = 0; i < bands; i++)
        OK(dls_vocabulary_finish(&k->ctx, b[i].losses, b[i].logits, b[i].most, b[i].sum,
                                 b[i].right, targets, b[i].band, scale, N));
}

/* test the cut cross entropy */
static void check_bands(kcase *k, int bands, int N, int V, double range)
{
    int y[64];
    band_case b[8];
    double *z = kcase_random(k, (size_t)N * V, 1, -range, range);
    double *loss = kcase_zeros(k, N), *loss_e = kcase_zeros(k, N);
    double *dz = kcase_zeros(k, (size_t)N * V), *dz_e = kcase_zeros(k, (size_t)N * V);
    for (int i = 0; i < N; i++) {
        y[i] = i % 5 == 4 ? (i % 2 ? -1 : -100) : i * 7 % V;
        refer_row(k, z + i * V, V, y[i], 0.5, loss + i, loss_e + i, dz + i * V,
                  dz_e + i * V);
        loss_e[i] += y[i] < 0 ? 0 : rounding(k, bands + 6);
        for (int v = 0; v < V && y[i] >= 0; v++)
            dz_e[i * V + v] += rounding(k, bands + 6);
    }
    lose(k, b, bands, z, kcase_put_ints(k, y, N), 0.5, N, V);
    for (int i = 0; i < bands; i++) {
        dls_band d = b[i].band;
        double *got = kcase_get(k, b[i].logits, (size_t)N * d.V);
        expect_near(kcase_get_acc(k, b[i].losses, N), loss, loss_e, N, "loss");
        for (int n = 0; n < N; n++)
            expect_stored(k, got + n * d.V, dz + n * V + d.first, dz_e + n * V + d.first,
                          d.V, "dlogits");
    }
    kcase_release(k, 0, 0);
}

KERNEL_TEST(vocabulary_bands)
{
    check_bands(k, 1, 7, 33, 5);
    check_bands(k, 2, 6, 257, 5);
    check_bands(k, 3, 6, 257, 5);
    check_bands(k, 4, 11, 257, 30);
    check_bands(k, 4, 5, 4, 3);
    check_bands(k, 2, 2, 4096, 3);
    check_bands(k, 3, 5, 31, 1e4);
}

KERNEL_TEST(vocabulary_example)
{
    double z[] = {1, 3, 2, 5, 0}, sum = exp(-4) + exp(-2) + exp(-3) + 1 + exp(-5);
    double loss[] = {log(sum) + 3};
    int y[] = {2};
    band_case b[2];
    lose(k, b, 2, z, kcase_put_ints(k, y, 1), 1, 1, 5);
    for (int i = 0; i < 2; i++)
        expect_within(kcase_get_acc(k, b[i].losses, 1), loss, rounding(k, 16), 1, "loss");
}

KERNEL_TEST(vocabulary_without_an_answer)
{
    const double i = INFINITY;
    double z[8][4] = {{-i, -i, 0, 0}, {0, 0, -i, -i}, {-i, -i, -i, -i}, {0, 1, i, 0},
                      {NAN, 0, 0, 0}, {i, NAN, -i, 0}, {1, 2, 3, 4}, {0, 0, -i, -i}};
    double loss[] = {log(2), log(2), NAN, NAN, NAN, 0, NAN, i};
    double dz[8][4] = {{0, 0, 0.5, -0.5}, {0.5, -0.5, 0, 0}, {NAN, NAN, NAN, NAN},
                       {NAN, NAN, NAN, NAN}, {NAN, NAN, NAN, NAN}, {0}, {0},
                       {0.5, 0.5, 0, -1}};
    int y[] = {3, 1, 0, 1, 2, -100, 4, 3};
    band_case b[2];
    lose(k, b, 2, z[0], kcase_put_ints(k, y, 8), 1, 8, 4);
    for (int j = 0; j < 2; j++) {
        double *got = kcase_get(k, b[j].logits, 16);
        expect_within(kcase_get_acc(k, b[j].losses, 8), loss, rounding(k, 16), 8, "loss");
        for (int n = 0; n < 8; n++)
            if (n != 6)
                expect_stored_within(k, got + 2 * n, dz[n] + 2 * j, rounding(k, 16), 2,
                                     "dlogits");
    }
}

KERNEL_TEST(embedding_bands)
{
    enum { V = 7, C = 3, N = 5 };
    int t[N] = {6, 0, 3, 3, 2}, *tokens = kcase_put_ints(k, t, N);
    double *w = kcase_random(k, V * C, 1, -1, 1), *dy = kcase_random(k, N * C, 2, -1, 1);
    double *zeros = kcase_zeros(k, V * C), sum[N * C] = {0}, none[N * C] = {0};
    void *d = kcase_put(k, dy, N * C), *whole = kcase_put_acc(k, zeros, V * C);
    OK(dls_embedding_backward(&k->ctx, whole, NULL, d, tokens, 1, N, C, V));
    double *dw = kcase_get_acc(k, whole, V * C);
    for (int r = 0; r < 3; r++) {
        int first = r * V / 3, rows = (r + 1) * V / 3 - first;
        void *y = kcase_space(k, N * C), *part = kcase_put_acc(k, zeros, rows * C);
        void *band = kcase_put(k, w + first * C, rows * C);
        OK(dls_embedding_part_forward(&k->ctx, y, tokens, NULL, band, NULL, 1, N, C,
                                      first, rows));
        OK(dls_embedding_part_backward(&k->ctx, part, NULL, d, tokens, NULL, 1, N, C,
                                       first, rows));
        double *got = kcase_get_acc(k, part, rows * C);
        expect_within(got, dw + first * C, 0, rows * C, "dw");
        double *share = kcase_get(k, y, N * C);
        for (int i = 0; i < N * C; i++)
            sum[i] += share[i] - w[t[i / C] * C + i % C] / 3;
    }
    expect_within(sum, none, rounding(k, 4), N * C, "embedding");
}
