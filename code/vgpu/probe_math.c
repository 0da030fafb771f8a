/* code/vgpu/probe_math.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* Mathematical functions of probed code: each call is noted, then made. */
#include "vgpu/probe_internal.h"

#include <math.h>

/* note a call of a mathematical function */
static inline __attribute__((always_inline)) void note_special(const void *pc)
{
    dls_probe_lane *l = dls_probe_now;
    if (l == &dls_probe_nobody)
        return;
    if (dls_probe_note(l, pc, NOTE_SPECIAL, 0))
        dls_probe_full(l);
}

#define ONE(T, name)                                                              \
    T dls_probed_##name(T x);                                                     \
    T dls_probed_##name(T x)                                                      \
    {                                                                             \
        note_special(__builtin_return_address(0));                                \
        return name(x);                                                           \
    }
#define TWO(T, name)                                                              \
    T dls_probed_##name(T x, T y);                                                \
    T dls_probed_##name(T x, T y)                                                 \
    {                                                                             \
        note_special(__builtin_return_address(0));                                \
        return name(x, y);                                                        \
    }
#define BOTH(arity, name) arity(float, name##f) arity(double, name)
/* list the mathematical functions */
BOTH(ONE, exp)
BOTH(ONE, exp2)
BOTH(ONE, expm1)
BOTH(ONE, log)
BOTH(ONE, log2)
BOTH(ONE, log10)
BOTH(ONE, log1p)
BOTH(ONE, sin)
BOTH(ONE, cos)
BOTH(ONE, tan)
BOTH(ONE, asin)
BOTH(ONE, acos)
BOTH(ONE, atan)
BOTH(ONE, sinh)
BOTH(ONE, cosh)
BOTH(ONE, tanh)
BOTH(ONE, erf)
BOTH(ONE, erfc)
BOTH(ONE, cbrt)
BOTH(TWO, pow)
BOTH(TWO, atan2)
BOTH(TWO, hypot)
BOTH(TWO, fmod)
