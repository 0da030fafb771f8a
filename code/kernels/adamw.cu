/* code/kernels/adamw.cu: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* AdamW on the device, one thread per parameter. */
#include "kernels/adamw.h"

#include <math.h>

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/adamw_host.h"
#include "kernels/host_pair.h"

/* update parameters on the device */
template <typename real>
__global__ void adamw_kernel(real *p, const real *g, real *m, real *v, size_t n,
                             dls_adamw_rates r, const double *coef)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    real clip = coef != NULL ? real(*coef) : real(1);
    if (i >= n || clip == 0)
        return;
    real gradient = clip * g[i];
    real mean = real(r.beta1) * m[i] + real(r.rest1) * gradient;
    real square = real(r.beta2) * v[i] + real(r.rest2) * gradient * gradient;
    m[i] = mean;
    v[i] = square;
    real step = real(r.scale1) * mean
              / (sqrt(real(r.scale2) * square) + real(r.epsilon));
    p[i] -= real(r.lr) * (step + real(r.decay) * p[i]);
}

/* launch adamw */
template <typename real>
static dls_status adamw(dls_ctx *ctx, real *p, const real *g, real *m, real *v, size_t n,
                        dls_adamw_rates rates, const double *coef)
{
    if (n == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "adamw", 15.0 * n, 7.0 * n * sizeof(real));
    DLS_RUN_ON_HOST(ctx, dls_adamw, p, g, m, v, n, rates, coef);
    adamw_kernel<real>
        <<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(p, g, m, v, n, rates, coef);
    return dls_launched();
}

extern "C" dls_status dls_adamw(dls_ctx *ctx, void *p, const void *g, void *m, void *v,
                                size_t n, double lr, double beta1, double beta2,
                                double eps, double weight_decay, long step,
                                const double *coef)
{
    if (step < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "adamw: step %ld; steps count from 1", step);
    dls_adamw_rates rates = {beta1, 1 - beta1, beta2, 1 - beta2,
                             1 / (1 - pow(beta1, (double)step)),
                             1 / (1 - pow(beta2, (double)step)), lr, eps, weight_decay};
    return DLS_BY_TYPE(ctx, adamw(ctx, (real *)p, (const real *)g, (real *)m, (real *)v,
                                  n, rates, coef));
}
