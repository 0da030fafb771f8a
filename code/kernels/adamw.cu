/* code/kernels/adamw.cu: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* AdamW on the device, one thread per pack of parameters. */
#include "kernels/adamw.h"

#include <math.h>

#include "kernels/launch.cuh"
#include "kernels/pack.cuh"

#define DLS_HOST_HEADER "kernels/adamw_host.h"
#include "kernels/host_pair.h"

/* update parameters on the device */
/* The new value of a weight, from `before`; its moments are updated. */
template <typename acc>
__device__ inline acc step_one(acc before, acc gradient, acc &mean, acc &square,
                               const dls_adamw_rates &r)
{
    mean = acc(r.beta1) * mean + acc(r.rest1) * gradient;
    square = acc(r.beta2) * square + acc(r.rest2) * gradient * gradient;
    acc step = acc(r.scale1) * mean / (sqrt(acc(r.scale2) * square) + acc(r.epsilon));
    return before - acc(r.lr) * (step + acc(r.decay) * before);
}

template <int width, typename real, typename acc = dls_acc<real>>
__global__ void adamw_kernel(real *p, acc *master, const acc *g, acc *m, acc *v,
                             size_t n, dls_adamw_rates r, const double *coef)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    acc clip = coef != NULL ? acc(*coef) : acc(1);
    if (i >= n || clip == 0)
        return;
    dls_pack<acc, width> weight, gradient = dls_load<width>(g + i);
    dls_pack<acc, width> mean = dls_load<width>(m + i), square = dls_load<width>(v + i);
    dls_pack<real, width> value;
    /* read the weights of a pack */
    if (master != NULL) {
        weight = dls_load<width>(master + i);
    } else {
        value = dls_load<width>(p + i);
        for (int j = 0; j < width; j++)
            weight.at[j] = acc(value.at[j]);
    }
    for (int j = 0; j < width; j++) {
        weight.at[j] = step_one(weight.at[j], clip * gradient.at[j], mean.at[j],
                                square.at[j], r);
        value.at[j] = real(weight.at[j]);
    }
    dls_store(m + i, mean);
    dls_store(v + i, square);
    dls_store(p + i, value);
    if (master != NULL)
        dls_store(master + i, weight);
}

/* launch adamw */
template <typename real, typename acc = dls_acc<real>>
static dls_status adamw(dls_ctx *ctx, real *p, acc *master, const acc *g, acc *m, acc *v,
                        size_t n, dls_adamw_rates rates, const double *coef)
{
    if (n == 0)
        return DLS_OK;
    double weights = master != NULL ? sizeof(real) + 2 * sizeof(acc) : 2 * sizeof(real);
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "adamw", 15.0 * n,
                    (weights + 5.0 * sizeof(acc)) * n);
    DLS_RUN_ON_HOST(ctx, dls_adamw, p, master, g, m, v, n, rates, coef);
    DLS_BY_WIDTH(dls_width<acc>, dls_packs(dls_width<acc>, n, p, master, g, m, v),
                 adamw_kernel<width, real>
                     <<<dls_blocks(n, 256 * width), 256, 0, ctx->stream>>>(
                         p, master, g, m, v, n, rates, coef));
    return dls_launched();
}

extern "C" dls_adamw_rates dls_adamw_rates_at(double beta1, double beta2, long step)
{
    return (dls_adamw_rates){beta1, 1 - beta1, beta2, 1 - beta2,
                             1 / (1 - pow(beta1, (double)step)),
                             1 / (1 - pow(beta2, (double)step)), 0, 0, 0};
}

extern "C" dls_status dls_adamw_with(dls_ctx *ctx, void *p, void *master, const void *g,
                                     void *m, void *v, size_t n,
                                     const dls_adamw_rates *rates, const double *coef)
{
    return DLS_BY_TYPE(ctx, adamw(ctx, (real *)p, (acc *)master, (const acc *)g, (acc *)m,
                                  (acc *)v, n, *rates, coef));
}

extern "C" dls_status dls_adamw(dls_ctx *ctx, void *p, void *master, const void *g,
                                void *m, void *v, size_t n, double lr, double beta1,
                                double beta2, double eps, double weight_decay, long step,
                                const double *coef)
{
    if (step < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "adamw: step %ld; steps count from 1", step);
    dls_adamw_rates rates = dls_adamw_rates_at(beta1, beta2, step);
    rates.lr = lr;
    rates.epsilon = eps;
    rates.decay = weight_decay;
    return dls_adamw_with(ctx, p, master, g, m, v, n, &rates, coef);
}
