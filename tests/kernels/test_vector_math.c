/* tests/kernels/test_vector_math.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The exponentials of vector_math.h against wider arithmetic. */
#include <criterion/criterion.h>
#include <float.h>

#include "base/vector_math.h"

/* measure the float exponential */
Test(kernels, exp_f32_is_within_1_1_ulp)
{
    double worst = 0;
    float at = 0;
    for (float x = -86.5f; x < 88.72f; x += 1e-5f * (1 + fabsf(x))) {
        double want = exp((double)x);
        int e;
        frexp(want, &e);
        double ulps = fabs(dls_exp_f32(x) - want) / ldexp(1, e - 24);
        if (ulps > worst) {
            worst = ulps;
            at = x;
        }
    }
    cr_assert_lt(worst, 1.1, "%.3f ulp at %.9g", worst, at);
}

/* measure the double exponential */
Test(kernels, exp_f64_is_within_1_1_ulp)
{
    double worst = 0, at = 0;
    for (double x = -707; x < 709.7; x += 1.3e-3) {
        long double want = expl(x);
        int e;
        frexpl(want, &e);
        double ulps = (double)(fabsl(dls_exp_f64(x) - want) / ldexpl(1, e - 53));
        if (ulps > worst) {
            worst = ulps;
            at = x;
        }
    }
    cr_assert_lt(worst, 1.1, "%.3f ulp at %.17g", worst, at);
}

/* visit the edges of the exponentials */
Test(kernels, exp_edges)
{
    cr_assert_eq(dls_exp_f32(0), 1);
    cr_assert_eq(dls_exp_f32(-0.0f), 1);
    cr_assert_eq(dls_exp_f32(-1e4f), 0);
    cr_assert_eq(dls_exp_f32(-INFINITY), 0);
    cr_assert_eq(dls_exp_f32(1e4f), INFINITY);
    cr_assert_eq(dls_exp_f32(INFINITY), INFINITY);
    cr_assert(isnan(dls_exp_f32(NAN)));
    cr_assert_lt(dls_exp_f32(88.722f), FLT_MAX);
    cr_assert_eq(dls_exp_f64(0), 1);
    cr_assert_eq(dls_exp_f64(-1e4), 0);
    cr_assert_eq(dls_exp_f64(-INFINITY), 0);
    cr_assert_eq(dls_exp_f64(INFINITY), INFINITY);
    cr_assert(isnan(dls_exp_f64(NAN)));
    cr_assert_lt(dls_exp_f64(709.78), DBL_MAX);
}
