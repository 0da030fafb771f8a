/* code/vgpu/gpu_virtual_device.c: from chapters/A-virtual-gpu-devices.md. Edit the chapter, or edit here and run "make untangle". */
/* Properties, attributes, limits and peers of the virtual devices. All devices of a node
 * are of one kind; they differ in their bus numbers and in who is whose peer. */
#include "vgpu/vgpu_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* fill the properties */
static void fill_limits(cudaDeviceProp *p, const dls_device_spec *d)
{
    p->warpSize = 32; // this and what follows: the same for capabilities 7.0 to 10.0
    p->maxThreadsPerBlock = 1024;
    memcpy(p->maxThreadsDim, (int[3]){1024, 1024, 64}, sizeof p->maxThreadsDim);
    memcpy(p->maxGridSize, (int[3]){0x7fffffff, 65535, 65535}, sizeof p->maxGridSize);
    p->totalConstMem = 65536;
    p->sharedMemPerBlock = 48 * 1024; // more by opting in
    p->reservedSharedMemPerBlock = 1024;
    p->sharedMemPerBlockOptin = (size_t)d->shared_per_block;
    p->sharedMemPerMultiprocessor = (size_t)d->shared_per_multiprocessor;
    p->regsPerBlock = p->regsPerMultiprocessor = d->registers_per_multiprocessor;
    p->maxThreadsPerMultiProcessor = d->threads_per_multiprocessor;
    p->maxBlocksPerMultiProcessor = d->blocks_per_multiprocessor;
    p->memPitch = 0x7fffffff;
    p->textureAlignment = 512;
    p->texturePitchAlignment = 32;
    p->surfaceAlignment = 512;
}

static void fill_hardware(cudaDeviceProp *p, const dls_device_spec *d, int device)
{
    snprintf(p->name, sizeof p->name, "%s (virtual)", d->name);
    snprintf(p->uuid.bytes, sizeof p->uuid.bytes, "virtual-gpu-%d", device);
    p->totalGlobalMem = (size_t)d->memory_bytes;
    p->major = d->compute_major;
    p->minor = d->compute_minor;
    p->multiProcessorCount = d->multiprocessors;
    p->l2CacheSize = (int)d->l2_bytes;
    p->memoryBusWidth = d->memory_bus_bits;
    p->asyncEngineCount = d->copy_engines;
    p->pciBusID = device + 1;
    p->clusterLaunch = d->compute_major >= 9;
    p->ECCEnabled = 0; // no bit flips here
}

static void fill_abilities(cudaDeviceProp *p)
{
    p->canMapHostMemory = p->unifiedAddressing = p->concurrentKernels = 1;
    p->managedMemory = p->concurrentManagedAccess = 1;
    p->streamPrioritiesSupported = p->memoryPoolsSupported = 1;
    p->globalL1CacheSupported = p->localL1CacheSupported = 1;
    p->cooperativeLaunch = p->computePreemptionSupported = 1;
    p->hostRegisterSupported = p->canUseHostPointerForRegisteredMem = 1;
    p->hostRegisterReadOnlySupported = 1;
    p->unifiedFunctionPointers = 1;
}

static void fill_properties(cudaDeviceProp *p, int device)
{
    const dls_device_spec *d = &dls_vgpu.cluster.device;
    memset(p, 0, sizeof *p);
    fill_limits(p, d);
    fill_hardware(p, d, device);
    fill_abilities(p);
}

static cudaError_t check_device(int device)
{
    return device < 0 || device >= dls_vgpu.cluster.gpus_per_node ? cudaErrorInvalidDevice
                                                                  : cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && properties == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = check_device(device);
    if (error == cudaSuccess)
        fill_properties(properties, device);
    return dls_vgpu_leave(error);
}

/* answer for one attribute */
static cudaError_t attribute_of(const cudaDeviceProp *p, int attribute, int *value)
{
    const dls_device_spec *d = &dls_vgpu.cluster.device;
    switch (attribute) {
#define X(name, number, member) case number: *value = (int)p->member; return cudaSuccess;
        DLS_DEVICE_ATTRIBUTES(X)
#undef X
    case cudaDevAttrClockRate: *value = (int)(d->clock / 1e3); break;
    case cudaDevAttrMemoryClockRate:
        *value = (int)(d->memory_bandwidth * 8 / (2.0 * d->memory_bus_bits) / 1e3); break;
    case cudaDevAttrGpuOverlap: *value = p->asyncEngineCount > 0; break;
    case cudaDevAttrKernelExecTimeout: *value = 0; break;
    case cudaDevAttrComputeMode: *value = 0; break; // any number of threads
    case cudaDevAttrSingleToDoublePrecisionPerfRatio:
        *value = d->f64 > 0 ? (int)(d->f32 / d->f64 + 0.5) : 0; break;
    default: return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    cudaDeviceProp p;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && value == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = check_device(device);
    if (error == cudaSuccess) {
        fill_properties(&p, device);
        error = attribute_of(&p, attribute, value);
    }
    return dls_vgpu_leave(error);
}

/* find a device by its bus */
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (text == NULL || size < 13))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = check_device(device);
    if (error == cudaSuccess)
        snprintf(text, (size_t)size, "0000:%02X:00.0", (unsigned)(device + 1) & 0xff);
    return dls_vgpu_leave(error);
}

cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *text)
{
    unsigned domain = 0, bus = 0, slot = 0, function = 0;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (device == NULL || text == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess &&
        sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
        domain = function = 0;
        if (sscanf(text, "%x:%x.%x", &bus, &slot, &function) < 2)
            error = cudaErrorInvalidValue;
    }
    if (error == cudaSuccess && (domain || slot || function))
        error = cudaErrorInvalidDevice;
    if (error == cudaSuccess)
        error = check_device((int)bus - 1);
    if (error == cudaSuccess)
        *device = (int)bus - 1;
    return dls_vgpu_leave(error);
}

cudaError_t cudaChooseDevice(int *device, const cudaDeviceProp *wish)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (device == NULL || wish == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *device = 0;
    return dls_vgpu_leave(error);
}

cudaError_t cudaInitDevice(int device, unsigned int device_flags, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = check_device(device);
    if (error == cudaSuccess && (flags > 1 || (device_flags & ~(unsigned)cudaDeviceMask)))
        error = cudaErrorInvalidValue;
    return dls_vgpu_leave(error);
}

/* keep limits and flags */
enum { LIMITS = 7 };

static size_t limits[DLS_VGPU_DEVICES][LIMITS];
static unsigned int device_flags[DLS_VGPU_DEVICES];

static size_t *limit_of(int limit)
{
    static const size_t initial[LIMITS] = {1024, 1 << 20, 8 << 20, 0, 2048, 128, 0};
    size_t *all = limits[dls_vgpu_device()];
    if (all[0] == 0)
        memcpy(all, initial, sizeof initial);
    return &all[limit];
}

static cudaError_t check_limit(int limit)
{
    if (limit < 0 || limit >= LIMITS)
        return cudaErrorInvalidValue;
    return limit == cudaLimitDevRuntimeSyncDepth &&
           dls_vgpu.cluster.device.compute_major >= 9 ? cudaErrorUnsupportedLimit
                                                      : cudaSuccess;
}

cudaError_t cudaDeviceGetLimit(size_t *value, enum cudaLimit limit)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = value ? check_limit(limit) : cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *value = *limit_of(limit);
    return dls_vgpu_leave(error);
}

cudaError_t cudaDeviceSetLimit(enum cudaLimit limit, size_t value)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = check_limit(limit);
    if (error == cudaSuccess && limit == cudaLimitMaxL2FetchGranularity && value > 128)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *limit_of(limit) = value;
    return dls_vgpu_leave(error);
}

cudaError_t cudaSetDeviceFlags(unsigned int flags)
{
    unsigned int schedule = flags & cudaDeviceScheduleMask;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess &&
        ((flags & ~(unsigned)cudaDeviceMask) || (schedule & (schedule - 1))))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        device_flags[dls_vgpu_device()] = flags;
    return dls_vgpu_leave(error);
}

cudaError_t cudaGetDeviceFlags(unsigned int *flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && flags == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *flags = device_flags[dls_vgpu_device()] | cudaDeviceMapHost;
    return dls_vgpu_leave(error);
}

/* let devices reach each other */
static unsigned char enabled[DLS_VGPU_DEVICES][DLS_VGPU_DEVICES]; // [who looks][at whom]

int dls_vgpu_is_peer(int device, int peer)
{
    return enabled[device][peer] || enabled[peer][device];
}

/* A device is not its own peer: programs rely on that to skip the diagonal. */
static int can_reach(int device, int peer)
{
    return device != peer;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && can == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && (check_device(device) || check_device(peer)))
        error = cudaErrorInvalidDevice;
    if (error == cudaSuccess)
        *can = can_reach(device, peer);
    return dls_vgpu_leave(error);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned int flags)
{
    cudaError_t error = dls_vgpu_enter();
    int device = dls_vgpu_device();
    if (error == cudaSuccess && (check_device(peer) || !can_reach(device, peer)))
        error = cudaErrorInvalidDevice;
    if (error == cudaSuccess && flags != 0)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && enabled[device][peer])
        error = cudaErrorPeerAccessAlreadyEnabled;
    if (error == cudaSuccess)
        enabled[device][peer] = 1;
    return dls_vgpu_leave(error);
}

cudaError_t cudaDeviceDisablePeerAccess(int peer)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess)
        error = check_device(peer);
    if (error == cudaSuccess && !enabled[dls_vgpu_device()][peer])
        error = cudaErrorPeerAccessNotEnabled;
    if (error == cudaSuccess)
        enabled[dls_vgpu_device()][peer] = 0;
    return dls_vgpu_leave(error);
}

cudaError_t cudaDeviceGetP2PAttribute(int *value, enum cudaDeviceP2PAttr attribute,
                                      int device, int peer)
{
    int nvlink = dls_vgpu.cluster.shape != DLS_SHAPE_NONE;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (value == NULL || (int)attribute < 1 || attribute > 4))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess &&
        (check_device(device) || check_device(peer) || device == peer))
        error = cudaErrorInvalidDevice;
    if (error == cudaSuccess)
        *value = attribute == cudaDevP2PAttrPerformanceRank ? !nvlink
                 : attribute == cudaDevP2PAttrNativeAtomicSupported ? nvlink : 1;
    return dls_vgpu_leave(error);
}
