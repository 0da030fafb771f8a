/* code/kernels/cache_host.c: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/* Appending rows to a cache in plain C. */
#include <stddef.h>
#include <string.h>

#include "kernels/real.h"

#include "kernels/cache_host.h"

/* append on the host */
void DLS_HOST_NAME(dls_cache_append)(real *cache, const real *rows, size_t row,
                                     const int *positions, int N, int T, int width,
                                     int length)
{
    for (int n = 0; n < N; n++)
        if (positions[n] >= 0 && positions[n] < length)
            memcpy(cache + ((size_t)(n / T) * length + positions[n]) * width,
                   rows + n * row, width * sizeof *cache);
}
