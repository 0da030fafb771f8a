/* code/kernels/rows_host.c: from chapters/04-data-parallelism-ddp-rows.md. Edit the chapter, or edit here and run "make untangle". */
/* Moving rows in plain C. */
#include <stddef.h>
#include <string.h>

#include "kernels/real.h"

#include "kernels/rows_host.h"

/* move rows on the host */
void DLS_HOST_NAME(dls_rows_gather)(real *out, const real *x, const int *numbers, int n,
                                    int C)
{
    for (int k = 0; k < n; k++)
        memcpy(out + (size_t)k * C, x + (size_t)numbers[k] * C, (size_t)C * sizeof *x);
}

void DLS_HOST_NAME(dls_rows_scatter)(real *x, const real *from, const int *numbers, int n,
                                     int C)
{
    for (int k = 0; k < n; k++)
        memcpy(x + (size_t)numbers[k] * C, from + (size_t)k * C, (size_t)C * sizeof *x);
}

void DLS_HOST_NAME(dls_rows_put_outside)(real *x, const real *from,
                                         const unsigned char *kept, int V, int C)
{
    for (int k = 0; k < V; k++)
        if (!kept[k])
            memcpy(x + (size_t)k * C, from + (size_t)k * C, (size_t)C * sizeof *x);
}
