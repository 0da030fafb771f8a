/* tests/vgpu/test_host_launch.cu: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* dls_gpu_host_launch: a plain C function on a stream, beside the kernel it replaces. */
#include <criterion/criterion.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((int)(expr), 0, "%s", #expr)

/* write one operation twice */
__global__ static void scale_kernel(float *x, double factor, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        x[i] *= (float)factor;
}

static void scale_host(float *x, double factor, int n)
{
    for (int i = 0; i < n; i++)
        x[i] *= (float)factor;
}

static void scale(cudaStream_t stream, float *x, double factor, int n)
{
    dls_gpu_cost("scale", n, 8.0 * n);
    if (dls_gpu_use_host_kernels())
        OK(dls_gpu_host_launch(stream, scale_host, x, (float)factor, n));
    else
        scale_kernel<<<(n + 63) / 64, 64, 0, stream>>>(x, factor, n);
    OK(cudaGetLastError());
}

/* test both forms of an operation */
static void both_forms(dls_gpu_kernels kernels)
{
    enum { N = 100 };
    float host[N], *x;
    cudaStream_t s;
    dls_gpu_options options = {};
    options.world = 1;
    options.kernels = kernels;
    OK(dls_gpu_init(&options));
    OK(cudaStreamCreate(&s));
    OK(cudaMalloc(&x, sizeof host));
    for (int i = 0; i < N; i++)
        host[i] = (float)i;
    OK(cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyHostToDevice, s));
    double factor = 0.5;
    for (int i = 0; i < 3; i++)
        scale(s, x, factor, N);
    factor = 100; // too late: arguments were copied at the launch
    OK(cudaStreamSynchronize(s));
#ifdef DLS_VIRTUAL_GPU
    const double copy = 8e-6 + sizeof host / 55e9; // then three kernels of 2 us
    cr_assert_float_eq(dls_gpu_host_time(), 6.7e-6 + copy + 6e-6, 1e-12);
#endif
    OK(cudaMemcpy(host, x, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < N; i++)
        cr_assert_eq(host[i], (float)i / 8, "element %d: %g", i, (double)host[i]);
}

Test(vgpu, host_form_of_an_operation) { both_forms(DLS_KERNELS_HOST); }
Test(vgpu, simt_form_of_an_operation) { both_forms(DLS_KERNELS_SIMT); }
