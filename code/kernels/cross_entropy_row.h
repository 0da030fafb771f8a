/* code/kernels/cross_entropy_row.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* The two passes of a host kernel over a row of logits. */
#ifndef DLS_KERNELS_CROSS_ENTROPY_ROW_H
#define DLS_KERNELS_CROSS_ENTROPY_ROW_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/real_math.h"

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
    return (running){largest, sum};
}

/* The row's, where it has a softmax at all; else the sum is NaN. */
static inline running judge(running r)
{
    return (running){r.largest, isfinite(r.largest) ? r.sum : (acc)NAN};
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

#endif
