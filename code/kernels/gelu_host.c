/* code/kernels/gelu_host.c: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* GELU in plain C. Everything inlines into the loops, which vectorise as a whole. */
#include <stddef.h>

#include "kernels/gelu.h"
#include "kernels/parallel.h"
#include "kernels/real_math.h"

#include "kernels/gelu_host.h"

static inline acc gelu_gate(acc x)
{
    acc u = (acc)DLS_GELU_SCALE * (x + (acc)DLS_GELU_CUBIC * x * x * x);
    return 1 / (1 + acc_exp(-2 * u));
}

/* apply gelu on the host */
void DLS_HOST_NAME(dls_gelu_forward)(real *out, const real *x, size_t n)
{
    DLS_PARALLEL(n)
    for (size_t from = 0; from < n; from += DLS_BLOCK) {
        size_t to = dls_block_end(from, n);
        #pragma omp simd
        for (size_t i = from; i < to; i++)
            out[i] = narrow(widen(x[i]) * gelu_gate(widen(x[i])));
    }
}

void DLS_HOST_NAME(dls_gelu_backward)(real *dx, const real *dout, const real *x, size_t n)
{
    const acc slope = (acc)DLS_GELU_SCALE, cubic = (acc)(3 * DLS_GELU_CUBIC);
    DLS_PARALLEL(n)
    for (size_t from = 0; from < n; from += DLS_BLOCK) {
        size_t to = dls_block_end(from, n);
        #pragma omp simd
        for (size_t i = from; i < to; i++) {
            acc v = widen(x[i]), s = gelu_gate(v);
            acc factor = s + 2 * v * slope * (1 + cubic * v * v) * s * (1 - s);
            dx[i] = narrow(widen(dout[i]) * factor);
        }
    }
}
