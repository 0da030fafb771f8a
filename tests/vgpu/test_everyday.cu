/* tests/vgpu/test_everyday.cu: from chapters/A-virtual-gpu-everyday.md. Edit the chapter, or edit here and run "make untangle". */
/* Matrices to cuBLAS and back, and block sizes, as a course's programs use them. */
#include <criterion/criterion.h>

#include <cublas_v2.h>

#include "vgpu/gpu.h"

#ifdef DLS_VIRTUAL_GPU
#define OK(expr) cr_assert_eq((int)(expr), 0, "%s", #expr)

/* test matrices of cublas */
Test(vgpu, matrices_go_to_cublas_and_back)
{
    float a[4][5], back[4][3], *device; // columns of 5 and of 3
    for (int i = 0; i < 20; i++)
        a[i / 5][i % 5] = (float)i;
    OK(cudaMalloc(&device, 4 * 3 * sizeof(float)));
    OK(cublasSetMatrix(3, 4, 4, a, 5, device, 3));
    OK(cublasGetMatrix(3, 4, 4, device, 3, back, 3));
    for (int c = 0; c < 4; c++)
        for (int r = 0; r < 3; r++)
            cr_assert_eq(back[c][r], (float)(5 * c + r));
    OK(cublasSetVector(4, 4, a[0], 5, device, 1)); // the first row
    OK(cublasGetVector(4, 4, device, 1, back, 2));
    for (int i = 0; i < 4; i++)
        cr_assert_eq((&back[0][0])[2 * i], (float)(5 * i));
    cr_assert_eq(cublasSetMatrix(3, 4, 4, a, 2, device, 3), CUBLAS_STATUS_INVALID_VALUE);
    OK(cudaFree(device));
}

/* test block sizes */
static __global__ void idle(int *) {}

Test(vgpu, the_best_block_size_fills_the_multiprocessor)
{
    int grid, block, blocks;
    OK(cudaOccupancyMaxPotentialBlockSize(&grid, &block, idle));
    OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, idle, block, 0));
    cr_assert_eq(blocks * block, 2048, "an H100's threads");
    cr_assert_eq(block, 1024);
    cr_assert_eq(grid, 2 * 132);
    OK(cudaOccupancyMaxPotentialBlockSize(&grid, &block, idle, 0, 200));
    cr_assert_eq(block, 128, "16 blocks of 4 warps fill it; 10 of 6 do not");
    OK(cudaFuncSetCacheConfig(idle, cudaFuncCachePreferL1));
}
#endif
