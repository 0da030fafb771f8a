/* tests/vgpu/test_memory.c: from chapters/A-virtual-gpu-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Device memory: accounting, capacity, copies from pageable and pinned memory. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

#ifdef DLS_VIRTUAL_GPU // times, orders and capacities of the emulation
/* test accounting */
Test(vgpu, memory_is_counted_by_purpose)
{
    void *a, *b, *c;
    dls_gpu_memory m;
    cr_assert_eq(dls_gpu_memory_purpose(DLS_MEM_PARAMETERS), DLS_MEM_OTHER);
    OK(cudaMalloc(&a, 1000));
    cr_assert_eq(dls_gpu_memory_purpose(DLS_MEM_ACTIVATIONS), DLS_MEM_PARAMETERS);
    OK(cudaMalloc(&b, 5000));
    OK(cudaFree(b));
    OK(cudaMalloc(&c, 300));
    OK(dls_gpu_memory_stats(0, &m));
    cr_assert_eq(m.current[DLS_MEM_PARAMETERS], 1000);
    cr_assert_eq(m.current[DLS_MEM_ACTIVATIONS], 300);
    cr_assert_eq(m.peak[DLS_MEM_ACTIVATIONS], 5000);
    cr_assert_eq(m.total, 1300);
    cr_assert_eq(m.total_peak, 6000);
    cr_assert_eq(m.capacity, 80000000000u);
    dls_gpu_memory_reset_peaks(0);
    OK(cudaFree(a));
    OK(dls_gpu_memory_stats(0, &m));
    cr_assert_eq(m.total, 300);
    cr_assert_eq(m.total_peak, 1300);
    cr_assert_neq(dls_gpu_memory_stats(8, &m), DLS_OK);
}

/* test the capacity */
static dls_status allocate(void **p, size_t bytes)
{
    DLS_CUDA(cudaMalloc(p, bytes));
    return DLS_OK;
}

Test(vgpu, capacity_is_the_data_sheets)
{
    void *big, *more;
    size_t available, total;
    OK(cudaMalloc(&big, 60000000000u));
    cr_assert_eq(allocate(&more, 30000000000u), DLS_ERR_MEMORY);
    cr_assert_str_eq(dls_status_message(), "cudaMalloc(p, bytes): out of memory");
    cr_assert_eq(cudaMalloc(&more, (size_t)-256), cudaErrorMemoryAllocation);
    OK(cudaMemGetInfo(&available, &total));
    cr_assert_eq(available, 20000000000u);
    OK(cudaMalloc(&more, 20000000000u));
    cr_assert_eq(cudaFree((char *)more + 1), cudaErrorInvalidValue, "not its beginning");
    OK(cudaFree(big));
    OK(cudaFree(more));
    cr_assert_eq(cudaFree(more), cudaErrorInvalidValue, "freed twice");
    OK(cudaSetDevice(1)); // another device has its own memory
    OK(cudaMalloc(&more, 80000000000u));
}

Test(vgpu, new_memory_is_nan)
{
    float *p, host[3];
    OK(cudaMalloc((void **)&p, sizeof host));
    OK(cudaMemcpy(host, p, sizeof host, cudaMemcpyDeviceToHost));
    cr_assert(isnan(host[0]) && isnan(host[1]) && isnan(host[2]));
}

/* test copies */
Test(vgpu, pageable_memory_may_be_reused_pinned_may_not)
{
    int host = 1, *pinned, *a, *b, got = 0;
    cudaStream_t s;
    OK(cudaStreamCreate(&s));
    OK(cudaMallocHost((void **)&pinned, sizeof(int)));
    OK(cudaMalloc((void **)&a, sizeof(int)));
    OK(cudaMalloc((void **)&b, sizeof(int)));
    *pinned = 1;
    OK(cudaMemcpyAsync(a, &host, sizeof(int), cudaMemcpyHostToDevice, s));
    OK(cudaMemcpyAsync(b, pinned, sizeof(int), cudaMemcpyHostToDevice, s));
    host = *pinned = 2; // too late for a, early enough for b
    OK(cudaMemcpyAsync(&got, a, sizeof(int), cudaMemcpyDeviceToHost, s));
    cr_assert_eq(got, 1, "the copy to pageable memory has arrived on return");
    OK(cudaMemcpy(&got, b, sizeof(int), cudaMemcpyDefault));
    cr_assert_eq(got, 2);
    OK(cudaMemsetAsync(a, 0, sizeof(int), s));
    OK(cudaMemcpyAsync(pinned, a, sizeof(int), cudaMemcpyDeviceToHost, s));
    cr_assert_eq(*pinned, 2, "not yet executed");
    OK(cudaStreamSynchronize(s));
    cr_assert_eq(*pinned, 0);
    OK(cudaFreeHost(pinned));
}

Test(vgpu, copies_take_the_time_of_their_path)
{
    cudaStream_t s;
    char *a, *b, *pinned, *peer;
    const size_t n = 55000000; // 1 ms over PCI Express
    double t;
    OK(cudaStreamCreate(&s));
    OK(cudaMalloc((void **)&a, n));
    OK(cudaMalloc((void **)&b, n));
    OK(cudaMallocHost((void **)&pinned, n));
    OK(cudaSetDevice(1));
    OK(cudaMalloc((void **)&peer, n));
    OK(cudaSetDevice(0));
    OK(cudaMemcpyAsync(a, pinned, n, cudaMemcpyHostToDevice, s));
    OK(cudaStreamSynchronize(s));
    cr_assert_float_eq(t = dls_gpu_host_time(), 6.7e-6 + 8e-6 + 1e-3, 1e-12);
    OK(cudaMemcpyAsync(b, a, n, cudaMemcpyDeviceToDevice, s));
    OK(cudaStreamSynchronize(s));
    cr_assert_float_eq(dls_gpu_host_time() - t, 6.7e-6 + 110e6 / 3.015e12, 1e-12);
    t = dls_gpu_host_time();
    OK(cudaDeviceEnablePeerAccess(1, 0)); // else the copy is staged
    OK(cudaMemcpyPeerAsync(peer, 1, a, 0, n, s));
    OK(cudaStreamSynchronize(s));
    cr_assert_float_eq(dls_gpu_host_time() - t, 6.7e-6 + 3.4e-6 + 55e6 / 378e9, 1e-12);
}

/* test bad copies */
Test(vgpu, bad_copies_are_refused)
{
    char *a, host[64];
    OK(cudaMalloc((void **)&a, 32));
    cr_assert_eq(cudaMemcpy(a, host, 33, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    cr_assert_eq(cudaMemcpy(a + 16, host, 17, cudaMemcpyHostToDevice),
                 cudaErrorInvalidValue);
    cr_assert_eq(cudaMemcpy(host, a, 32, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    cr_assert_eq(cudaMemcpy(a, host, 32, (cudaMemcpyKind)9),
                 cudaErrorInvalidMemcpyDirection);
    cr_assert_eq(cudaMemset(host, 0, 8), cudaErrorInvalidValue);
    cr_assert_eq(cudaMemcpy(a, NULL, 8, cudaMemcpyDefault), cudaErrorInvalidValue);
    OK(cudaMemcpy(a, NULL, 0, cudaMemcpyDefault));
    cr_assert_str_eq(cudaGetErrorName(cudaErrorInvalidValue), "cudaErrorInvalidValue");
    cr_assert_str_eq(cudaGetErrorString(cudaSuccess), "no error");
}
#endif
