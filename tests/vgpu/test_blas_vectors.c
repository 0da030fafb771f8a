/* tests/vgpu/test_blas_vectors.c: from chapters/A-virtual-gpu-blas-vectors.md. Edit the chapter, or edit here and run "make untangle". */
/* Levels 1 and 2 of cuBLAS, trsm, geam and dgmm, against their definitions. */
#include <criterion/criterion.h>
#include <cublas_v2.h>
#include <math.h>
#include <string.h>

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

/* share numbers with the device */
static float *shared(int n, const float *from)
{
    float *p;
    OK(cudaMallocManaged((void **)&p, (size_t)n * sizeof *p, cudaMemAttachGlobal));
    if (from)
        memcpy(p, from, (size_t)n * sizeof *p);
    return p;
}

static void expect(const float *got, const float *want, int n, const char *what)
{
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < n; i++)
        cr_expect(got[i] == want[i] || (isnan(got[i]) && isnan(want[i])),
                  "%s, element %d: %g, not %g", what, i, (double)got[i],
                  (double)want[i]);
}

/* test vectors of level one */
Test(vgpu, axpy_copy_and_scal_walk_their_increments)
{
    const float xs[5] = {1, NAN, 2, NAN, 3}, ys[3] = {10, 20, 30};
    float *x = shared(5, xs), *y = shared(3, ys), two = 2;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cublasSaxpy(h, 3, &two, x, 2, y, -1));
    expect(y, (float[]){10 + 6, 20 + 4, 30 + 2}, 3, "axpy");
    OK(cublasScopy(h, 3, x, 2, y, 1));
    expect(y, (float[]){1, 2, 3}, 3, "copy");
    OK(cublasSscal(h, 3, &two, x, 2));
    expect(x, (float[]){2, NAN, 4, NAN, 6}, 5, "scal");
    OK(cublasSscal(h, 3, &two, x, -1)); // nothing
    OK(cublasSscal(h, -3, &two, x, 1));
    OK(cublasSaxpy(h, 0, &two, x, 1, y, 1));
    expect(x, (float[]){2, NAN, 4, NAN, 6}, 5, "scal of nothing");
    OK(cublasDestroy(h));
}

Test(vgpu, reductions_follow_their_definitions)
{
    const float xs[4] = {3, -4, 4, 0};
    float *x = shared(4, xs), dot, norm, sum;
    int most, least, none = 5;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cublasSdot(h, 3, x, 1, x, -1, &dot));
    cr_expect_eq(dot, 3 * 4 + 16 + 4 * 3);
    OK(cublasSnrm2(h, 2, x, 1, &norm));
    cr_expect_eq(norm, 5);
    OK(cublasSasum(h, 4, x, 1, &sum));
    cr_expect_eq(sum, 11);
    OK(cublasIsamax(h, 4, x, 1, &most));
    cr_expect_eq(most, 2, "the first of two, counted from one");
    OK(cublasIsamin(h, 4, x, 1, &least));
    cr_expect_eq(least, 4);
    OK(cublasIsamax(h, 0, x, 1, &none));
    cr_expect_eq(none, 0);
    OK(cublasSnrm2(h, 4, x, -1, &norm));
    cr_expect_eq(norm, 0);
    OK(cublasDestroy(h));
}

/* test results and where they go */
Test(vgpu, a_norm_does_not_overflow_on_the_way)
{
    double *x, norm;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cudaMallocManaged((void **)&x, 2 * sizeof *x, cudaMemAttachGlobal));
    x[0] = 3e200;
    x[1] = 4e200;
    OK(cublasDnrm2(h, 2, x, 1, &norm));
    cr_expect_float_eq(norm / 5e200, 1, 4 * 0x1p-53);
    x[0] = x[1] = 0;
    OK(cublasDnrm2(h, 2, x, 1, &norm));
    cr_expect_eq(norm, 0);
}

Test(vgpu, results_and_scalars_may_stay_on_the_device)
{
    float *x = shared(2, (float[]){2, 3}), *r = shared(1, NULL), *y = shared(2, NULL);
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cublasSetPointerMode(h, CUBLAS_POINTER_MODE_DEVICE));
    y[0] = y[1] = 1;
    OK(cublasSdot(h, 2, x, 1, x, 1, r));
    OK(cublasSaxpy(h, 2, r, x, 1, y, 1)); // the scalar was not known at the call
    expect(y, (float[]){1 + 13 * 2, 1 + 13 * 3}, 2, "axpy with a dot product");
}

/* test matrices with vectors */
Test(vgpu, gemv_and_ger_follow_their_definitions)
{
    const float as[9] = {1, 2, NAN, 3, 4, NAN, 5, 6, NAN};
    float *a = shared(9, as), *x = shared(3, (float[]){1, 10, 100}), one = 1, zero = 0;
    float *y = shared(3, (float[]){NAN, NAN, NAN}), two = 2;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cublasSgemv(h, CUBLAS_OP_N, 2, 3, &one, a, 3, x, 1, &zero, y, 1));
    expect(y, (float[]){531, 642, NAN}, 3, "gemv");
    OK(cublasSgemv(h, CUBLAS_OP_T, 2, 3, &two, a, 3, x, 1, &zero, y, 1));
    expect(y, (float[]){2 * 21, 2 * 43, 2 * 65}, 3, "transposed gemv");
    OK(cublasSgemv(h, CUBLAS_OP_N, 2, 3, &one, a, 3, x, -1, &one, y, 1));
    expect(y, (float[]){42 + 135, 86 + 246, 130}, 3, "gemv backwards");
    OK(cublasSger(h, 2, 3, &two, x, 1, x, 1, a, 3));
    expect(a, (float[]){1 + 2, 2 + 20, NAN, 3 + 20, 4 + 200, NAN, 5 + 200, 6 + 2000, NAN},
           9, "ger");
}

/* test triangles */
enum { ORDER = 5, OTHER = 3, LD = 7 };

/* Element (i, j) of the triangle as the call describes it, before op(). */
static float triangle(int i, int j, int upper, int unit)
{
    if (i == j)
        return unit ? 1 : (float)(1 << i % 3);
    return (upper ? j > i : i > j) ? (float)((i * 3 + j * 5) % 7 - 3) : 0;
}

static void check_triangle(cublasHandle_t h, int bits)
{
    int left = bits & 1, upper = bits >> 1 & 1, turned = bits >> 2 & 1, unit = bits >> 3;
    int m = left ? ORDER : OTHER, n = left ? OTHER : ORDER;
    float *a = shared(LD * ORDER, NULL), *b = shared(LD * ORDER, NULL), half = 0.5f;
    float want[LD * ORDER];
    for (int i = 0; i < LD * ORDER; i++)
        a[i] = b[i] = want[i] = NAN;
    for (int j = 0; j < ORDER; j++)
        for (int i = 0; i < ORDER; i++)
            if (upper ? j > i || (j == i && !unit) : i > j || (i == j && !unit))
                a[i + j * LD] = triangle(i, j, upper, unit);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            float sum = 0;
            want[i + j * LD] = (float)((i * 5 + j * 3) % 9 - 4);
            for (int k = 0; k < ORDER; k++) {
                int r = left ? i : k, c = left ? k : j;
                float t = turned ? triangle(c, r, upper, unit)
                                 : triangle(r, c, upper, unit);
                int xi = left ? k : i, xj = left ? j : k;
                sum += t * (float)((xi * 5 + xj * 3) % 9 - 4);
            }
            b[i + j * LD] = 2 * sum; // alpha is a half
        }
    OK(cublasStrsm(h, left ? CUBLAS_SIDE_LEFT : CUBLAS_SIDE_RIGHT,
                   upper ? CUBLAS_FILL_MODE_UPPER : CUBLAS_FILL_MODE_LOWER,
                   turned ? CUBLAS_OP_T : CUBLAS_OP_N,
                   unit ? CUBLAS_DIAG_UNIT : CUBLAS_DIAG_NON_UNIT, m, n, &half, a, LD, b,
                   LD));
    expect(b, want, LD * n, "trsm");
}

Test(vgpu, triangles_are_solved_in_all_sixteen_ways)
{
    cublasHandle_t h;
    OK(cublasCreate(&h));
    for (int bits = 0; bits < 16; bits++)
        check_triangle(h, bits);
    float *a = shared(1, (float[]){NAN}), *b = shared(1, (float[]){NAN}), zero = 0;
    OK(cublasStrsm(h, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N,
                   CUBLAS_DIAG_NON_UNIT, 1, 1, &zero, a, 1, b, 1));
    expect(b, (float[]){0}, 1, "alpha = 0 reads nothing");
}

/* test sums of matrices */
Test(vgpu, geam_adds_and_transposes_and_dgmm_scales)
{
    float *a = shared(6, (float[]){1, 2, 3, 4, 5, 6}), *c = shared(6, NULL);
    float *d = shared(3, (float[]){10, 100, 1000}), one = 1, two = 2, zero = 0;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    OK(cublasSgeam(h, CUBLAS_OP_T, CUBLAS_OP_N, 3, 2, &one, a, 2, &zero, NULL, 3, c, 3));
    expect(c, (float[]){1, 3, 5, 2, 4, 6}, 6, "transposed");
    OK(cublasSgeam(h, CUBLAS_OP_N, CUBLAS_OP_T, 2, 3, &two, a, 2, &one, c, 3, a, 2));
    expect(a, (float[]){3, 6, 9, 12, 15, 18}, 6, "in place: twice itself and once more");
    OK(cublasSdgmm(h, CUBLAS_SIDE_RIGHT, 2, 3, a, 2, d, 1, c, 2));
    expect(c, (float[]){30, 60, 900, 1200, 15000, 18000}, 6, "columns");
    OK(cublasSdgmm(h, CUBLAS_SIDE_LEFT, 2, 3, a, 2, d, 1, c, 2));
    expect(c, (float[]){30, 600, 90, 1200, 150, 1800}, 6, "rows");
}

/* test refusals of blas */
#define BAD(expr) cr_expect_eq((expr), CUBLAS_STATUS_INVALID_VALUE, "%s", #expr)

Test(vgpu, vectors_and_triangles_refuse_what_blas_refuses)
{
    float *x = shared(4, (float[]){1, 2, 3, 4}), one = 1;
    const cublasOperation_t N = CUBLAS_OP_N;
    cublasHandle_t h;
    OK(cublasCreate(&h));
    cr_expect_eq(cublasSaxpy(NULL, 1, &one, x, 1, x, 1), CUBLAS_STATUS_NOT_INITIALIZED);
    cr_expect_eq(cublasSdot(NULL, 1, x, 1, x, 1, &one), CUBLAS_STATUS_NOT_INITIALIZED);
    BAD(cublasSaxpy(h, 1, NULL, x, 1, x, 1));
    BAD(cublasSdot(h, 1, x, 1, x, 1, NULL));
    OK(cublasSaxpy(h, 2, &one, x, 1, x, 0));
    BAD(cublasSgemv(h, N, -1, 2, &one, x, 2, x, 1, &one, x, 1));
    BAD(cublasSgemv(h, N, 2, 2, &one, x, 1, x, 1, &one, x, 1));
    BAD(cublasSgemv(h, N, 2, 2, &one, x, 2, x, 0, &one, x, 1));
    BAD(cublasSgemv(h, N, 2, 2, &one, x, 2, x, 1, NULL, x, 1));
    BAD(cublasSgemv(h, (cublasOperation_t)3, 2, 2, &one, x, 2, x, 1, &one, x, 1));
    BAD(cublasSger(h, 2, 2, &one, x, 1, x, 0, x, 2));
    BAD(cublasStrsm(h, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, N, CUBLAS_DIAG_UNIT, 2,
                    1, &one, x, 1, x, 2));
    BAD(cublasStrsm(h, CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_LOWER, N, CUBLAS_DIAG_UNIT, 1,
                    2, &one, x, 1, x, 1));
    BAD(cublasStrsm(h, (cublasSideMode_t)2, CUBLAS_FILL_MODE_LOWER, N, CUBLAS_DIAG_UNIT,
                    1, 1, &one, x, 1, x, 1));
    BAD(cublasSgeam(h, CUBLAS_OP_T, N, 2, 2, &one, x, 2, &one, x, 2, x, 2)); // in place
    BAD(cublasSgeam(h, N, N, 2, 2, &one, x, 1, &one, x, 2, x, 2));
    BAD(cublasSdgmm(h, CUBLAS_SIDE_LEFT, 2, 2, x, 1, x, 1, x, 2));
}
