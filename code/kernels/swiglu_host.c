/* code/kernels/swiglu_host.c: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* SwiGLU in plain C, a row at a time. */
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real_math.h"
#include "kernels/swiglu.h"

#include "kernels/swiglu_host.h"

/* apply swiglu on the host */
void DLS_HOST_NAME(dls_swiglu_forward)(real *out, const real *gate_up, int N, int F)
{
    DLS_PARALLEL((size_t)N * F)
    for (size_t n = 0; n < (size_t)N; n++) {
        const real *gate = gate_up + 2 * n * F, *up = gate + F;
        real *y = out + n * F;
        #pragma omp simd
        for (int f = 0; f < F; f++) {
            acc g = widen(gate[f]);
            y[f] = narrow(g / (1 + acc_exp(-g)) * widen(up[f]));
        }
    }
}

void DLS_HOST_NAME(dls_swiglu_backward)(real *dgate_up, const real *dout,
                                        const real *gate_up, int N, int F)
{
    DLS_PARALLEL((size_t)N * F)
    for (size_t n = 0; n < (size_t)N; n++) {
        const real *gate = gate_up + 2 * n * F, *up = gate + F, *d = dout + n * F;
        real *dgate = dgate_up + 2 * n * F, *dup = dgate + F;
        #pragma omp simd
        for (int f = 0; f < F; f++) {
            acc g = widen(gate[f]), u = widen(up[f]), dy = widen(d[f]);
            acc s = 1 / (1 + acc_exp(-g));
            dgate[f] = narrow(dy * u * (s + g * s * (1 - s)));
            dup[f] = narrow(dy * g * s);
        }
    }
}
