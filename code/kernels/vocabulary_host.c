/* code/kernels/vocabulary_host.c: from chapters/06-tensor-parallelism-vocabulary.md. Edit the chapter, or edit here and run "make untangle". */
/* The cut cross-entropy in plain C, row by row. */
#include "kernels/cross_entropy_row.h"
#include "kernels/parallel.h"

#include "kernels/vocabulary_host.h"

/* scan a band on the host */
void DLS_HOST_NAME(dls_vocabulary_scan)(acc *own, acc *most, acc *sum, acc *right,
                                        const real *logits, const int *targets, int first,
                                        int V, int whole, int N)
{
    DLS_PARALLEL((size_t)N * V)
    for (int n = 0; n < N; n++) {
        const real *row = logits + (size_t)n * V;
        running r = see_row(row, V);
        int at = targets[n] - first;
        own[n] = most[n] = r.largest;
        sum[n] = r.sum;
        right[n] = targets[n] >= whole      ? (acc)NAN
                   : at >= 0 && at < V ? widen(row[at]) : 0;
    }
}

void DLS_HOST_NAME(dls_vocabulary_rescale)(acc *sum, const acc *own, const acc *most,
                                           int N)
{
    for (int n = 0; n < N; n++)
        sum[n] *= acc_exp(own[n] - most[n]);
}

/* finish a band on the host */
void DLS_HOST_NAME(dls_vocabulary_finish)(acc *losses, real *logits, const acc *most,
                                          const acc *sum, const acc *right,
                                          const int *targets, int first, int V, acc scale,
                                          int N)
{
    DLS_PARALLEL((size_t)N * V)
    for (int n = 0; n < N; n++) {
        real *row = logits + (size_t)n * V;
        int target = targets[n], at = target - first;
        int hit = target < 0 ? -1 : at >= 0 && at < V ? at : V;
        losses[n] = target < 0 ? 0 : acc_log(sum[n]) + (most[n] - right[n]);
        push_row(row, row, most[n], 1 / sum[n], scale, hit, V, V);
    }
}
