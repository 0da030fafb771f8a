/* code/vgpu/simt_launch.c: from chapters/A-virtual-gpu-simt-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Between the runtime (streams, errors, options) and the SIMT engine: refuses launches
 * that hardware would refuse, runs the others, and breaks the device when one faults. */
#include "vgpu/accounts.h"
#include "vgpu/observer.h"
#include "vgpu/occupancy.h"
#include "vgpu/simt.h"

#include "base/log.h"

#include <malloc.h>
#include <stdlib.h>

/* keep the attributes of kernels */
typedef struct kernel_attributes {
    struct kernel_attributes *next;
    const void *kernel;
    size_t shared_limit;  // bytes of dynamic shared memory
} kernel_attributes;

static kernel_attributes *known;  // guarded by the runtime's lock

static kernel_attributes *find(const void *kernel)
{
    kernel_attributes *k = known;
    while (k && k->kernel != kernel)
        k = k->next;
    return k;
}

static cudaError_t set_shared_limit(const void *kernel, int bytes)
{
    kernel_attributes *k = find(kernel);
    if (bytes < 0 || bytes > dls_gpu_cluster()->device.shared_per_block)
        return cudaErrorInvalidValue;
    if (!k && (k = calloc(1, sizeof *k))) {
        k->kernel = kernel;
        k->next = known;
        known = k;
    }
    if (k)
        k->shared_limit = (size_t)bytes;
    return k ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t dls_simt_set_attribute(const void *kernel, int attribute, int value)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && !kernel)
        error = cudaErrorInvalidDeviceFunction;
    if (error == cudaSuccess &&
        attribute == cudaFuncAttributeMaxDynamicSharedMemorySize)
        error = set_shared_limit(kernel, value);
    return dls_vgpu_leave(error);
}

size_t dls_simt_shared_limit(const void *kernel)
{
    const kernel_attributes *k = find(kernel);
    return k ? k->shared_limit : 48 * 1024;
}
/* refuse a launch */
static int fit_together(const dls_simt_grid *g)
{
    enum { ASSUMED_REGISTERS = 32 };
    int threads = (int)(g->block[0] * g->block[1] * g->block[2]);
    unsigned long long blocks = 1ull * g->grid[0] * g->grid[1] * g->grid[2];
    int each = dls_gpu_occupancy(threads, ASSUMED_REGISTERS, g->shared_bytes);
    return blocks <= 1ull * (unsigned)each *
                     (unsigned)dls_vgpu.cluster.device.multiprocessors;
}

/* What the device would answer; *why says it in words. */
static cudaError_t judge(const dls_simt_grid *g, const char **why)
{
    const unsigned *n = g->grid, *b = g->block;
    const size_t limit = g->shared_limit ? g->shared_limit : 48 * 1024;
    *why = "the kernel is a null pointer";
    if (!g->kernel)
        return cudaErrorInvalidDeviceFunction;
    *why = "a dimension is 0";
    if (!n[0] || !n[1] || !n[2] || !b[0] || !b[1] || !b[2])
        return cudaErrorInvalidConfiguration;
    *why = "a block has at most 1024 threads, at most 1024 x 1024 x 64";
    if (b[0] > 1024 || b[1] > 1024 || b[2] > 64 || b[0] * b[1] * b[2] > 1024)
        return cudaErrorInvalidConfiguration;
    *why = "a grid has at most 2147483647 x 65535 x 65535 blocks";
    if (n[0] > 0x7fffffff || n[1] > 65535 || n[2] > 65535)
        return cudaErrorInvalidConfiguration;
    *why = "too much dynamic shared memory: 48 KiB, or what cudaFuncSetAttribute allowed";
    if (g->shared_bytes > limit)
        return cudaErrorInvalidValue;
    *why = "a cooperative launch has no more blocks than fit on the device together";
    return g->cooperative && !fit_together(g) ? cudaErrorCooperativeLaunchTooLarge
                                              : cudaSuccess;
}
/* enqueue a grid */
/* What a launch does on the host. The closure is destroyed in any case. */
cudaError_t dls_simt_enqueue_grid(dls_simt_grid *g, cudaStream_t stream,
                                  void (*run)(void *closure), void *closure,
                                  void (*destroy)(void *closure))
{
    const char *why;
    cudaError_t error = dls_vgpu_enter();
    kernel_attributes *k = find(g->kernel);
    g->shared_limit = k ? k->shared_limit : 0;
    cudaError_t refused = judge(g, &why);
    if (!error && refused)
        dls_log(DLS_LOG_WARN, "launch of kernel %s at %s:%d refused, <<<(%u,%u,%u), "
                "(%u,%u,%u), %zu>>>: %s", g->name, g->file, g->line, g->grid[0],
                g->grid[1], g->grid[2], g->block[0], g->block[1], g->block[2],
                g->shared_bytes, why);
    error = error ? error : refused;
    if (error && dls_vgpu_observer)
        dls_vgpu_observer->launch_failed(g->name, g->file, g->line, error);
    dls_vgpu_leave(error);
    if (!error)
        return dls_vgpu_enqueue_kernel(g->name, g->grid, g->block, g->shared_bytes,
                                       stream, run, closure, destroy);
    dls_gpu_op forget = {0};
    dls_vgpu_take_cost(&forget);
    destroy(closure);
    return error;
}
/* assume what was written */
static void assume_written(const dls_simt_grid *grid)
{
    void *const *word = grid->closure;
    size_t words = malloc_usable_size(grid->closure) / sizeof *word;
    for (size_t i = 0; i < words; i++) {
        const dls_account_block *b = dls_account_at(word[i]);
        if (b)
            dls_vgpu_touched(1, b->start, b->bytes, b->bytes, 1);
    }
}
/* run a launch */
void dls_simt_run_launch(const dls_simt_grid *grid)
{
    char message[1536];
    dls_simt_configure_once(dls_vgpu.threads, dls_vgpu.options.seed);
    int failed = dls_simt_run_grid(grid);
    if (grid->cooperative)
        assume_written(grid);
    if (!failed)
        return;
    int error = dls_simt_take_fault(message, sizeof message);
    dls_vgpu_break(error ? (cudaError_t)error : cudaErrorLaunchFailure, DLS_ERR_DEVICE,
                   "%s", error ? message : "");
}
