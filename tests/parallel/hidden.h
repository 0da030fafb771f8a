/* tests/parallel/hidden.h: from chapters/08-dualpipe-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* What part of one stream's operations runs beside those of another. */
#ifndef DLS_TESTS_PARALLEL_HIDDEN_H
#define DLS_TESTS_PARALLEL_HIDDEN_H

#include "vgpu/trace.h"

typedef struct share { double all, hidden; } share;     /* s */

/* Spans by number, as dls_trace_span_at and dls_trace_count have them. */
typedef struct timeline { const dls_trace_span *(*at)(int i); int n; } timeline;

/* add up what is hidden */
/* The part of a span that kernels of the compute stream cover. */
static inline double covered(const timeline *t, const dls_trace_span *a, int compute)
{
    double sum = 0;
    for (int i = 0; i < t->n; i++) {
        const dls_trace_span *k = t->at(i);
        double from = k->start > a->start ? k->start : a->start;
        double to = k->finish < a->finish ? k->finish : a->finish;
        if (k->stream == compute && k->kind == DLS_GPU_COMPUTE && to > from)
            sum += to - from;
    }
    return sum;
}

/* Of the operations of stream `exchange` that start in [from, to). */
static inline share share_of(const timeline *t, int exchange, int compute, double from,
                             double to)
{
    share s = {0};
    for (int i = 0; i < t->n; i++) {
        const dls_trace_span *a = t->at(i);
        if (a->stream != exchange || a->start < from || a->start >= to)
            continue;
        s.all += a->finish - a->start;
        s.hidden += covered(t, a, compute);
    }
    return s;
}

#endif
