/* code/kernels/embedding_host.c: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Embedding in plain C: rows in order, the channels vectorised. */
#include <stddef.h>
#include <string.h>

#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/embedding_host.h"

/* embed tokens on the host */
/* out = a + b; NULL counts as zeros. (C) each */
static void add_rows(real *out, const real *a, const real *b, int C)
{
    if (!a || !b) {
        const real *one = a ? a : b;
        one ? memcpy(out, one, C * sizeof *out) : memset(out, 0, C * sizeof *out);
        return;
    }
    #pragma omp simd
    for (int c = 0; c < C; c++)
        out[c] = narrow(widen(a[c]) + widen(b[c]));
}

void DLS_HOST_NAME(dls_embedding_forward)(real *out, const int *tokens,
                                          const int *positions, const real *wte,
                                          const real *wpe, int B, int T, int C, int first,
                                          int V)
{
    DLS_PARALLEL((size_t)B * T * C)
    for (size_t n = 0; n < (size_t)B * T; n++) {
        size_t row = (unsigned)tokens[n] - (unsigned)first;
        size_t t = positions ? (size_t)positions[n] : n % T;
        add_rows(out + n * C, row < (size_t)V ? wte + row * C : NULL,
                 wpe ? wpe + t * C : NULL, C);
    }
}

/* scatter the gradient on the host */
/* Into the columns from .. to - 1: one token may occur in many rows. */
typedef struct columns { int from, to; } columns;

static void add_columns(acc *sum, const real *row, columns of)
{
    #pragma omp simd
    for (int c = of.from; c < of.to; c++)
        sum[c] += widen(row[c]);
}

static void scatter_columns(acc *dwte, acc *dwpe, const real *dout, const int *tokens,
                            const int *positions, int N, int T, int C, int first, int V,
                            columns of)
{
    for (size_t n = 0; n < (size_t)N; n++) {
        size_t row = (unsigned)tokens[n] - (unsigned)first;
        if (row < (size_t)V)
            add_columns(dwte + row * C, dout + n * C, of);
        if (dwpe)
            add_columns(dwpe + (positions ? (size_t)positions[n] : n % T) * C,
                        dout + n * C, of);
    }
}

void DLS_HOST_NAME(dls_embedding_backward)(acc *dwte, acc *dwpe, const real *dout,
                                           const int *tokens, const int *positions,
                                           int B, int T, int C, int first, int V)
{
    DLS_PARALLEL((size_t)B * T * C)
    for (int from = 0; from < C; from += DLS_COLUMNS)
        scatter_columns(dwte, dwpe, dout, tokens, positions, B * T, T, C, first, V,
                        (columns){from, dls_columns_end(from, C)});
}
