/* tests/vgpu/simt_test.h: from chapters/A-virtual-gpu-simt-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared by the tests of the SIMT engine: checked calls, managed arrays, seeds. */
#ifndef DLS_TESTS_SIMT_TEST_H
#define DLS_TESTS_SIMT_TEST_H

#include <criterion/criterion.h>
#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "vgpu/gpu.h"

#define OK(call) cr_assert_eq((int)(call), (int)cudaSuccess, "%s", #call)

/* An array that host and device share, filled with `value`. */
template <class T> static T *managed(size_t count, T value)
{
    T *p = NULL;
    OK(cudaMallocManaged((void **)&p, count * sizeof(T), cudaMemAttachGlobal));
    for (size_t i = 0; i < count; i++)
        p[i] = value;
    return p;
}

#ifdef DLS_VIRTUAL_GPU
#define FOR_SEEDS(seed)                                                           \
    for (unsigned long long seed = 0; seed < 50; seed++)                          \
        if (dls_simt_configure(1 + (int)(seed & 1), seed), 1)

/* check a broken device */
static inline dls_status synchronise()
{
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

/* The device is broken by this error, with a message that contains these words. */
static inline void check_broken(cudaError_t error,
                                std::initializer_list<const char *> words)
{
    cr_assert_eq(synchronise(), DLS_ERR_DEVICE);
    const char *message = dls_status_message();
    for (const char *word : words)
        cr_assert(strstr(message, word), "no \"%s\" in: %s", word, message);
    cr_assert_eq((int)cudaDeviceSynchronize(), (int)error, "not sticky");
}
#else
#define FOR_SEEDS(seed) for (unsigned long long seed = 0; seed < 1; seed++)
#endif
#endif
