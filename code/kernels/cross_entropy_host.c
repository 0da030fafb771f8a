/* code/kernels/cross_entropy_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax and cross-entropy in plain C, row by row. */
#include <stddef.h>
#include <string.h>

#include "kernels/real_math.h"

#include "kernels/cross_entropy_host.h"

/* take cross entropy on the host */
void DLS_HOST_NAME(dls_cross_entropy_forward)(real *losses, real *lse, const real *logits,
                                              const int *targets, int N, int V)
{
    for (int n = 0; n < N; n++) {
        const real *row = logits + (size_t)n * V;
        real largest = row[0], sum = 0;
        #pragma omp simd reduction(max : largest)
        for (int v = 0; v < V; v++)
            largest = row[v] > largest ? row[v] : largest;
        #pragma omp simd reduction(+ : sum)
        for (int v = 0; v < V; v++)
            sum += real_exp(row[v] - largest);
        real log_sum = real_log(sum);
        lse[n] = largest + log_sum;
        losses[n] = targets[n] < 0 ? 0
                    : targets[n] < V ? log_sum + (largest - row[targets[n]]) : (real)NAN;
    }
}

void DLS_HOST_NAME(dls_cross_entropy_backward)(real *dlogits, const real *logits,
                                               const real *lse, const int *targets,
                                               real scale, int N, int V)
{
    for (int n = 0; n < N; n++) {
        const real *row = logits + (size_t)n * V, norm = lse[n];
        real *drow = dlogits + (size_t)n * V;
        if (targets[n] < 0) {
            memset(drow, 0, sizeof(real) * V);
            continue;
        }
        /* push the logits of a row */
        int known = targets[n] < V;
        real right = known ? scale * (real_exp(row[targets[n]] - norm) - 1) : 0;
        #pragma omp simd
        for (int v = 0; v < V; v++)
            drow[v] = scale * real_exp(row[v] - norm);
        if (known)
            drow[targets[n]] = right;
    }
}
