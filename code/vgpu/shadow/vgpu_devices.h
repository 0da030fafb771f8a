/* code/vgpu/shadow/vgpu_devices.h: from chapters/A-virtual-gpu-devices.md. Edit the chapter, or edit here and run "make untangle". */
/* Attributes, limits, flags and peers of devices. Included by cuda_runtime_api.h. */
#ifndef DLS_SHADOW_VGPU_DEVICES_H
#define DLS_SHADOW_VGPU_DEVICES_H

/* list the attributes of a device */
#define DLS_DEVICE_ATTRIBUTES(X)                                                        \
    X(MaxThreadsPerBlock, 1, maxThreadsPerBlock) X(MaxBlockDimX, 2, maxThreadsDim[0])   \
    X(MaxBlockDimY, 3, maxThreadsDim[1]) X(MaxBlockDimZ, 4, maxThreadsDim[2])           \
    X(MaxGridDimX, 5, maxGridSize[0]) X(MaxGridDimY, 6, maxGridSize[1])                 \
    X(MaxGridDimZ, 7, maxGridSize[2]) X(MaxSharedMemoryPerBlock, 8, sharedMemPerBlock)  \
    X(TotalConstantMemory, 9, totalConstMem) X(WarpSize, 10, warpSize)                  \
    X(MaxPitch, 11, memPitch) X(MaxRegistersPerBlock, 12, regsPerBlock)                 \
    X(TextureAlignment, 14, textureAlignment)                                           \
    X(MultiProcessorCount, 16, multiProcessorCount) X(Integrated, 18, integrated)       \
    X(CanMapHostMemory, 19, canMapHostMemory)                                           \
    X(ConcurrentKernels, 31, concurrentKernels) X(EccEnabled, 32, ECCEnabled)           \
    X(PciBusId, 33, pciBusID) X(PciDeviceId, 34, pciDeviceID)                           \
    X(TccDriver, 35, tccDriver)                                                         \
    X(GlobalMemoryBusWidth, 37, memoryBusWidth) X(L2CacheSize, 38, l2CacheSize)         \
    X(MaxThreadsPerMultiProcessor, 39, maxThreadsPerMultiProcessor)                     \
    X(AsyncEngineCount, 40, asyncEngineCount)                                           \
    X(UnifiedAddressing, 41, unifiedAddressing) X(PciDomainId, 50, pciDomainID)         \
    X(ComputeCapabilityMajor, 75, major) X(ComputeCapabilityMinor, 76, minor)           \
    X(StreamPrioritiesSupported, 78, streamPrioritiesSupported)                         \
    X(GlobalL1CacheSupported, 79, globalL1CacheSupported)                               \
    X(LocalL1CacheSupported, 80, localL1CacheSupported)                                 \
    DLS_LATER_ATTRIBUTES(X)
#define DLS_LATER_ATTRIBUTES(X)                                                         \
    X(MaxSharedMemoryPerMultiprocessor, 81, sharedMemPerMultiprocessor)                 \
    X(MaxRegistersPerMultiprocessor, 82, regsPerMultiprocessor)                         \
    X(ManagedMemory, 83, managedMemory) X(IsMultiGpuBoard, 84, isMultiGpuBoard)         \
    X(MultiGpuBoardGroupID, 85, multiGpuBoardGroupID)                                   \
    X(HostNativeAtomicSupported, 86, hostNativeAtomicSupported)                         \
    X(PageableMemoryAccess, 88, pageableMemoryAccess)                                   \
    X(ConcurrentManagedAccess, 89, concurrentManagedAccess)                             \
    X(ComputePreemptionSupported, 90, computePreemptionSupported)                       \
    X(CanUseHostPointerForRegisteredMem, 91, canUseHostPointerForRegisteredMem)         \
    X(CooperativeLaunch, 95, cooperativeLaunch)                                         \
    X(MaxSharedMemoryPerBlockOptin, 97, sharedMemPerBlockOptin)                         \
    X(HostRegisterSupported, 99, hostRegisterSupported)                                 \
    X(PageableMemoryAccessUsesHostPageTables, 100,                                      \
      pageableMemoryAccessUsesHostPageTables)                                           \
    X(DirectManagedMemAccessFromHost, 101, directManagedMemAccessFromHost)              \
    X(MaxBlocksPerMultiprocessor, 106, maxBlocksPerMultiProcessor)                      \
    X(MaxPersistingL2CacheSize, 108, persistingL2CacheMaxSize)                          \
    X(MaxAccessPolicyWindowSize, 109, accessPolicyMaxWindowSize)                        \
    X(ReservedSharedMemoryPerBlock, 111, reservedSharedMemPerBlock)                     \
    X(MemoryPoolsSupported, 115, memoryPoolsSupported)                                  \
    X(GPUDirectRDMASupported, 116, gpuDirectRDMASupported)                              \
    X(ClusterLaunch, 120, clusterLaunch) X(IpcEventSupport, 125, ipcEventSupported)

enum cudaDeviceAttr {
#define X(name, number, member) cudaDevAttr##name = number,
    DLS_DEVICE_ATTRIBUTES(X)
#undef X
    /* what has no member */
    cudaDevAttrClockRate = 13, cudaDevAttrGpuOverlap = 15,
    cudaDevAttrKernelExecTimeout = 17, cudaDevAttrComputeMode = 20,
    cudaDevAttrMemoryClockRate = 36, cudaDevAttrSingleToDoublePrecisionPerfRatio = 87
};

/* name limits and flags */
enum cudaLimit {
    cudaLimitStackSize = 0, cudaLimitPrintfFifoSize = 1, cudaLimitMallocHeapSize = 2,
    cudaLimitDevRuntimeSyncDepth = 3, cudaLimitDevRuntimePendingLaunchCount = 4,
    cudaLimitMaxL2FetchGranularity = 5, cudaLimitPersistingL2CacheSize = 6
};
enum cudaDeviceP2PAttr {
    cudaDevP2PAttrPerformanceRank = 1, cudaDevP2PAttrAccessSupported = 2,
    cudaDevP2PAttrNativeAtomicSupported = 3, cudaDevP2PAttrCudaArrayAccessSupported = 4
};
enum {
    cudaDeviceScheduleAuto = 0, cudaDeviceScheduleSpin = 1, cudaDeviceScheduleYield = 2,
    cudaDeviceScheduleBlockingSync = 4, cudaDeviceScheduleMask = 7,
    cudaDeviceMapHost = 8, cudaDeviceLmemResizeToMax = 16, cudaDeviceSyncMemops = 128,
    cudaDeviceMask = 0xff
};

#ifdef __cplusplus
extern "C" {
#endif

/* declare the calls about devices */
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device);
cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *text);
cudaError_t cudaChooseDevice(int *device, const cudaDeviceProp *wish);
cudaError_t cudaInitDevice(int device, unsigned int device_flags, unsigned int flags);
cudaError_t cudaDeviceGetLimit(size_t *value, enum cudaLimit limit);
cudaError_t cudaDeviceSetLimit(enum cudaLimit limit, size_t value);
cudaError_t cudaSetDeviceFlags(unsigned int flags);
cudaError_t cudaGetDeviceFlags(unsigned int *flags);
cudaError_t cudaDeviceDisablePeerAccess(int peer);
cudaError_t cudaDeviceGetP2PAttribute(int *value, enum cudaDeviceP2PAttr attribute,
                                      int device, int peer);

#ifdef __cplusplus
}
#endif
#endif
