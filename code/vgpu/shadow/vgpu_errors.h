/* code/vgpu/shadow/vgpu_errors.h: from chapters/A-virtual-gpu-devices.md. Edit the chapter, or edit here and run "make untangle". */
/* The errors that the virtual CUDA runtime can return, and those that programs compare
 * with: name, number and text are CUDA 13's. Included by driver_types.h. */
#ifndef DLS_SHADOW_VGPU_ERRORS_H
#define DLS_SHADOW_VGPU_ERRORS_H

/* list the errors of arguments */
#define DLS_ARGUMENTS(X)                                                                \
    X(ErrorInvalidValue, 1, "invalid argument")                                         \
    X(ErrorMemoryAllocation, 2, "out of memory")                                        \
    X(ErrorInitializationError, 3, "initialization error")                              \
    X(ErrorInvalidConfiguration, 9, "invalid configuration argument")                   \
    X(ErrorInvalidPitchValue, 12, "invalid pitch argument")                             \
    X(ErrorInvalidSymbol, 13, "invalid device symbol")                                  \
    X(ErrorInvalidHostPointer, 16, "invalid host pointer")                              \
    X(ErrorInvalidDevicePointer, 17, "invalid device pointer")                          \
    X(ErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy")             \
    X(ErrorMissingConfiguration, 52, "__global__ function call is not configured")      \
    X(ErrorInvalidDeviceFunction, 98, "invalid device function")                        \
    X(ErrorNoDevice, 100, "no CUDA-capable device is detected")                         \
    X(ErrorInvalidDevice, 101, "invalid device ordinal")                                \
    X(ErrorDeviceUninitialized, 201, "invalid device context")                          \
    X(ErrorNoKernelImageForDevice, 209,                                                 \
      "no kernel image is available for execution on the device")                       \
    X(ErrorUnsupportedLimit, 215, "limit is not supported on this architecture")        \
    X(ErrorPeerAccessUnsupported, 217,                                                  \
      "peer access is not supported between these two devices")

/* list the errors of states */
#define DLS_STATES(X)                                                                   \
    X(ErrorInvalidResourceHandle, 400, "invalid resource handle")                       \
    X(ErrorIllegalState, 401,                                                           \
      "the operation cannot be performed in the present state")                         \
    X(ErrorLossyQuery, 402, "attempted introspection would be semantically lossy")      \
    X(ErrorSymbolNotFound, 500, "named symbol not found")                               \
    X(ErrorNotReady, 600, "device not ready")                                           \
    X(ErrorIllegalAddress, 700, "an illegal memory access was encountered")             \
    X(ErrorLaunchOutOfResources, 701, "too many resources requested for launch")        \
    X(ErrorLaunchTimeout, 702, "the launch timed out and was terminated")               \
    X(ErrorPeerAccessAlreadyEnabled, 704, "peer access is already enabled")             \
    X(ErrorPeerAccessNotEnabled, 705, "peer access has not been enabled")               \
    X(ErrorSetOnActiveProcess, 708,                                                     \
      "cannot set while device is active in this process")                              \
    X(ErrorContextIsDestroyed, 709, "context is destroyed")                             \
    X(ErrorAssert, 710, "device-side assert triggered")                                 \
    X(ErrorHostMemoryAlreadyRegistered, 712,                                            \
      "part or all of the requested memory range is already mapped")                    \
    X(ErrorHostMemoryNotRegistered, 713,                                                \
      "pointer does not correspond to a registered memory region")

/* list the faults of kernels */
#define DLS_FAULTS(X)                                                                   \
    X(ErrorIllegalInstruction, 715, "an illegal instruction was encountered")           \
    X(ErrorMisalignedAddress, 716, "misaligned address")                                \
    X(ErrorInvalidAddressSpace, 717,                                                    \
      "operation not supported on global/shared address space")                         \
    X(ErrorInvalidPc, 718, "invalid program counter")                                   \
    X(ErrorLaunchFailure, 719, "unspecified launch failure")                            \
    X(ErrorCooperativeLaunchTooLarge, 720, "too many blocks in cooperative launch")     \
    X(ErrorNotPermitted, 800, "operation not permitted")                                \
    X(ErrorNotSupported, 801, "operation not supported")

/* list the errors of captures */
#define DLS_CAPTURES(X)                                                                 \
    X(ErrorStreamCaptureUnsupported, 900,                                               \
      "operation not permitted when stream is capturing")                               \
    X(ErrorStreamCaptureInvalidated, 901,                                               \
      "operation failed due to a previous error during capture")                        \
    X(ErrorStreamCaptureMerge, 902,                                                     \
      "operation would result in a merge of separate capture sequences")                \
    X(ErrorStreamCaptureUnmatched, 903,                                                 \
      "capture was not ended in the same stream as it began")                           \
    X(ErrorStreamCaptureUnjoined, 904, "capturing stream has unjoined work")            \
    X(ErrorStreamCaptureIsolation, 905,                                                 \
      "dependency created on uncaptured work in another stream")                        \
    X(ErrorStreamCaptureImplicit, 906,                                                  \
      "operation would make the legacy stream depend on a capturing blocking stream")   \
    X(ErrorCapturedEvent, 907,                                                          \
      "operation not permitted on an event last recorded in a capturing stream")        \
    X(ErrorStreamCaptureWrongThread, 908,                                               \
      "attempt to terminate a thread-local capture sequence from another thread")       \
    X(ErrorTimeout, 909, "wait operation timed out")                                    \
    X(ErrorGraphExecUpdateFailure, 910,                                                 \
      "the graph update was not performed because it included changes which "           \
      "violated constraints specific to instantiated graph update")                     \
    X(ErrorInvalidClusterSize, 912,                                                     \
      "a kernel launch error has occurred due to cluster misconfiguration")             \
    X(ErrorInvalidResourceType, 914,                                                    \
      "one or more resources passed in are not valid resource types for the "           \
      "operation")                                                                      \
    X(ErrorInvalidResourceConfiguration, 915,                                           \
      "one or more resources are insufficient or non-applicable for the operation")     \
    X(ErrorUnknown, 999, "unknown error")

#define DLS_CUDA_ERRORS(X)                                                              \
    X(Success, 0, "no error") DLS_ARGUMENTS(X) DLS_STATES(X) DLS_FAULTS(X) DLS_CAPTURES(X)

#define X(name, number, text) cuda##name = number,
typedef enum cudaError { DLS_CUDA_ERRORS(X) } cudaError_t;
#undef X

#endif
