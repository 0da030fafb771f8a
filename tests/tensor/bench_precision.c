/* tests/tensor/bench_precision.c: from chapters/02-numerics.md. Edit the chapter, or edit here and run "make untangle". */
/* What rounding the factors costs an inner product, and what adding up in a format does:
 * as shares of sum |a||b|, the worst of 200 random products, beside the bounds. */
#include <math.h>
#include <stdio.h>

#include "base/rng.h"
#include "tensor/tolerance.h"

/* measure two kinds of rounding */
struct errors {
    double inputs, sum;  // the worst so far
};

static void measure(const dls_precision *input, const dls_precision *accumulator, int K,
                    unsigned trial, struct errors *worst)
{
    double exact = 0, rounded = 0, size = 0, sum = 0;
    for (int l = 0; l < K; l++) {
        double a = 2 * dls_rng_uniform(3, trial, 2 * (unsigned)l) - 1;
        double b = 2 * dls_rng_uniform(3, trial, 2 * (unsigned)l + 1) - 1;
        double x = dls_precision_round(input, a), y = dls_precision_round(input, b);
        exact += a * b;
        rounded += x * y;
        size += fabs(x * y);
        sum = dls_precision_round(accumulator,
                                  sum + dls_precision_round(accumulator, x * y));
    }
    worst->inputs = fmax(worst->inputs, fabs(rounded - exact) / size);
    worst->sum = fmax(worst->sum, fabs(sum - rounded) / size);
}

/* print two kinds of rounding */
int main(void)
{
    static const dls_precision *const pairs[][2] = {
        {&dls_f32, &dls_f32}, {&dls_tf32, &dls_f32},  {&dls_bf16, &dls_f32},
        {&dls_f16, &dls_f16}, {&dls_bf16, &dls_bf16}, {&dls_e4m3, &dls_f32}};
    printf("factors sum      K  inputs: bound   worst     sum: bound   worst\n");
    for (int p = 0; p < 6; p++)
        for (int K = 64; K <= 4096; K *= 8) {
            const dls_precision *input = pairs[p][0], *accumulator = pairs[p][1];
            dls_dot dot = {.terms = K, .input = input, .accumulator = accumulator};
            struct errors worst = {0, 0};
            for (unsigned trial = 0; trial < 200; trial++)
                measure(input, accumulator, K, trial, &worst);
            printf("%-7s %-5s %4d %14.1e %7.1e %14.1e %7.1e\n", input->name,
                   accumulator->name, K, 2 * dls_precision_unit(input), worst.inputs,
                   dls_dot_bound(&dot, 1), worst.sum);
        }
    return 0;
}
