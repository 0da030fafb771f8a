/* code/kernels/cross_entropy_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Softmax and cross-entropy in plain C, row by row, each row in chunks. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/parallel.h"
#include "kernels/real_math.h"

#include "kernels/cross_entropy_host.h"

enum { CHUNK = 1024 };

/* see a row on the host */
/* Of a row: the largest logit, and the sum of exp(logit - largest). */
typedef struct running {
    acc largest, sum;
} running;

static running see_row(const real *row, int V)
{
    acc largest = -INFINITY, sum = 0;
    for (int from = 0; from < V; from += CHUNK) {
        int n = V - from < CHUNK ? V - from : CHUNK;
        const real *z = row + from;
        acc most = largest, part = 0;
        #pragma omp simd reduction(max : most)
        for (int v = 0; v < n; v++)
            most = widen(z[v]) > most ? widen(z[v]) : most;
        acc shift = most == -(acc)INFINITY ? 0 : most;
        #pragma omp simd reduction(+ : part)
        for (int v = 0; v < n; v++)
            part += acc_exp(widen(z[v]) - shift);
        sum = sum * acc_exp(largest - shift) + part;
        largest = most;
    }
    return (running){largest, isfinite(largest) ? sum : (acc)NAN};
}

/* push a row on the host */
/* to[v] = scale * (factor * exp(from[v] - shift) - [v == target]), 0 without a target. */
static void push_row(real *to, const real *from, acc shift, acc factor, acc scale,
                     int target, int V, int row)
{
    int used = target < 0 ? 0 : V, known = target >= 0 && target < V;
    acc right = known ? scale * (factor * acc_exp(widen(from[target]) - shift) - 1) : 0;
    #pragma omp simd
    for (int v = 0; v < used; v++)
        to[v] = narrow(scale * (factor * acc_exp(widen(from[v]) - shift)));
    if (known)
        to[target] = narrow(right);
    memset(to + used, 0, sizeof *to * (size_t)(row - used));
}

static acc loss_of(running r, const real *row, int target, int V)
{
    return target < 0 ? 0
           : target < V ? acc_log(r.sum) + (r.largest - widen(row[target])) : (acc)NAN;
}

/* take cross entropy on the host */
void DLS_HOST_NAME(dls_cross_entropy)(acc *losses, real *logits, const int *targets,
                                      acc scale, int N, int V, int row)
{
    DLS_PARALLEL((size_t)N * V)
    for (int n = 0; n < N; n++) {
        real *z = logits + (size_t)n * row;
        running r = see_row(z, V);
        losses[n] = loss_of(r, z, targets[n], V);
        push_row(z, z, r.largest, 1 / r.sum, scale, targets[n], V, row);
    }
}

void DLS_HOST_NAME(dls_cross_entropy_forward)(acc *losses, acc *lse, const real *logits,
                                              const int *targets, int N, int V, int row)
{
    DLS_PARALLEL((size_t)N * V)
    for (int n = 0; n < N; n++) {
        running r = see_row(logits + (size_t)n * row, V);
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
