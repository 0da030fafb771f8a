/* code/comm/reduce.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The arithmetic of reductions: into[i] = a[i] op b[i], by element type.
 * Integers wrap around on overflow instead of being undefined; a NaN in a minimum or
 * maximum stays one, since a lost NaN is a lost bug. 16-bit floats are combined in f32
 * and rounded once. */
#include "comm/comm_private.h"
#include "tensor/bf16.h"

/* define the combining loops */
#define LOOP(value)                    \
    _Pragma("GCC ivdep")               \
    for (size_t i = 0; i < n; i++)     \
        into[i] = (value);             \
    break

#define COMBINE(type, wrap, name)                                                     \
    static void combine_##name(type *into, const type *a, const type *b, size_t n,    \
                               dls_reduce op)                                         \
    {                                                                                 \
        switch (op) {                                                                 \
        case DLS_SUM:                                                                 \
        case DLS_AVG: LOOP((type)((wrap)a[i] + (wrap)b[i]));                          \
        case DLS_PROD: LOOP((type)((wrap)a[i] * (wrap)b[i]));                         \
        case DLS_MIN: LOOP(b[i] < a[i] || b[i] != b[i] ? b[i] : a[i]);                \
        case DLS_MAX: LOOP(b[i] > a[i] || b[i] != b[i] ? b[i] : a[i]);                \
        }                                                                             \
    }
COMBINE(float, float, f32)
COMBINE(double, double, f64)
COMBINE(int32_t, uint32_t, i32)
COMBINE(int64_t, uint64_t, i64)
COMBINE(uint8_t, uint32_t, u8)

/* combine 16 bit floats */
#define COMBINE_16(type, name, widen, narrow)                                          \
    static void combine_##name(type *into, const type *a, const type *b, size_t n,     \
                               dls_reduce op)                                          \
    {                                                                                  \
        for (size_t i = 0; i < n; i++) {                                               \
            float x = widen(a[i]), y = widen(b[i]);                                    \
            combine_f32(&x, &x, &y, 1, op);                                            \
            into[i] = narrow(x);                                                       \
        }                                                                              \
    }
COMBINE_16(dls_bfloat16, bf16, dls_widen_bf16, dls_narrow_bf16)
COMBINE_16(_Float16, f16, (float), (_Float16))

/* choose the loop by type */
size_t dls_comm_type_size(int dtype)
{
    switch (dtype) {
    case DLS_COMM_I32: return 4;
    case DLS_COMM_I64: return 8;
    case DLS_COMM_U8: return 1;
    case DLS_COMM_F16: return 2;
    }
    return dls_dtype_size((dls_dtype)dtype);
}

const char *dls_comm_type_name(int dtype)
{
    static const char *const names[] = {"i32", "i64", "u8", "f16"};
    return dtype >= DLS_COMM_I32 && dtype <= DLS_COMM_F16
               ? names[dtype - DLS_COMM_I32] : dls_dtype_name((dls_dtype)dtype);
}

void dls_comm_combine(void *into, const void *a, const void *b, size_t n, int dtype,
                      dls_reduce op)
{
    switch (dtype) {
    case DLS_F32: combine_f32(into, a, b, n, op); break;
    case DLS_F64: combine_f64(into, a, b, n, op); break;
    case DLS_BF16: combine_bf16(into, a, b, n, op); break;
    case DLS_COMM_F16: combine_f16(into, a, b, n, op); break;
    case DLS_COMM_I32: combine_i32(into, a, b, n, op); break;
    case DLS_COMM_I64: combine_i64(into, a, b, n, op); break;
    default: combine_u8(into, a, b, n, op); break;
    }
}

static void divide_one(void *data, size_t i, int dtype, int by)
{
    dls_bfloat16 *b = data;
    switch (dtype) {
    case DLS_F32: ((float *)data)[i] /= (float)by; break;
    case DLS_F64: ((double *)data)[i] /= by; break;
    case DLS_BF16: b[i] = dls_narrow_bf16(dls_widen_bf16(b[i]) / (float)by); break;
    case DLS_COMM_F16:
        ((_Float16 *)data)[i] = (_Float16)((float)((_Float16 *)data)[i] / (float)by);
        break;
    case DLS_COMM_I32: ((int32_t *)data)[i] /= by; break;
    case DLS_COMM_I64: ((int64_t *)data)[i] /= by; break;
    default: ((uint8_t *)data)[i] = (uint8_t)(((uint8_t *)data)[i] / by); break;
    }
}

void dls_comm_divide(void *data, size_t n, int dtype, int by)
{
    for (size_t i = 0; i < n; i++)
        divide_one(data, i, dtype, by);
}
