/* tests/vgpu/test_waits.c: from chapters/A-virtual-gpu-waits.md. Edit the chapter, or edit here and run "make untangle". */
/* Call sites of the host, and questions that must not depend on the seed. */
#include "vgpu_child.h"

#include "vgpu/gpu.h"

#ifdef DLS_VIRTUAL_GPU
#include "vgpu/waits.h"

/* test the sites */
static dls_gpu_host_wait seen;

static int look(void *arg)
{
    int *ready = arg;
    seen = dls_gpu_host_waits();
    return *ready = 1; // now it can run
}

static int is_ready(void *arg, double *earliest)
{
    *earliest = 0;
    return *(int *)arg;
}

/* Enqueues what is not ready until somebody has slept for it. */
static void block(cudaStream_t s, int *ready)
{
    dls_gpu_op op = {.name = "late", .ready = is_ready};
    *ready = 0;
    dls_gpu_set_idle(look, ready);
    cr_assert_eq(dls_gpu_enqueue(s, &op, ready), cudaSuccess);
}

static void expect_site(const char *call, int line)
{
    cr_assert_str_eq(seen.call, call);
    cr_assert_str_eq(seen.file, "chapters/A-virtual-gpu-waits.md");
    cr_assert_eq(seen.line, line, "%s at line %d, not %d", call, seen.line, line);
    cr_assert_eq(seen.awake, 0);
    cr_assert_eq(seen.threads, 1);
}


#define EXPECT_SITE(call, expression)                    \
    block(s, &ready);                                    \
    cudaEventRecord(e, s);                               \
    cr_assert_eq((expression), 0); expect_site(call, __LINE__)

Test(vgpu, waits_know_where_the_host_called)
{
    static int ready;
    int host, *device;
    cudaStream_t s = 0;
    cudaEvent_t e;
    cr_assert_eq(cudaEventCreate(&e), 0);
    cr_assert_eq(cudaMalloc((void **)&device, 4), 0);
    EXPECT_SITE("cudaStreamSynchronize", cudaStreamSynchronize(0));
    EXPECT_SITE("cudaDeviceSynchronize", cudaDeviceSynchronize());
    cr_assert_eq(seen.polls, 0);
    EXPECT_SITE("cudaEventSynchronize", cudaEventSynchronize(e));
    EXPECT_SITE("cudaMemcpy", cudaMemcpy(&host, device, 4, cudaMemcpyDeviceToHost));
    EXPECT_SITE("cudaStreamQuery", cudaStreamQuery(s) - cudaErrorNotReady);
    cr_assert_eq(seen.polls, 1);
    cudaError_t (*query)(cudaEvent_t) = cudaEventQuery; // no call, hence no note
    block(s, &ready);
    cudaEventRecord(e, s);
    cr_assert_eq(query(e), cudaErrorNotReady);
    cr_assert_str_eq(seen.call, "the host");
}

/* test elapsed times of unwaited streams */
static double short_and_long(uint64_t seed)
{
    dls_gpu_options options = {.seed = seed};
    dls_gpu_op brief = {.name = "brief", .bytes = 1e6}, lengthy = {.name = "long",
                                                                   .bytes = 1e9};
    cudaStream_t a, b;
    cudaEvent_t from, to;
    float ms = 0;
    if (dls_gpu_init(&options) != DLS_OK || cudaStreamCreate(&a) ||
        cudaStreamCreate(&b) || cudaEventCreate(&from) || cudaEventCreate(&to))
        return -1;
    cudaEventRecord(from, a);
    dls_gpu_enqueue(a, &brief, NULL);
    cudaEventRecord(to, a);
    dls_gpu_enqueue(b, &lengthy, NULL);
    cudaStreamSynchronize(b);
    return cudaEventElapsedTime(&ms, from, to) == cudaSuccess ? (double)ms : -1;
}

Test(vgpu, elapsed_times_do_not_depend_on_the_seed)
{
    expect_one_time(short_and_long, 20);
}
#endif
