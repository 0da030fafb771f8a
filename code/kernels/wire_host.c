/* code/kernels/wire_host.c: from chapters/04-data-parallelism-hooks.md. Edit the chapter, or edit here and run "make untangle". */
/* Conversions for the wire in plain C. */
#include <stddef.h>

#include "kernels/parallel.h"
#include "kernels/real.h"
#include "kernels/wire.h"
#include "tensor/bf16.h"

#include "kernels/wire_host.h"

/* convert on the host */
#define EACH(statement)                                             \
    DLS_PARALLEL(n)                                                 \
    for (size_t from = 0; from < n; from += DLS_BLOCK)              \
        for (size_t i = from, to = dls_block_end(from, n); i < to; i++) \
            statement

void DLS_HOST_NAME(dls_to_wire)(void *out, int type, const real *in, size_t n,
                                double scale)
{
    const float s = (float)scale;
    if (type == DLS_WIRE_BF16)
        EACH(((dls_bfloat16 *)out)[i] = dls_narrow_bf16(s * (float)widen(in[i]));)
    else if (type == DLS_WIRE_F16)
        EACH(((_Float16 *)out)[i] = (_Float16)(s * (float)widen(in[i]));)
    else if (type == DLS_WIRE_F32)
        EACH(((float *)out)[i] = (float)(scale * widen(in[i]));)
    else
        EACH(((double *)out)[i] = scale * widen(in[i]);)
}

void DLS_HOST_NAME(dls_from_wire)(real *out, const void *in, int type, size_t n,
                                  double scale)
{
    const float s = (float)scale;
    if (type == DLS_WIRE_BF16)
        EACH(out[i] = narrow((acc)(s * dls_widen_bf16(((dls_bfloat16 *)in)[i])));)
    else if (type == DLS_WIRE_F16)
        EACH(out[i] = narrow((acc)(s * (float)((_Float16 *)in)[i]));)
    else if (type == DLS_WIRE_F32)
        EACH(out[i] = narrow((acc)(scale * ((float *)in)[i]));)
    else
        EACH(out[i] = narrow((acc)(scale * ((double *)in)[i]));)
}
