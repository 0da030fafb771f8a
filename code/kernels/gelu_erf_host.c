/* code/kernels/gelu_erf_host.c: from chapters/09-transformer-kernels-gelu-erf.md. Edit the chapter, or edit here and run "make untangle". */
/* GELU with the error function in plain C. */
#include <math.h>
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real_math.h"

#include "kernels/gelu_host.h"

#if DLS_REAL == 64
#define acc_erfc erfc
#else
#define acc_erfc erfcf
#endif

/* apply the exact gelu on the host */
static inline acc normal_below(acc x)
{
    return (acc)0.5 * acc_erfc(x * (acc)-0.70710678118654752);
}

void DLS_HOST_NAME(dls_gelu_erf_forward)(real *out, const real *x, size_t n)
{
    DLS_PARALLEL(n)
    for (size_t from = 0; from < n; from += DLS_BLOCK) {
        size_t to = dls_block_end(from, n);
        for (size_t i = from; i < to; i++)
            out[i] = narrow(widen(x[i]) * normal_below(widen(x[i])));
    }
}

void DLS_HOST_NAME(dls_gelu_erf_backward)(real *dx, const real *dout, const real *x,
                                          size_t n)
{
    DLS_PARALLEL(n)
    for (size_t from = 0; from < n; from += DLS_BLOCK) {
        size_t to = dls_block_end(from, n);
        for (size_t i = from; i < to; i++) {
            acc a = widen(x[i]);
            acc density = (acc)0.39894228040143268 * acc_exp((acc)-0.5 * a * a);
            dx[i] = narrow(widen(dout[i]) * (normal_below(a) + a * density));
        }
    }
}
