/* code/kernels/cross_entropy_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax and cross-entropy in plain C, row by row, each row in chunks. */
#include "kernels/cross_entropy_row.h"
#include "kernels/parallel.h"

#include "kernels/cross_entropy_host.h"

/* take cross entropy on the host */
static acc loss_of(running r, const real *row, int target, int V)
{
    return target < 0 ? 0
           : target < V ? acc_log(r.sum) + (r.largest - widen(row[target])) : (acc)NAN;
}

void DLS_HOST_NAME(dls_cross_entropy)(acc *losses, real *logits, const int *targets,
                                      acc scale, int N, int V, int row)
{
    DLS_PARALLEL((size_t)N * V)
    for (int n = 0; n < N; n++) {
        real *z = logits + (size_t)n * row;
        running r = judge(see_row(z, V));
        losses[n] = loss_of(r, z, targets[n], V);
        push_row(z, z, r.largest, 1 / r.sum, scale, targets[n], V, row);
    }
}

void DLS_HOST_NAME(dls_cross_entropy_forward)(acc *losses, acc *lse, const real *logits,
                                              const int *targets, int N, int V, int row)
{
    DLS_PARALLEL((size_t)N * V)
    for (int n = 0; n < N; n++) {
        running r = judge(see_row(logits + (size_t)n * row, V));
        lse[n] = r.largest + acc_log(r.sum);
        losses[n] = loss_of(r, logits + (size_t)n * row, targets[n], V);
    }
}

void DLS_HOST_NAME(dls_cross_entropy_backward)(real *dlogits, const real *logits,
                                               const acc *lse, const int *targets,
                                               acc scale, int N, int V, int row)
{
    DLS_PARALLEL((size_t)N * V)
    for (int n = 0; n < N; n++)
        push_row(dlogits + (size_t)n * row, logits + (size_t)n * row, lse[n], 1, scale,
                 targets[n], V, row);
}
