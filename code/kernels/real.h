/* code/kernels/real.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The types of a host kernel. Each *_host.c file is compiled three times, with
 * -DDLS_REAL=32, 64 and 16, and says `real` for the type that elements are stored in and
 * `acc` for the one that they are computed in. A public function is named through
 * DLS_HOST_NAME, so that all versions can be linked into one program.
 */
#ifndef DLS_KERNELS_REAL_H
#define DLS_KERNELS_REAL_H

/* choose the element type */
#if DLS_REAL == 32
typedef float real, acc;
#define DLS_HOST_NAME(name) name##_f32
#elif DLS_REAL == 64
typedef double real, acc;
#define DLS_HOST_NAME(name) name##_f64
#elif DLS_REAL == 16
#include "tensor/bf16.h"
typedef dls_bfloat16 real;
typedef float acc;
#define DLS_HOST_NAME(name) name##_bf16
#else
#error "compile host kernels with -DDLS_REAL=32, 64 and 16"
#endif

#if DLS_REAL == 16
static inline acc widen(real x) { return dls_widen_bf16(x); }
static inline real narrow(acc x) { return dls_narrow_bf16(x); }
#else
static inline acc widen(real x) { return x; }
static inline real narrow(acc x) { return x; }
#endif

#endif
