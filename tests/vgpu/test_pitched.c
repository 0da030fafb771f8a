/* tests/vgpu/test_pitched.c: from chapters/A-virtual-gpu-pitched.md. Edit the chapter, or edit here and run "make untangle". */
/* Pitched memory, registered memory, and the answers about pointers. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)
#define IS(expr, error) cr_expect_eq((int)(expr), (int)(error), "%s", #expr)

/* test copies of matrices */
Test(vgpu, matrices_are_copied_without_their_gaps)
{
    char from[3][7], to[3][6], *device;
    size_t pitch;
    for (int i = 0; i < 21; i++)
        from[i / 7][i % 7] = (char)i;
    memset(to, 9, sizeof to);
    OK(cudaMallocPitch((void **)&device, &pitch, 5, 3));
    cr_expect_eq(pitch % 512, 0);
    cr_expect_geq(pitch, 5);
    OK(cudaMemset2D(device, pitch, 77, pitch, 3));
    OK(cudaMemcpy2D(device, pitch, from, 7, 5, 3, cudaMemcpyHostToDevice));
    OK(cudaMemcpy2D(to, 6, device, pitch, 5, 3, cudaMemcpyDeviceToHost));
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 6; x++)
            cr_expect_eq(to[y][x], x < 5 ? y * 7 + x : 9, "row %d, byte %d", y, x);
    OK(cudaMemcpy2D(to, 6, device + 5, pitch, 1, 3, cudaMemcpyDeviceToHost));
    cr_expect(to[0][0] == 77 && to[2][0] == 77, "behind the rows, only memset has been");
    OK(cudaMemcpy2D(to, 0, NULL, 0, 0, 3, cudaMemcpyDeviceToHost)); // nothing
    OK(cudaFree(device));
}

Test(vgpu, a_pageable_matrix_is_read_at_the_call)
{
    char from[2][3] = {{1, 2, 3}, {4, 5, 6}}, to[2][2], *device;
    cudaStream_t s;
    OK(cudaStreamCreate(&s));
    OK(cudaMalloc((void **)&device, 8));
    OK(cudaMemcpy2DAsync(device, 4, from, 3, 2, 2, cudaMemcpyHostToDevice, s));
    memset(from, 0, sizeof from);
    OK(cudaStreamSynchronize(s));
    OK(cudaMemcpy2D(to, 2, device, 4, 2, 2, cudaMemcpyDeviceToHost));
    cr_expect(to[0][0] == 1 && to[0][1] == 2 && to[1][0] == 4 && to[1][1] == 5);
}

/* test copies of volumes */
Test(vgpu, volumes_are_copied_by_their_positions)
{
    unsigned char from[3][3][4], to[2][2][2];
    struct cudaPitchedPtr device;
    struct cudaMemcpy3DParms p = {0};
    for (int i = 0; i < 36; i++)
        ((unsigned char *)from)[i] = (unsigned char)i;
    OK(cudaMalloc3D(&device, make_cudaExtent(8, 4, 4)));
    cr_expect(device.xsize == 8 && device.ysize == 4 && device.pitch % 512 == 0);
    OK(cudaMemset3D(device, 1, make_cudaExtent(8, 4, 4)));
    p.srcPtr = make_cudaPitchedPtr(from, 4, 4, 3);
    p.srcPos = make_cudaPos(1, 1, 1);
    p.dstPtr = device;
    p.dstPos = make_cudaPos(5, 2, 1);
    p.extent = make_cudaExtent(2, 2, 2);
    p.kind = cudaMemcpyHostToDevice;
    OK(cudaMemcpy3D(&p));
    p.srcPtr = device;
    p.srcPos = p.dstPos;
    p.dstPtr = make_cudaPitchedPtr(to, 2, 2, 2);
    p.dstPos = make_cudaPos(0, 0, 0);
    p.kind = cudaMemcpyDeviceToHost;
    OK(cudaMemcpy3D(&p));
    for (int z = 0; z < 2; z++)
        for (int y = 0; y < 2; y++)
            for (int x = 0; x < 2; x++)
                cr_expect_eq(to[z][y][x], (z + 1) * 12 + (y + 1) * 4 + x + 1);
    p.srcPos.x = 3;
    OK(cudaMemcpy3D(&p));
    cr_expect_eq(to[0][0][0], 1, "beside the cube");
    p.srcPos.y = 3;
    IS(cudaMemcpy3D(&p), cudaErrorInvalidPitchValue); // two rows from row 3 of 4
    IS(cudaMemcpy3D(NULL), cudaErrorInvalidValue);
}

/* test refused boxes */
Test(vgpu, boxes_that_do_not_fit_are_refused)
{
    const enum cudaMemcpyKind up = cudaMemcpyHostToDevice;
    char host[64], *device;
    size_t pitch;
    OK(cudaMalloc((void **)&device, 64));
    IS(cudaMemcpy2D(device, 4, host, 8, 5, 2, up), cudaErrorInvalidPitchValue);
    IS(cudaMemcpy2D(device, 8, host, 4, 5, 2, up), cudaErrorInvalidPitchValue);
    OK(cudaMemcpy2D(device, 16, host, 5, 5, 4, up)); // the last row ends at byte 53
    IS(cudaMemcpy2D(device, 16, host, 5, 17 - 12, 5, up), cudaErrorInvalidValue);
    IS(cudaMemcpy2D(host, 8, host, 8, 5, 2, up), cudaErrorInvalidValue);
    IS(cudaMemcpy2D(device, 8, host, 8, 5, 2, (enum cudaMemcpyKind)9),
       cudaErrorInvalidMemcpyDirection);
    IS(cudaMemset2D(device, 4, 0, 5, 2), cudaErrorInvalidPitchValue);
    IS(cudaMemset2D(host, 8, 0, 5, 2), cudaErrorInvalidValue);
    IS(cudaMallocPitch(NULL, &pitch, 5, 2), cudaErrorInvalidValue);
    IS(cudaMallocPitch((void **)&device, NULL, 5, 2), cudaErrorInvalidValue);
    IS(cudaMallocPitch((void **)&device, &pitch, 512, (size_t)1 << 60),
       cudaErrorInvalidValue);
    IS(cudaMalloc3D(NULL, make_cudaExtent(1, 1, 1)), cudaErrorInvalidValue);
}

/* test registered memory */
#ifdef DLS_VIRTUAL_GPU
Test(vgpu, registered_memory_is_pinned_where_it_is)
{
    char host[16] = {1}, got = 0, *device, *p;
    unsigned int flags;
    cudaStream_t s;
    OK(cudaStreamCreate(&s));
    OK(cudaMalloc((void **)&device, 1));
    OK(cudaHostRegister(host, sizeof host, cudaHostRegisterPortable));
    OK(cudaMemcpyAsync(device, host, 1, cudaMemcpyHostToDevice, s));
    host[0] = 2;
    OK(cudaStreamSynchronize(s));
    OK(cudaMemcpy(&got, device, 1, cudaMemcpyDeviceToHost));
    cr_expect_eq(got, 2);
    OK(cudaHostGetDevicePointer((void **)&p, host, 0));
    cr_expect_eq(p, host);
    OK(cudaHostGetFlags(&flags, host));
    cr_expect_eq(flags, cudaHostRegisterPortable | cudaHostAllocMapped);
    IS(cudaHostRegister(host + 8, 16, 0), cudaErrorHostMemoryAlreadyRegistered);
    IS(cudaHostUnregister(host + 8), cudaErrorHostMemoryNotRegistered);
    IS(cudaFreeHost(host), cudaErrorInvalidValue);
    OK(cudaHostUnregister(host));
    IS(cudaHostUnregister(host), cudaErrorHostMemoryNotRegistered);
    IS(cudaHostGetDevicePointer((void **)&p, host, 0), cudaErrorInvalidValue);
    IS(cudaHostRegister(NULL, 8, 0), cudaErrorInvalidValue);
    IS(cudaHostRegister(host, 0, 0), cudaErrorInvalidValue);
    IS(cudaHostRegister(host, 8, 16), cudaErrorInvalidValue);
    host[0] = 1;
    OK(cudaMemcpyAsync(device, host, 1, cudaMemcpyHostToDevice, s));
    host[0] = 3;
    OK(cudaMemcpy(&got, device, 1, cudaMemcpyDeviceToHost));
    cr_expect_eq(got, 1);
}
#endif

/* test pointers */
Test(vgpu, pointers_tell_whose_they_are)
{
    struct cudaPointerAttributes a;
    char *device, *pinned, *managed, local;
    OK(cudaMalloc((void **)&device, 8));
    OK(cudaMallocHost((void **)&pinned, 8));
    OK(cudaMallocManaged((void **)&managed, 8, cudaMemAttachGlobal));
    OK(cudaPointerGetAttributes(&a, device + 7));
    cr_expect(a.type == cudaMemoryTypeDevice && a.device == 0);
    cr_expect(a.devicePointer == device + 7 && a.hostPointer == NULL);
    OK(cudaPointerGetAttributes(&a, pinned));
    cr_expect(a.type == cudaMemoryTypeHost && a.hostPointer == pinned);
    OK(cudaPointerGetAttributes(&a, managed));
    cr_expect(a.type == cudaMemoryTypeManaged && a.devicePointer == managed);
    OK(cudaPointerGetAttributes(&a, &local));
    cr_expect(a.type == cudaMemoryTypeUnregistered && a.device == cudaInvalidDeviceId);
    IS(cudaPointerGetAttributes(NULL, device), cudaErrorInvalidValue);
}

/* test advice */
Test(vgpu, prefetching_and_advice_want_managed_memory)
{
    struct cudaMemLocation here = {cudaMemLocationTypeDevice, 0};
    struct cudaMemLocation nowhere = {cudaMemLocationTypeDevice, 99};
    struct cudaMemLocation host = {cudaMemLocationTypeHost, 0};
    char *device, *managed;
    OK(cudaMalloc((void **)&device, 8));
    OK(cudaMallocManaged((void **)&managed, 8, cudaMemAttachGlobal));
    OK(cudaMemPrefetchAsync(managed, 8, here, 0, 0));
    OK(cudaMemPrefetchAsync(managed, 8, host, 0, 0));
    OK(cudaMemAdvise(managed, 8, cudaMemAdviseSetReadMostly, here));
    OK(cudaMemAdvise(managed, 8, cudaMemAdviseSetPreferredLocation, host));
    IS(cudaMemPrefetchAsync(device, 8, here, 0, 0), cudaErrorInvalidValue);
    IS(cudaMemPrefetchAsync(managed, 8, nowhere, 0, 0), cudaErrorInvalidDevice);
    IS(cudaMemPrefetchAsync(managed, 8, here, 1, 0), cudaErrorInvalidValue);
    IS(cudaMemAdvise(device, 8, cudaMemAdviseSetReadMostly, here), cudaErrorInvalidValue);
    IS(cudaMemAdvise(managed, 8, (enum cudaMemoryAdvise)7, here), cudaErrorInvalidValue);
    IS(cudaMemAdvise(managed, 8, cudaMemAdviseSetAccessedBy, nowhere),
       cudaErrorInvalidDevice);
}
