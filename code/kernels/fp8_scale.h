/* code/kernels/fp8_scale.h: from chapters/08-dispatch-wire.md. Edit the chapter, or edit here and run "make untangle". */
/* The exponent of a group's scale, for both versions of the kernels. */
#ifndef DLS_KERNELS_FP8_SCALE_H
#define DLS_KERNELS_FP8_SCALE_H

#include <math.h>

#ifndef __CUDACC__
#define DLS_FP8_INLINE static inline
#else
#define DLS_FP8_INLINE static __host__ __device__ inline
#endif

/* The least q >= -126 with most <= 448 * 2^q; most: finite, at least 0. */
DLS_FP8_INLINE int dls_fp8_exponent(float most)
{
    int k;
    float f = frexpf(most, &k);
    int q = f <= 0.875f ? k - 9 : k - 8;
    return most == 0 ? 0 : q < -126 ? -126 : q;
}

#endif
