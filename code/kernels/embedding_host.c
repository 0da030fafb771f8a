/* code/kernels/embedding_host.c: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Embedding in plain C: rows in order, the channels vectorised. */
#include <stddef.h>
#include <string.h>

#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/embedding_host.h"

/* embed tokens on the host */
void DLS_HOST_NAME(dls_embedding_forward)(real *out, const int *tokens,
                                          const int *positions, const real *wte,
                                          const real *wpe, int B, int T, int C)
{
    DLS_PARALLEL((size_t)B * T * C)
    for (size_t n = 0; n < (size_t)B * T; n++) {
        const real *token = wte + (size_t)tokens[n] * C;
        if (!wpe) {
            memcpy(out + n * C, token, C * sizeof *out);
            continue;
        }
        const real *position = wpe + (positions ? (size_t)positions[n] : n % T) * C;
        #pragma omp simd
        for (int c = 0; c < C; c++)
            out[n * C + c] = narrow(widen(token[c]) + widen(position[c]));
    }
}

/* scatter the gradient on the host */
/* Into the columns from .. to - 1: one token may occur in many rows. */
static void scatter_columns(acc *dwte, acc *dwpe, const real *dout, const int *tokens,
                            int B, int T, int C, int from, int to)
{
    for (size_t n = 0; n < (size_t)B * T; n++) {
        acc *token = dwte + (size_t)tokens[n] * C;
        const real *row = dout + n * C;
        #pragma omp simd
        for (int c = from; c < to; c++)
            token[c] += widen(row[c]);
        if (!dwpe)
            continue;
        acc *position = dwpe + n % T * C;
        #pragma omp simd
        for (int c = from; c < to; c++)
            position[c] += widen(row[c]);
    }
}

void DLS_HOST_NAME(dls_embedding_backward)(acc *dwte, acc *dwpe, const real *dout,
                                           const int *tokens, int B, int T, int C)
{
    DLS_PARALLEL((size_t)B * T * C)
    for (int from = 0; from < C; from += DLS_COLUMNS)
        scatter_columns(dwte, dwpe, dout, tokens, B, T, C, from,
                        dls_columns_end(from, C));
}
