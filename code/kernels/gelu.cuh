/* code/kernels/gelu.cuh: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* x gate(x) over an array and its derivative, for any form with a gate and a slope. */
#ifndef DLS_KERNELS_GELU_CUH
#define DLS_KERNELS_GELU_CUH

#include "kernels/gelu.h"

#include "kernels/launch.cuh"
#include "kernels/pack.cuh"

/* apply a gate to an array */
template <class form, int width, typename real, typename acc = dls_acc<real>>
__global__ void gelu_forward_kernel(real *out, const real *x, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= n)
        return;
    dls_pack<real, width> v = dls_load<width>(x + i);
    for (int j = 0; j < width; j++)
        v.at[j] = real(acc(v.at[j]) * form::gate(acc(v.at[j])));
    dls_store(out + i, v);
}

template <class form, int width, typename real, typename acc = dls_acc<real>>
__global__ void gelu_backward_kernel(real *dx, const real *dout, const real *x, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (i >= n)
        return;
    dls_pack<real, width> d = dls_load<width>(dout + i), v = dls_load<width>(x + i);
    for (int j = 0; j < width; j++)
        d.at[j] = real(acc(d.at[j]) * form::slope(acc(v.at[j])));
    dls_store(dx + i, d);
}
#endif
