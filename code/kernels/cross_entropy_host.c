/* code/kernels/cross_entropy_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax and cross-entropy in plain C, row by row. */
#include <stddef.h>
#include <string.h>

#include "kernels/real_math.h"

#include "kernels/cross_entropy_host.h"

/* take cross entropy on the host */
void DLS_HOST_NAME(dls_cross_entropy_forward)(acc *losses, acc *lse, const real *logits,
                                              const int *targets, int N, int V)
{
    for (int n = 0; n < N; n++) {
        const real *row = logits + (size_t)n * V;
        acc largest = widen(row[0]), sum = 0;
        #pragma omp simd reduction(max : largest)
        for (int v = 0; v < V; v++)
            largest = widen(row[v]) > largest ? widen(row[v]) : largest;
        #pragma omp simd reduction(+ : sum)
        for (int v = 0; v < V; v++)
            sum += acc_exp(widen(row[v]) - largest);
        acc log_sum = acc_log(sum);
        lse[n] = largest + log_sum;
        losses[n] = targets[n] < 0 ? 0
                    : targets[n] < V ? log_sum + (largest - widen(row[targets[n]]))
                                     : (acc)NAN;
    }
}

void DLS_HOST_NAME(dls_cross_entropy_backward)(real *dlogits, const real *logits,
                                               const acc *lse, const int *targets,
                                               acc scale, int N, int V)
{
    for (int n = 0; n < N; n++) {
        const real *row = logits + (size_t)n * V;
        const acc norm = lse[n];
        real *drow = dlogits + (size_t)n * V;
        if (targets[n] < 0) {
            memset(drow, 0, sizeof(real) * V);
            continue;
        }
        /* push the logits of a row */
        int known = targets[n] < V;
        acc right = known ? scale * (acc_exp(widen(row[targets[n]]) - norm) - 1) : 0;
        #pragma omp simd
        for (int v = 0; v < V; v++)
            drow[v] = narrow(scale * acc_exp(widen(row[v]) - norm));
        if (known)
            drow[targets[n]] = narrow(right);
    }
}
