/* code/kernels/adamw_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* AdamW in plain C: one vectorised pass over the four arrays. */
#include <stddef.h>

#include "kernels/adamw.h"
#include "kernels/parallel.h"
#include "kernels/real_math.h"

#include "kernels/adamw_host.h"

/* update parameters on the host */
/* The new value of a weight, from `before`; m and v are updated. */
static inline acc step_one(acc before, acc gradient, acc *m, acc *v, const acc *r)
{
    *m = r[0] * *m + r[1] * gradient;
    *v = r[2] * *v + r[3] * gradient * gradient;
    acc step = r[4] * *m / (acc_sqrt(r[5] * *v) + r[6]);
    return before - r[7] * (step + r[8] * before);
}

void DLS_HOST_NAME(dls_adamw)(real *restrict p, acc *restrict master,
                              const acc *restrict g, acc *restrict m, acc *restrict v,
                              size_t n, dls_adamw_rates rates, const double *coef)
{
    const acc clip = coef ? (acc)*coef : 1;
    const acc r[] = {(acc)rates.beta1, (acc)rates.rest1, (acc)rates.beta2,
                     (acc)rates.rest2, (acc)rates.scale1, (acc)rates.scale2,
                     (acc)rates.epsilon, (acc)rates.lr, (acc)rates.decay};
    if (clip == 0)
        return;
    DLS_PARALLEL(n)
    for (size_t from = 0; from < n; from += DLS_BLOCK) {
        size_t to = dls_block_end(from, n), alone = master ? from : to;
        #pragma omp simd
        for (size_t i = from; i < alone; i++)
            p[i] = narrow(step_one(widen(p[i]), clip * g[i], m + i, v + i, r));
        #pragma omp simd
        for (size_t i = alone; i < to; i++) {
            master[i] = step_one(master[i], clip * g[i], m + i, v + i, r);
            p[i] = narrow(master[i]);
        }
    }
}
