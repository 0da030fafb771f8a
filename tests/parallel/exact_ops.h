/* tests/parallel/exact_ops.h: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Functions over a few arrays, run by the stream as kernels are. */
#ifndef DLS_TESTS_PARALLEL_EXACT_OPS_H
#define DLS_TESTS_PARALLEL_EXACT_OPS_H

#include <math.h>

#include "kernels/attention.h"
#include "layers/internal.h"

/* define a whole number operation */
typedef struct exact_op {
    void (*fn)(const struct exact_op *);
    dls_dtype dtype;
    int rows, in, out;
    int first;                      // token of a band
    double scale;
    const int *ids;
    dls_attention_shape shape;
    void *a[7];
} exact_op;

/* On the stream; `o` is copied. */
dls_status exact_enqueue(dls_ctx *ctx, exact_op o, const char *name);

/* An operation. a: y, x (rows, in), cut off at `scale`. */
void exact_limit(const exact_op *o);

/* read and write whole numbers */
static inline double exact_get(const exact_op *o, int k, size_t i)
{
    return o->dtype == DLS_F64 ? ((double *)o->a[k])[i] : ((float *)o->a[k])[i];
}

static inline void exact_set(const exact_op *o, int k, size_t i, double x)
{
    if (o->dtype == DLS_F64)
        ((double *)o->a[k])[i] = x;
    else
        ((float *)o->a[k])[i] = (float)x;
}

static inline void exact_add(const exact_op *o, int k, size_t i, double x)
{
    exact_set(o, k, i, exact_get(o, k, i) + x);
}

/* cut off a number */
/* Half of x, rounded down, from -most to most. */
static inline double exact_cut(double x, double most)
{
    return fmax(-most, fmin(most, floor(x / 2)));
}

#endif
