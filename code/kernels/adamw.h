/* code/kernels/adamw.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* One step of AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019). */
#ifndef DLS_KERNELS_ADAMW_H
#define DLS_KERNELS_ADAMW_H

#include <stddef.h>

#include "base/status.h"
#include "tensor/tensor.h"

/* collect the rates of a step */
/* What the kernel needs to know of a step, made from the options by dls_adamw. */
typedef struct dls_adamw_rates {
    double beta1, rest1;  /* rest = 1 - beta */
    double beta2, rest2;
    double scale1, scale2;  /* 1 / (1 - beta^step) */
    double lr, epsilon, decay;
} dls_adamw_rates;

typedef struct dls_adamw_options {
    double beta1, beta2, epsilon;
    double weight_decay;  // lambda, for parameters with the decay flag
    double clip;          // largest gradient norm; 0: no clipping
} dls_adamw_options;

#ifdef __cplusplus
extern "C" {
#endif

/* declare adamw */
/* Updates master, m and v in place, and p = master rounded to its type. master may be
 * NULL: p then is its own master, as it should be in f32 and f64. step counts from 1.
 * coef is a number on the device that multiplies g; NULL stands for 1, and if it is 0
 * nothing is changed. */
dls_status dls_adamw(dls_ctx *ctx,
                     void *p,        // (n)
                     void *master,   // (n) acc, or NULL
                     const void *g,  // (n) acc
                     void *m,        // (n) acc
                     void *v,        // (n) acc
                     size_t n, double lr, double beta1, double beta2, double eps,
                     double weight_decay, long step, const double *coef);

/* The rates of a step but for lr, epsilon and decay; and a step with rates that differ
 * from a step of Adam's, such as 1-bit Adam's, which keeps v. */
dls_adamw_rates dls_adamw_rates_at(double beta1, double beta2, long step);
dls_status dls_adamw_with(dls_ctx *ctx, void *p, void *master, const void *g, void *m,
                          void *v, size_t n, const dls_adamw_rates *rates,
                          const double *coef);

#ifdef __cplusplus
}
#endif
#endif
