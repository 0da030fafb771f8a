/* tests/vgpu/test_devices.c: from chapters/A-virtual-gpu-devices.md. Edit the chapter, or edit here and run "make untangle". */
/* Names of errors; properties, attributes, limits and peers of devices. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)
#define IS(expr, error) cr_expect_eq((int)(expr), (int)(error), "%s", #expr)

/* test names of errors */
Test(vgpu, errors_have_the_names_and_texts_of_cuda)
{
    static const struct { int number; const char *name, *text; } list[] = {
        {0, "cudaSuccess", "no error"},
        {2, "cudaErrorMemoryAllocation", "out of memory"},
        {21, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
        {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
        {600, "cudaErrorNotReady", "device not ready"},
        {700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
        {704, "cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"},
        {719, "cudaErrorLaunchFailure", "unspecified launch failure"},
        {900, "cudaErrorStreamCaptureUnsupported",
         "operation not permitted when stream is capturing"},
        {5555, "unrecognized error code", "unrecognized error code"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        cr_expect_str_eq(cudaGetErrorName((cudaError_t)list[i].number), list[i].name);
        cr_expect_str_eq(cudaGetErrorString((cudaError_t)list[i].number), list[i].text);
    }
}

/* test which errors stay */
static void *look_in_another_thread(void *result)
{
    *(cudaError_t *)result = cudaPeekAtLastError();
    return NULL;
}

Test(vgpu, an_error_of_an_argument_is_kept_until_it_is_asked_for)
{
    cudaError_t other = cudaErrorUnknown;
    pthread_t thread;
    int count;
    IS(cudaSetDevice(-1), cudaErrorInvalidDevice);
    OK(cudaGetDeviceCount(&count)); // a success does not clear it
    cr_assert_eq(pthread_create(&thread, NULL, look_in_another_thread, &other), 0);
    pthread_join(thread, NULL);
    IS(other, cudaSuccess);
    IS(cudaPeekAtLastError(), cudaErrorInvalidDevice);
    IS(cudaGetLastError(), cudaErrorInvalidDevice);
    IS(cudaGetLastError(), cudaSuccess);
}

#ifdef DLS_VIRTUAL_GPU
/* test properties and attributes */
static int attribute(enum cudaDeviceAttr a)
{
    int value = -1;
    OK(cudaDeviceGetAttribute(&value, a, 0));
    return value;
}

Test(vgpu, a_device_has_the_properties_of_its_cluster_file)
{
    cudaDeviceProp p;
    OK(cudaGetDeviceProperties(&p, 3));
    cr_expect_eq(p.totalGlobalMem, 80000000000ul);
    cr_expect(p.multiProcessorCount == 132 && p.major == 9 && p.minor == 0);
    cr_expect(p.l2CacheSize == 50000000 || p.l2CacheSize == 50 << 20);
    cr_expect(p.memoryBusWidth == 5120 && p.asyncEngineCount == 3);
    cr_expect_eq(p.sharedMemPerBlockOptin, 227 * 1024);
    cr_expect(p.cooperativeLaunch && p.clusterLaunch && !p.pageableMemoryAccess);
    cr_expect_eq(p.pciBusID, 4);
    IS(cudaGetDeviceProperties(&p, 8), cudaErrorInvalidDevice);
    IS(cudaGetDeviceProperties(&p, -1), cudaErrorInvalidDevice);
    IS(cudaGetDeviceProperties(NULL, 0), cudaErrorInvalidValue);
}

Test(vgpu, attributes_are_the_properties_by_another_name)
{
    cudaDeviceProp p;
    int value;
    OK(cudaGetDeviceProperties(&p, 0));
#define X(name, number, member) cr_expect_eq(attribute(cudaDevAttr##name), (int)p.member);
    DLS_DEVICE_ATTRIBUTES(X)
#undef X
    cr_expect_eq(attribute((enum cudaDeviceAttr)10), 32, "the warp's size is number 10");
    cr_expect_eq(attribute((enum cudaDeviceAttr)16), 132, "multiprocessors");
    cr_expect_eq(attribute((enum cudaDeviceAttr)13), 1980000, "kHz");
    cr_expect_eq(attribute((enum cudaDeviceAttr)36), 2617187, "kHz: see the text");
    IS(cudaDeviceGetAttribute(&value, (enum cudaDeviceAttr)9999, 0),
       cudaErrorInvalidValue);
    IS(cudaDeviceGetAttribute(NULL, cudaDevAttrWarpSize, 0), cudaErrorInvalidValue);
    IS(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 8), cudaErrorInvalidDevice);
}

/* test buses limits and flags */
Test(vgpu, devices_are_found_by_their_bus)
{
    char text[13];
    int device;
    OK(cudaDeviceGetPCIBusId(text, sizeof text, 2));
    cr_expect_str_eq(text, "0000:03:00.0");
    OK(cudaDeviceGetByPCIBusId(&device, text));
    cr_expect_eq(device, 2);
    IS(cudaDeviceGetPCIBusId(text, 12, 2), cudaErrorInvalidValue);
    IS(cudaDeviceGetPCIBusId(text, sizeof text, 8), cudaErrorInvalidDevice);
    OK(cudaDeviceGetByPCIBusId(&device, "04:00.0")); // without the domain
    cr_expect_eq(device, 3);
    IS(cudaDeviceGetByPCIBusId(&device, "0000:77:00.0"), cudaErrorInvalidDevice);
    IS(cudaDeviceGetByPCIBusId(&device, "nonsense"), cudaErrorInvalidValue);
    IS(cudaDeviceGetByPCIBusId(NULL, text), cudaErrorInvalidValue);
    cudaDeviceProp wish = {.major = 7};
    OK(cudaChooseDevice(&device, &wish));
    cr_expect_eq(device, 0);
}

Test(vgpu, limits_and_flags_are_kept_per_device)
{
    size_t value;
    unsigned int flags;
    OK(cudaDeviceGetLimit(&value, cudaLimitStackSize));
    cr_expect_eq(value, 1024);
    OK(cudaDeviceSetLimit(cudaLimitStackSize, 4096));
    OK(cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync));
    OK(cudaSetDevice(1));
    OK(cudaDeviceGetLimit(&value, cudaLimitStackSize));
    cr_expect_eq(value, 1024, "another device");
    OK(cudaSetDevice(0));
    OK(cudaDeviceGetLimit(&value, cudaLimitStackSize));
    cr_expect_eq(value, 4096);
    OK(cudaGetDeviceFlags(&flags));
    cr_expect_eq(flags & cudaDeviceScheduleMask, cudaDeviceScheduleBlockingSync);
    IS(cudaDeviceGetLimit(&value, cudaLimitDevRuntimeSyncDepth),
       cudaErrorUnsupportedLimit);
    IS(cudaDeviceSetLimit((enum cudaLimit)7, 1), cudaErrorInvalidValue);
    IS(cudaDeviceSetLimit(cudaLimitMaxL2FetchGranularity, 129), cudaErrorInvalidValue);
    IS(cudaDeviceGetLimit(NULL, cudaLimitStackSize), cudaErrorInvalidValue);
    IS(cudaSetDeviceFlags(3), cudaErrorInvalidValue); // to spin and to yield
    IS(cudaSetDeviceFlags(256), cudaErrorInvalidValue);
    IS(cudaGetDeviceFlags(NULL), cudaErrorInvalidValue);
}

/* test peers */
static double copy_seconds(char *to, const char *from, size_t bytes)
{
    OK(cudaDeviceSynchronize());
    double before = dls_gpu_host_time();
    OK(cudaMemcpyPeer(to, 1, from, 0, bytes));
    return dls_gpu_host_time() - before - 6.7e-6; // less the launch latency
}

Test(vgpu, a_copy_between_devices_is_staged_until_peers_are_enabled)
{
    enum { BYTES = 1 << 28 };
    char *here, *there;
    OK(cudaMalloc((void **)&here, BYTES));
    OK(cudaSetDevice(1));
    OK(cudaMalloc((void **)&there, BYTES));
    OK(cudaSetDevice(0));
    cr_expect_float_eq(copy_seconds(there, here, BYTES), 2 * 8e-6 + BYTES / 55e9, 1e-9);
    OK(cudaDeviceEnablePeerAccess(1, 0));
    cr_expect_float_eq(copy_seconds(there, here, BYTES), 3.4e-6 + BYTES / 378e9, 1e-9);
    OK(cudaDeviceDisablePeerAccess(1));
    cr_expect_float_eq(copy_seconds(there, here, BYTES), 2 * 8e-6 + BYTES / 55e9, 1e-9);
}

Test(vgpu, peers_are_enabled_once_and_in_one_direction)
{
    int value;
    OK(cudaDeviceCanAccessPeer(&value, 0, 1));
    cr_expect_eq(value, 1);
    OK(cudaDeviceCanAccessPeer(&value, 2, 2));
    cr_expect_eq(value, 0, "not its own peer");
    IS(cudaDeviceCanAccessPeer(&value, 0, 8), cudaErrorInvalidDevice);
    IS(cudaDeviceCanAccessPeer(NULL, 0, 1), cudaErrorInvalidValue);
    IS(cudaDeviceEnablePeerAccess(0, 0), cudaErrorInvalidDevice);
    IS(cudaDeviceEnablePeerAccess(1, 1), cudaErrorInvalidValue);
    IS(cudaDeviceDisablePeerAccess(1), cudaErrorPeerAccessNotEnabled);
    OK(cudaDeviceEnablePeerAccess(1, 0));
    IS(cudaDeviceEnablePeerAccess(1, 0), cudaErrorPeerAccessAlreadyEnabled);
    OK(cudaSetDevice(1));
    IS(cudaDeviceDisablePeerAccess(0), cudaErrorPeerAccessNotEnabled);
    OK(cudaDeviceGetP2PAttribute(&value, cudaDevP2PAttrPerformanceRank, 0, 1));
    cr_expect_eq(value, 0);
    IS(cudaDeviceGetP2PAttribute(&value, cudaDevP2PAttrPerformanceRank, 0, 0),
       cudaErrorInvalidDevice);
}
#endif
