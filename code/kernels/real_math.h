/* code/kernels/real_math.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The few functions host kernels need, under one name for both element types. */
#ifndef DLS_KERNELS_REAL_MATH_H
#define DLS_KERNELS_REAL_MATH_H

#include "kernels/real.h"
#include "base/vector_math.h"

#if DLS_REAL == 32
#define real_exp dls_exp_f32
#define real_log logf
#define real_sqrt sqrtf
#else
#define real_exp dls_exp_f64
#define real_log log
#define real_sqrt sqrt
#endif

#endif
