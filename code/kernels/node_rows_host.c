/* code/kernels/node_rows_host.c: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Sums of rows in plain C. */
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/node_rows_host.h"

void DLS_HOST_NAME(dls_node_sum)(real *y, const real *x, const int *place,
                                 const acc *weight, int n, int width, int C)
{
    DLS_PARALLEL((size_t)n * width * C)
    for (int i = 0; i < n; i++) {
        const int *at = place + (size_t)i * width;
        for (int c = 0; c < C; c++) {
            acc sum = 0;
            for (int j = 0; j < width; j++)
                if (at[j] >= 0)
                    sum += (weight ? weight[at[j]] : (acc)1) *
                           widen(x[(size_t)at[j] * C + c]);
            y[(size_t)i * C + c] = narrow(sum);
        }
    }
}
