/* code/kernels/residual_norm_host.c: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Residual addition and norm in plain C; a row stays in the first-level cache. */
#include <stddef.h>

#include "kernels/dropout_mask.h"
#include "kernels/parallel.h"
#include "kernels/real_math.h"
#include "kernels/residual_norm.h"

#include "kernels/residual_norm_host.h"

/* go through a row under its mask */
/* to = x + f where kept, f scaled; without x, to = f. */
static inline __attribute__((always_inline))
void add_under_mask(real *to, const real *x, const real *f, int C, uint64_t start,
                    const dls_dropout_gate *gate)
{
    const acc scale = (acc)gate->scale;
    unsigned char keep[64];
    for (int base = -(int)(start % 4); base < C; base += 64) {
        int begin = base < 0 ? 0 : base, end = C - base < 64 ? C : base + 64;
        dls_dropout_keeps64(gate, (start + (uint64_t)base) / 4, keep);
        #pragma omp simd
        for (int c = begin; c < end; c++) {
            acc kept = keep[c - base] ? scale * widen(f[c]) : 0;
            to[c] = narrow(x ? widen(x[c]) + kept : kept);
        }
    }
}

static void add_row(real *to, const real *x, const real *f, int C)
{
    #pragma omp simd
    for (int c = 0; c < C; c++)
        to[c] = narrow(widen(x[c]) + widen(f[c]));
}

/* normalise the sum on the host */
static acc mean_of(const real *h, int C)
{
    acc sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int c = 0; c < C; c++)
        sum += widen(h[c]);
    return sum / C;
}

static acc rstd_of(const real *h, acc m, int C, acc epsilon)
{
    acc squares = 0;
    #pragma omp simd reduction(+ : squares)
    for (int c = 0; c < C; c++)
        squares += (widen(h[c]) - m) * (widen(h[c]) - m);
    return 1 / acc_sqrt(squares / C + epsilon);
}

void DLS_HOST_NAME(dls_residual_norm_forward)(real *h, real *out, acc *mean, acc *rstd,
                                              const real *x, const real *f,
                                              const real *weight, const real *bias,
                                              dls_residual_plan s)
{
    DLS_PARALLEL((size_t)s.N * s.C)
    for (size_t n = 0; n < (size_t)s.N; n++) {
        real *row = h + n * s.C, *y = out + n * s.C;
        const real *stream = x + n * s.C, *branch = f + n * s.C;
        if (s.dropped)
            add_under_mask(row, stream, branch, s.C, s.first + n * s.row, &s.gate);
        else
            add_row(row, stream, branch, s.C);
        acc m = s.centred ? mean_of(row, s.C) : 0;
        acc r = rstd[n] = rstd_of(row, m, s.C, (acc)s.epsilon);
        #pragma omp simd
        for (int c = 0; c < s.C; c++)
            y[c] = narrow((widen(row[c]) - m) * r * widen(weight[c])
                          + (s.centred ? widen(bias[c]) : 0));
        if (s.centred)
            mean[n] = m;
    }
}

/* pass the gradient on the host */
void DLS_HOST_NAME(dls_residual_norm_backward)(real *dx, real *df, const real *dstream,
                                               const real *dout, const real *h,
                                               const real *weight, const acc *mean,
                                               const acc *rstd, dls_residual_plan s)
{
    DLS_PARALLEL((size_t)s.N * s.C)
    for (size_t n = 0; n < (size_t)s.N; n++) {
        const size_t at = n * s.C;
        const real *row = h + at, *drow = dout + at, *before = dstream + at;
        real *to = dx + at;
        acc m = s.centred ? mean[n] : 0, r = rstd[n], sum = 0, product = 0;
        #pragma omp simd reduction(+ : sum, product)
        for (int c = 0; c < s.C; c++) {
            acc g = widen(drow[c]) * widen(weight[c]);
            sum += g;
            product += g * (widen(row[c]) - m) * r;
        }
        sum = s.centred ? sum / s.C : 0;
        product /= s.C;
        #pragma omp simd
        for (int c = 0; c < s.C; c++) {
            acc g = widen(drow[c]) * widen(weight[c]), xhat = (widen(row[c]) - m) * r;
            to[c] = narrow(widen(before[c]) + r * (g - sum - xhat * product));
        }
        if (s.dropped)
            add_under_mask(df + at, NULL, to, s.C, s.first + n * s.row, &s.gate);
    }
}
