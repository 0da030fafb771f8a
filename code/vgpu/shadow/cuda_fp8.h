/* code/vgpu/shadow/cuda_fp8.h: from chapters/A-virtual-gpu-numbers.md. Edit the chapter, or edit here and run "make untangle". */
/* __nv_fp8_e4m3 and __nv_fp8_e5m2: storage with conversions, as in CUDA. A NaN becomes
 * 0x7f whatever its sign, which is what the conversion instruction gives. */
#ifndef DLS_SHADOW_CUDA_FP8_H
#define DLS_SHADOW_CUDA_FP8_H

#include "cuda_bf16.h"
#include "cuda_fp16.h"

typedef unsigned char __nv_fp8_storage_t;
typedef unsigned short __nv_fp8x2_storage_t;
typedef enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE } __nv_saturation_t;
typedef enum __nv_fp8_interpretation_t {
    __NV_E4M3, __NV_E5M2
} __nv_fp8_interpretation_t;

/* convert to fp8 */
static inline dls_format dls_fp8_format(__nv_fp8_interpretation_t kind)
{
    return kind == __NV_E4M3 ? DLS_FORMAT_E4M3 : DLS_FORMAT_E5M2;
}

static inline __nv_fp8_storage_t __nv_cvt_double_to_fp8(
    double x, __nv_saturation_t saturate, __nv_fp8_interpretation_t kind)
{
    dls_format f = dls_fp8_format(kind);
    unsigned code = dls_encode(x, f, DLS_ROUND_NEAREST);
    if (saturate == __NV_SATFINITE && x == x && (code & 0x7f) > f.largest)
        code = (code & 0x80) | f.largest;
    return (__nv_fp8_storage_t)code;
}
static inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(
    float x, __nv_saturation_t saturate, __nv_fp8_interpretation_t kind)
{
    return __nv_cvt_double_to_fp8(x, saturate, kind);
}
static inline __nv_fp8_storage_t __nv_cvt_bfloat16raw_to_fp8(
    __nv_bfloat16_raw x, __nv_saturation_t saturate, __nv_fp8_interpretation_t kind)
{
    return __nv_cvt_double_to_fp8(dls_decode(x.x, DLS_FORMAT_BF16), saturate, kind);
}
static inline __nv_fp8_storage_t __nv_cvt_halfraw_to_fp8(
    __half_raw x, __nv_saturation_t saturate, __nv_fp8_interpretation_t kind)
{
    return __nv_cvt_double_to_fp8(dls_decode(x.x, DLS_FORMAT_FP16), saturate, kind);
}
static inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(
    float2 x, __nv_saturation_t saturate, __nv_fp8_interpretation_t kind)
{
    unsigned low = __nv_cvt_float_to_fp8(x.x, saturate, kind);
    unsigned high = __nv_cvt_float_to_fp8(x.y, saturate, kind);
    return (__nv_fp8x2_storage_t)(low | high << 8);
}

/* convert from fp8 */
static inline __half_raw __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t x,
                                                 __nv_fp8_interpretation_t kind)
{
    double value = dls_decode(x, dls_fp8_format(kind));
    unsigned bits = dls_encode(value, DLS_FORMAT_FP16, DLS_ROUND_NEAREST);
    __half_raw raw = {(unsigned short)bits};
    return raw;
}

#ifdef __cplusplus
/* define the fp8 types */
template <__nv_fp8_interpretation_t K> struct dls_fp8 {
    __nv_fp8_storage_t __x;

    dls_fp8() = default;
    explicit dls_fp8(float a) : __x(__nv_cvt_float_to_fp8(a, __NV_SATFINITE, K)) {}
    explicit dls_fp8(double a) : __x(__nv_cvt_double_to_fp8(a, __NV_SATFINITE, K)) {}
    explicit dls_fp8(int a) : dls_fp8((double)a) {}
    explicit dls_fp8(__half a) : dls_fp8((float)a) {}
    explicit dls_fp8(__nv_bfloat16 a) : dls_fp8((float)a) {}
    explicit operator float() const { return dls_decode(__x, dls_fp8_format(K)); }
    explicit operator double() const { return (float)*this; }
    explicit operator __half() const { return __half((float)*this); }
    explicit operator __nv_bfloat16() const { return __nv_bfloat16((float)*this); }
};
typedef dls_fp8<__NV_E4M3> __nv_fp8_e4m3;
typedef dls_fp8<__NV_E5M2> __nv_fp8_e5m2;
#endif
#endif
