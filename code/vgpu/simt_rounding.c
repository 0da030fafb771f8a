/* code/vgpu/simt_rounding.c: from chapters/A-virtual-gpu-simt-intrinsics.md. Edit the chapter, or edit here and run "make untangle". */
/* Arithmetic in a rounding mode, by the processor's own. The operands are volatile, so
 * that no operation moves across the change of the mode: gcc knows nothing of modes.
 */
#include "vgpu/simt_internal.h"
#include "vgpu/shadow/vgpu_rounding_ops.h"

#include <fenv.h>
#include <math.h>

/* choose a rounding mode */
static const int MODES[] = {FE_TONEAREST, FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD};

static void tell_probes(dls_rounded_op op, const void *pc)
{
    if (dls_simt_probes && dls_me && dls_me->running)
        dls_simt_probes->flops(op == DLS_ROUNDED_FMA ? 2 : 1, pc);
}
/* round an operation */
#define ROUND(T, name, fused, root)                                               \
    T name(dls_rounded_op op, dls_rounding_mode mode, T a, T b, T c)              \
    {                                                                             \
        volatile T x = a, y = b, z = c, r = 0;                                    \
        tell_probes(op, __builtin_return_address(0));                             \
        fesetround(MODES[mode]);                                                  \
        switch (op) {                                                             \
        case DLS_ROUNDED_ADD: r = x + y; break;                                   \
        case DLS_ROUNDED_SUB: r = x - y; break;                                   \
        case DLS_ROUNDED_MUL: r = x * y; break;                                   \
        case DLS_ROUNDED_DIV: r = x / y; break;                                   \
        case DLS_ROUNDED_FMA: r = fused(x, y, z); break;                          \
        case DLS_ROUNDED_SQRT: r = root(x); break;                                \
        }                                                                         \
        fesetround(FE_TONEAREST);                                                 \
        return r;                                                                 \
    }
ROUND(float, dls_rounded_float, fmaf, sqrtf)
ROUND(double, dls_rounded_double, fma, sqrt)

#define CONVERT(To, name, From)                                                   \
    To name(From from, dls_rounding_mode mode)                                    \
    {                                                                             \
        volatile From x = from;                                                   \
        fesetround(MODES[mode]);                                                  \
        volatile To r = (To)x;                                                    \
        fesetround(FE_TONEAREST);                                                 \
        return r;                                                                 \
    }
CONVERT(float, dls_float_of_double, double)
CONVERT(float, dls_float_of_integer, long long)
CONVERT(float, dls_float_of_unsigned, unsigned long long)
CONVERT(double, dls_double_of_integer, long long)
CONVERT(double, dls_double_of_unsigned, unsigned long long)
