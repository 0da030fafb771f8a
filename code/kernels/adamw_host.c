/* code/kernels/adamw_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* AdamW in plain C: one vectorised pass over the four arrays. */
#include <stddef.h>

#include "kernels/adamw.h"
#include "kernels/real_math.h"

#include "kernels/adamw_host.h"

/* update parameters on the host */
void DLS_HOST_NAME(dls_adamw)(real *restrict p, const real *restrict g, real *restrict m,
                              real *restrict v, size_t n, dls_adamw_rates rates,
                              const double *coef)
{
    const real clip = coef ? (real)*coef : 1;
    const real beta1 = (real)rates.beta1, rest1 = (real)rates.rest1;
    const real beta2 = (real)rates.beta2, rest2 = (real)rates.rest2;
    const real scale1 = (real)rates.scale1, scale2 = (real)rates.scale2;
    const real lr = (real)rates.lr, epsilon = (real)rates.epsilon;
    const real decay = (real)rates.decay;
    if (clip == 0)
        return;
    #pragma omp simd
    for (size_t i = 0; i < n; i++) {
        real gradient = clip * g[i];
        m[i] = beta1 * m[i] + rest1 * gradient;
        v[i] = beta2 * v[i] + rest2 * gradient * gradient;
        real step = scale1 * m[i] / (real_sqrt(scale2 * v[i]) + epsilon);
        p[i] -= lr * (step + decay * p[i]);
    }
}
