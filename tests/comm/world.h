/* tests/comm/world.h: from chapters/04-data-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* For tests with ranks: a cluster of round numbers, a world, expectations as statuses. */
#ifndef DLS_TESTS_COMM_WORLD_H
#define DLS_TESTS_COMM_WORLD_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "comm/comm.h"
#include "comm/launch.h"
#include "launched.h"
#include "vgpu/gpu.h"

/* write a cluster of round numbers */
#define TEST_ALPHA 2e-6  // s
#define TEST_BETA 1e-11  // s per byte

/* A new file; the name is static and good until the process ends. */
static inline const char *test_cluster(int nodes, int gpus_per_node)
{
    static char path[300];
    snprintf(path, sizeof path, "%.250s/dls-cluster-XXXXXX", test_folder());
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f)
        return NULL;
    fprintf(f, "name: test\nnodes: %d\ngpus_per_node: %d\n", nodes, gpus_per_node);
    fputs("device:\n  name: test\n  memory_gb: 8\n  f32_tflops: 10\n  tf32_tflops: 10\n"
          "  bf16_tflops: 10\n  f64_tflops: 10\n  memory_gb_s: 1000\n"
          "  flops_efficiency: 1\n  memory_efficiency: 1\n  launch_us: 1\n"
          "  launch_latency_us: 2\n  least_kernel_us: 1\n  host_gb_s: 50\n"
          "  host_latency_us: 1\n  graph_gap_us: 0\n  multiprocessors: 100\n"
          "  compute_capability: 9.0\n  clock_mhz: 1000\n  l2_mb: 50\n"
          "  memory_bus_bits: 1024\n  copy_engines: 2\n  pcie_generation: 5\n"
          "  pcie_lanes: 16\n  shared_kb_per_multiprocessor: 228\n"
          "  shared_kb_per_block: 227\n  registers_per_multiprocessor: 65536\n"
          "  threads_per_multiprocessor: 2048\n  blocks_per_multiprocessor: 32\n"
          "links:\n"
          "  intra: {alpha_us: 2, gb_s: 100, efficiency: 1}\n"
          "  inter: {alpha_us: 10, gb_s: 10, efficiency: 1}\n", f);
    fclose(f);
    return path;
}

/* open a test world */
static inline dls_status test_world(const char *cluster, dls_comm **comm)
{
    dls_gpu_options options = {.cluster_file = cluster};
    DLS_TRY(dls_gpu_init(&options));
    return dls_comm_create(comm, NULL);
}

typedef struct world { int n; const char *cluster; } world;

/* `bytes` of memory for communication. */
static inline dls_status test_buffer(void *pointer, size_t bytes)
{
    DLS_CUDA(dls_gpu_alloc_shared((void **)pointer, bytes ? bytes : 1));
    return DLS_OK;
}

/* A world of the default cluster, and 1,024 zeros. */
static inline dls_status test_start(dls_comm **comm, float **buf)
{
    DLS_TRY(test_world(NULL, comm));
    DLS_TRY(test_buffer(buf, 4096));
    memset(*buf, 0, 4096);
    return DLS_OK;
}

/* expect within a rank */
/* In a rank's function, where Criterion's own assertions would end the wrong process. */
#define EXPECT(condition, ...)                         \
    do {                                               \
        test_checks++;                                 \
        if (!(condition))                              \
            return DLS_FAIL(DLS_ERR_STATE, __VA_ARGS__); \
    } while (0)

#define expect_ranks(n, fn, arg)                                            \
    do {                                                                    \
        if (test_skips(n))                                                  \
            break;                                                          \
        dls_status status_ = test_run_ranks(n, fn, arg);                    \
        cr_assert_eq(status_, DLS_OK, "%d ranks: %s", n, dls_status_message()); \
    } while (0)

#endif
