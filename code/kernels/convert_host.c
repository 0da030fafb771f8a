/* code/kernels/convert_host.c: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Between a type and its accumulator's, in plain C. */
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/convert_host.h"

void DLS_HOST_NAME(dls_to_narrow)(real *out, const acc *in, size_t n, int add)
{
    #pragma omp simd
    for (size_t i = 0; i < n; i++)
        out[i] = narrow(add ? widen(out[i]) + in[i] : in[i]);
}

void DLS_HOST_NAME(dls_to_wide)(acc *out, const real *in, size_t n)
{
    #pragma omp simd
    for (size_t i = 0; i < n; i++)
        out[i] = widen(in[i]);
}
