/* tests/vgpu/test_clock.c: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* The laws of the clock, against times worked out by hand. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "vgpu/gpu.h"
#include "vgpu_child.h"

#define US 1e-6
#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

#ifdef DLS_VIRTUAL_GPU // times, orders and capacities of the emulation
/* launch empty operations for tests */
/* How tests read the clock: an operation that notes its own times. */
typedef struct note { double start, finish; } note;

static int note_run(void *arg, double start, double *finish)
{
    note *n = arg;
    n->start = start;
    n->finish = *finish;
    return 0;
}

static void launch(cudaStream_t stream, note *n, double flops, double bytes)
{
    dls_gpu_op op = {.name = "noted", .run = note_run, .flops = flops, .bytes = bytes};
    OK(dls_gpu_enqueue(stream, &op, n));
}

static void near(double got, double expected, const char *what)
{
    cr_assert(fabs(got - expected) < 1e-12, "%s: %.9f us instead of %.9f us", what,
              got / US, expected / US);
}

/* test launch bound kernels */
Test(vgpu, three_tiny_kernels)
{
    cudaStream_t s;
    note n[3];
    OK(cudaStreamCreate(&s));
    for (int i = 0; i < 3; i++)
        launch(s, &n[i], 0, 0);
    near(dls_gpu_host_time(), 11.4 * US, "host after the launches");
    OK(cudaStreamSynchronize(s));
    near(n[0].start, 6.7 * US, "start of kernel 1");
    near(n[1].start, 10.5 * US, "start of kernel 2");
    near(n[2].start, 14.3 * US, "start of kernel 3");
    near(n[2].finish, 16.3 * US, "finish of kernel 3");
    near(dls_gpu_host_time(), 16.3 * US, "host after synchronising");
}

Test(vgpu, long_kernel_hides_launches)
{
    cudaStream_t s;
    note n[3];
    OK(cudaStreamCreate(&s));
    launch(s, &n[0], 20 * US * 67e12 * 0.8, 0);
    launch(s, &n[1], 0, 0);
    launch(s, &n[2], 0, 0);
    OK(cudaStreamSynchronize(s));
    near(n[0].finish, 26.7 * US, "finish of the long kernel");
    near(n[1].start, 26.7 * US, "start of kernel 2");
    near(n[2].finish, 30.7 * US, "finish of kernel 3");
}

/* test the roofline */
Test(vgpu, roofline_takes_the_slower)
{
    dls_device_spec d = dls_gpu_cluster()->device;
    near(dls_cluster_duration(&d, DLS_WORK_OTHER, 0, 0), 2 * US, "least kernel");
    near(dls_cluster_duration(&d, DLS_WORK_NORM, 53.6e12, 0), 1, "arithmetic");
    near(dls_cluster_duration(&d, DLS_WORK_OTHER, 1, 3.015e12), 1, "traffic");
    near(dls_cluster_duration(&d, DLS_WORK_GEMM_BF16, 53.6e12, 0), 53.6 / (989.4 * 0.8),
         "bf16");
    near(dls_cluster_duration(&d, DLS_WORK_ATTENTION_BF16, 53.6e12, 0),
         53.6 / (989.4 * 0.655), "attention");
}

/* test events on the clock */
Test(vgpu, event_orders_two_streams)
{
    cudaStream_t compute, comm;
    cudaEvent_t ready;
    note first, second, sent;
    const double flops = 100 * US * 53.6e12; // 100 us each
    OK(cudaStreamCreate(&compute));
    OK(cudaStreamCreate(&comm));
    OK(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
    launch(compute, &first, flops, 0);
    OK(cudaEventRecord(ready, compute));
    OK(cudaStreamWaitEvent(comm, ready, 0));
    launch(comm, &sent, flops / 2, 0);
    launch(compute, &second, flops, 0);
    OK(cudaDeviceSynchronize());
    near(first.finish, 106.7 * US, "first gradient");
    near(sent.start, 106.7 * US, "send waits for it");
    near(sent.finish, 156.7 * US, "send overlaps");
    near(second.finish, 206.7 * US, "second gradient");
    near(dls_gpu_host_time(), 206.7 * US, "host");
}

Test(vgpu, elapsed_time_is_virtual)
{
    cudaStream_t s;
    cudaEvent_t a, b;
    note n;
    float ms = -1;
    OK(cudaStreamCreate(&s));
    OK(cudaEventCreate(&a));
    OK(cudaEventCreate(&b));
    OK(cudaEventRecord(a, s));
    launch(s, &n, 3e-3 * 53.6e12, 0);
    OK(cudaEventRecord(b, s));
    cr_assert_eq(cudaEventElapsedTime(&ms, a, b), cudaErrorNotReady);
    OK(cudaEventSynchronize(b));
    OK(cudaEventElapsedTime(&ms, a, b));
    cr_assert(fabsf(ms - 3.0f) < 1e-5f, "%f ms", (double)ms);
}

Test(vgpu, polling_ends_at_a_definite_time)
{
    cudaStream_t s;
    note n;
    int polls = 0;
    OK(cudaStreamCreate(&s));
    launch(s, &n, 0, 0);
    while (cudaStreamQuery(s) == cudaErrorNotReady)
        polls++;
    cr_assert_eq(polls, 5, "%d polls", polls); // 3.8, 4.8 ... 8.8 >= 8.7
    near(dls_gpu_host_time(), 8.8 * US, "host after polling");
}

/* test the clock under seeds */
static double random_program(uint64_t seed)
{
    dls_gpu_options options = {.seed = seed, .world = 1};
    cudaStream_t streams[4] = {NULL}; // streams[0]: the default stream
    cudaEvent_t events[3];
    static note notes[200];
    uint32_t x = 12345;
    OK(dls_gpu_init(&options));
    for (int i = 1; i < 4; i++) {
        OK(cudaStreamCreateWithFlags(&streams[i], i == 3 ? cudaStreamNonBlocking : 0));
        OK(cudaEventCreate(&events[i - 1]));
    }
    for (int i = 0; i < 200; i++) {
        x = x * 1664525 + 1013904223;
        cudaStream_t s = streams[(x >> 24) % 16 ? 1 + (x >> 16) % 3 : 0];
        cudaEvent_t e = events[(x >> 8) % 3];
        launch(s, &notes[i], (double)(x >> 12) * 1e3, 0);
        if (x & 0x10000000)
            OK(cudaEventRecord(e, s));
        if (x & 0x20000000)
            OK(cudaStreamWaitEvent(streams[1 + (x >> 20) % 3], e, 0));
    }
    OK(cudaDeviceSynchronize());
    double sum = 0;
    for (int i = 0; i < 200; i++)
        sum += notes[i].finish;
    return sum;
}

Test(vgpu, times_do_not_depend_on_the_seed)
{
    expect_one_time(random_program, 50);
}
#endif
