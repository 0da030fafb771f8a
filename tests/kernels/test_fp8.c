/* tests/kernels/test_fp8.c: from chapters/08-dispatch-wire.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

#include "kernels/fp8.h"

/* test rows in fp8 */
enum { ROWS = 5 };

static double largest_of_group(const double *x, int C, int column)
{
    int first = column / DLS_FP8_GROUP * DLS_FP8_GROUP;
    double most = 0;
    for (int k = first; k < C && k < first + DLS_FP8_GROUP; k++)
        most = isfinite(x[k]) ? fmax(most, fabs((float)x[k])) : most;
    return most;
}

static double scale_of(double most)
{
    double s = 0x1p-126;
    while (most > 448 * s)
        s *= 2;
    return most == 0 ? 1 : s;
}

static void expect_row(const kcase *k, const double *got, const double *x, int C)
{
    for (int i = 0; i < C; i++) {
        double most = largest_of_group(x, C, i), s = scale_of(most), in = (float)x[i];
        double want = isfinite(in) ? dls_precision_round(&dls_e4m3, in / s) * s : NAN;
        double bound = fmax(fabs(in) / 16, s / 1024);
        want = kcase_round(k, want);
        cr_assert(isnan(want) ? isnan(got[i]) : got[i] == want,
                  "%d of %d: %.17g: %.17g, expected %.17g", i, C, in, got[i], want);
        cr_assert(!isfinite(in) || fabs(want - in) <= bound, "%g: %g is off by more than "
                  "%g", in, want, bound);
    }
}

static void there_and_back(kcase *k, const double *x, double *got, int C)
{
    void *wire;
    OK(dls_device_alloc(&wire, ROWS * dls_fp8_row_bytes(C), DLS_F32, DLS_MEM_OTHER));
    void *from = kcase_put(k, x, ROWS * C), *to = kcase_space(k, ROWS * C);
    OK(dls_fp8_pack(&k->ctx, wire, from, ROWS, C));
    OK(dls_fp8_unpack(&k->ctx, to, wire, ROWS, C));
    memcpy(got, kcase_get(k, to, ROWS * C), sizeof(double) * ROWS * C);
    dls_device_free(wire);
}

KERNEL_TEST(fp8_rows_are_the_nearest_codes)
{
    static const int columns[] = {1, 3, 4, 127, 128, 129, 300};
    for (int c = 0; c < 7; c++) {
        int C = columns[c];
        double *x = kcase_random(k, ROWS * C, 3, -1, 1), got[ROWS * 300];
        double *e = kcase_random(k, ROWS * C, 4, -40, 40);
        for (int i = 0; i < ROWS * C; i++)
            x[i] = kcase_round(k, x[i] * exp2(floor(e[i] / (1 + i / C))));
        there_and_back(k, x, got, C);
        for (int r = 0; r < ROWS; r++)
            expect_row(k, got + r * C, x + r * C, C);
    }
}

KERNEL_TEST(fp8_rows_of_odd_numbers)
{
    enum { C = 140 };
    static const double odd[] = {448, 17, 19, -17, 0.0, -0.0, 0x1p-10, 3 * 0x1p-10,
                                 0x1p-6, 0x1p-6 - 0x1p-10, INFINITY, -INFINITY, NAN,
                                 240, -448};
    double *x = kcase_zeros(k, ROWS * C), got[ROWS * C];
    for (int i = 0; i < 15; i++)
        x[i] = odd[i];
    x[C] = 448.0 + 2;                                   // bf16: 450 as it is
    for (int i = 0; i < 12; i++)
        x[2 * C + i] = kcase_round(k, ldexp(1 + i / 4.0, -140 + 2 * i));
    for (int i = 0; i < C; i++)
        x[3 * C + i] = i % 17 - 8;                      // whole numbers stay
    there_and_back(k, x, got, C);
    for (int r = 0; r < ROWS; r++)
        expect_row(k, got + r * C, x + r * C, C);
    cr_assert(got[1] == 16 && got[2] == 20 && got[3] == -16);
    cr_assert(signbit(got[5]) && isnan(got[10]) && isnan(got[11]) && got[13] == 240);
    for (int i = 0; i < C; i++)
        cr_assert_eq(got[3 * C + i], x[3 * C + i]);
}
