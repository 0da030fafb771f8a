/* code/vgpu/gpu_virtual_occupancy.c: from chapters/A-virtual-gpu-graphs.md. Edit the chapter, or edit here and run "make untangle". */
/* Occupancy, and copies between devices that wait, on the virtual backend. */
#include "vgpu/occupancy.h"

#include "vgpu/vgpu_internal.h"

/* count the blocks of a multiprocessor */
static int smaller(int a, int b) { return a < b ? a : b; }

static int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

int dls_gpu_occupancy(int threads, int registers, size_t shared)
{
    enum { RESERVED = 1024, SHARED_UNIT = 128, REGISTER_UNIT = 256 };
    const dls_device_spec *d = &dls_gpu_cluster()->device;
    if (threads < 1 || threads > 1024 || registers < 1 || registers > 255 ||
        shared > (size_t)d->shared_per_multiprocessor - RESERVED)
        return 0;
    int warps = (threads + 31) / 32, quarter = d->registers_per_multiprocessor / 4;
    int by_warps = d->threads_per_multiprocessor / 32 / warps;
    int by_registers = 4 * (quarter / round_up(32 * registers, REGISTER_UNIT)) / warps;
    int by_shared = d->shared_per_multiprocessor /
                    round_up((int)shared + RESERVED, SHARED_UNIT);
    return smaller(smaller(by_warps, d->blocks_per_multiprocessor),
                   smaller(by_registers, by_shared));
}

/* answer the cuda question of occupancy */
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel,
                                                          int threads, size_t shared)
{
    enum { ASSUMED_REGISTERS = 32 };
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (blocks == NULL || kernel == NULL || threads < 1))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *blocks = dls_gpu_occupancy(threads, ASSUMED_REGISTERS, shared);
    return dls_vgpu_leave(error);
}

/* copy between devices and wait */
cudaError_t cudaMemcpyPeer(void *to, int to_device, const void *from, int from_device,
                           size_t bytes)
{
    cudaError_t error = cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes,
                                            NULL);
    return error ? error : cudaStreamSynchronize(NULL);
}
