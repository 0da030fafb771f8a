/* code/vgpu/shadow/vgpu_rounding_ops.h: from chapters/A-virtual-gpu-simt-intrinsics.md. Edit the chapter, or edit here and run "make untangle". */
/* What simt_rounding.c computes, and the four modes. */
#ifndef DLS_SHADOW_VGPU_ROUNDING_OPS_H
#define DLS_SHADOW_VGPU_ROUNDING_OPS_H

typedef enum dls_rounded_op {
    DLS_ROUNDED_ADD, DLS_ROUNDED_SUB, DLS_ROUNDED_MUL, DLS_ROUNDED_DIV, DLS_ROUNDED_FMA,
    DLS_ROUNDED_SQRT
} dls_rounded_op;

typedef enum dls_rounding_mode {
    DLS_MODE_RN, DLS_MODE_RZ, DLS_MODE_RU, DLS_MODE_RD
} dls_rounding_mode;

#ifdef __cplusplus
extern "C" {
#endif
float dls_rounded_float(dls_rounded_op op, dls_rounding_mode mode, float a, float b,
                        float c);
double dls_rounded_double(dls_rounded_op op, dls_rounding_mode mode, double a, double b,
                          double c);
float dls_float_of_double(double x, dls_rounding_mode mode);
float dls_float_of_integer(long long x, dls_rounding_mode mode);
float dls_float_of_unsigned(unsigned long long x, dls_rounding_mode mode);
double dls_double_of_integer(long long x, dls_rounding_mode mode);
double dls_double_of_unsigned(unsigned long long x, dls_rounding_mode mode);
#ifdef __cplusplus
}
#endif
#endif
