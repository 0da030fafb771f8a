/* code/kernels/real_math.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The few functions host kernels need, under one name for all accumulators. */
#ifndef DLS_KERNELS_REAL_MATH_H
#define DLS_KERNELS_REAL_MATH_H

#include "kernels/real.h"
#include "base/vector_math.h"

#if DLS_REAL == 64
#define acc_exp dls_exp_f64
#define acc_log log
#define acc_sqrt sqrt
#else
#define acc_exp dls_exp_f32
#define acc_log logf
#define acc_sqrt sqrtf
#endif

#endif
