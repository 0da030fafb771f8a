/* tests/vgpu/test_occupancy.c: from chapters/A-virtual-gpu-graphs.md. Edit the chapter, or edit here and run "make untangle". */
/* Occupancy against numbers worked out by hand; a copy to a peer and its time. */
#include <criterion/criterion.h>
#include <math.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

#ifdef DLS_VIRTUAL_GPU
#include "vgpu/occupancy.h"

/* test the limits of occupancy */
Test(vgpu, occupancy_is_the_smallest_limit)
{
    static const struct { int threads, registers; size_t shared; int blocks; } cases[] = {
        {32, 32, 0, 32},      {1024, 32, 0, 2},      {1024, 33, 0, 1},
        {1024, 64, 0, 1},     {1024, 65, 0, 0},      {256, 96, 48 << 10, 2},
        {256, 80, 48 << 10, 3}, {256, 32, 48 << 10, 4}, {33, 32, 0, 32},
        {65, 32, 0, 21},      {128, 32, 113 << 10, 2}, {128, 32, 114 << 10, 1},
        {128, 32, 227 << 10, 1}, {128, 32, (227 << 10) + 1, 0}, {1025, 32, 0, 0},
        {96, 40, 0, 16}, // 12 warps a quarter, 48 in all
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_assert_eq(dls_gpu_occupancy(cases[i].threads, cases[i].registers,
                                       cases[i].shared),
                     cases[i].blocks, "case %zu", i);
    int blocks = 0, kernel = 0;
    OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, &kernel, 256, 48 << 10));
    cr_assert_eq(blocks, 4);
    cr_assert_eq(cudaOccupancyMaxActiveBlocksPerMultiprocessor(NULL, &kernel, 1, 0),
                 cudaErrorInvalidValue);
}

/* test a copy to a peer */
Test(vgpu, a_copy_to_a_peer_takes_the_link)
{
    enum { BYTES = 1000000 };
    char *here, *there;
    int can = 0, back = 0;
    OK(cudaDeviceCanAccessPeer(&can, 0, 1));
    cr_assert_eq(can, 1);
    OK(cudaSetDevice(1));
    OK(cudaMalloc((void **)&there, BYTES));
    OK(cudaSetDevice(0));
    OK(cudaDeviceEnablePeerAccess(1, 0));
    OK(cudaMalloc((void **)&here, BYTES));
    OK(cudaMemset(here, 5, BYTES));
    OK(cudaDeviceSynchronize());
    double before = dls_gpu_host_time();
    OK(cudaMemcpyPeer(there, 1, here, 0, BYTES));
    const double expected = 6.7e-6 + 3.4e-6 + BYTES / 378e9;
    cr_assert_float_eq(dls_gpu_host_time() - before, expected, 1e-12);
    OK(cudaMemcpy(&back, there + BYTES - 4, 4, cudaMemcpyDeviceToHost));
    cr_assert_eq(back, 0x05050505);
    cr_assert_eq(cudaMemcpyPeer(there, 0, here, 0, BYTES), cudaErrorInvalidValue);
}
#endif
