/* code/comm/reduce.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The arithmetic of reductions: into[i] = into[i] op from[i], by element type.
 * Integers wrap around on overflow instead of being undefined; a NaN in a minimum or
 * maximum stays one, since a lost NaN is a lost bug. */
#include "comm/comm_private.h"
#include "tensor/bf16.h"

/* define the combining loops */
#define COMBINE(type, sum_type, name)                                             \
    static void combine_##name(type *restrict a, const type *restrict b, size_t n, \
                               dls_reduce op)                                     \
    {                                                                             \
        switch (op) {                                                             \
        case DLS_SUM:                                                             \
        case DLS_AVG:                                                             \
            for (size_t i = 0; i < n; i++)                                        \
                a[i] = (type)((sum_type)a[i] + (sum_type)b[i]);                   \
            break;                                                                \
        case DLS_MIN:                                                             \
            for (size_t i = 0; i < n; i++)                                        \
                a[i] = b[i] < a[i] || b[i] != b[i] ? b[i] : a[i];                 \
            break;                                                                \
        case DLS_MAX:                                                             \
            for (size_t i = 0; i < n; i++)                                        \
                a[i] = b[i] > a[i] || b[i] != b[i] ? b[i] : a[i];                 \
            break;                                                                \
        }                                                                         \
    }
COMBINE(float, float, f32)
COMBINE(double, double, f64)
COMBINE(int32_t, uint32_t, i32)

static void combine_bf16(dls_bfloat16 *a, const dls_bfloat16 *b, size_t n, dls_reduce op)
{
    for (size_t i = 0; i < n; i++) {
        float x = dls_widen_bf16(a[i]), y = dls_widen_bf16(b[i]);
        combine_f32(&x, &y, 1, op);
        a[i] = dls_narrow_bf16(x);
    }
}

/* choose the loop by type */
size_t dls_comm_type_size(int dtype)
{
    return dtype == DLS_COMM_I32 ? sizeof(int32_t) : dls_dtype_size((dls_dtype)dtype);
}

const char *dls_comm_type_name(int dtype)
{
    return dtype == DLS_COMM_I32 ? "i32" : dls_dtype_name((dls_dtype)dtype);
}

void dls_comm_combine(void *into, const void *from, size_t n, int dtype, dls_reduce op)
{
    switch (dtype) {
    case DLS_F32: combine_f32(into, from, n, op); break;
    case DLS_F64: combine_f64(into, from, n, op); break;
    case DLS_BF16: combine_bf16(into, from, n, op); break;
    default: combine_i32(into, from, n, op); break;
    }
}

void dls_comm_divide(void *data, size_t n, int dtype, int by)
{
    for (size_t i = 0; i < n; i++) {
        if (dtype == DLS_F32)
            ((float *)data)[i] /= (float)by;
        else if (dtype == DLS_F64)
            ((double *)data)[i] /= by;
        else if (dtype == DLS_BF16)
            ((dls_bfloat16 *)data)[i] =
                dls_narrow_bf16(dls_widen_bf16(((dls_bfloat16 *)data)[i]) / (float)by);
        else
            ((int32_t *)data)[i] /= by; // towards zero
    }
}
