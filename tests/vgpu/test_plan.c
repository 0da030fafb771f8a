/* tests/vgpu/test_plan.c: from chapters/A-virtual-gpu-sharing.md. Edit the chapter, or edit here and run "make untangle". */
/* What operations share: the roof and the copy engines, against times by hand. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "vgpu/gpu.h"
#include "vgpu/trace.h"
#include "vgpu_child.h"

#define US 1e-6
#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

#ifdef DLS_VIRTUAL_GPU // times of the emulation
/* launch kernels for tests */
typedef struct note { double start, finish; } note;

static int note_run(void *arg, double start, double *finish)
{
    *(note *)arg = (note){start, *finish};
    return 0;
}

static void kernel(cudaStream_t stream, note *n, double us)
{
    dls_gpu_op op = {.name = "kernel", .run = note_run, .flops = us * US * 53.6e12,
                     .planned = 1};
    OK(dls_gpu_enqueue(stream, &op, n));
}

static void streams(cudaStream_t *s, int n)
{
    for (int i = 0; i < n; i++)
        OK(cudaStreamCreateWithFlags(&s[i], cudaStreamNonBlocking));
}

static void near(double got, double us, const char *what)
{
    cr_assert(fabs(got - us * US) < 1e-12, "%s: %.9f us instead of %.9f us", what,
              got / US, us);
}

/* test that large kernels follow each other */
Test(vgpu, two_large_kernels_share_one_roof)
{
    cudaStream_t s[4];
    note n[4];
    streams(s, 4);
    kernel(s[0], &n[0], 100);
    kernel(s[1], &n[1], 100);
    kernel(s[2], &n[2], 0);
    OK(cudaSetDevice(1));
    streams(&s[3], 1);
    kernel(s[3], &n[3], 50);
    OK(cudaStreamSynchronize(s[3]));
    OK(cudaSetDevice(0));
    OK(cudaDeviceSynchronize());
    near(n[0].finish, 106.7, "the first has the roof");
    near(n[1].start, 106.7, "the second waits for it");
    near(n[1].finish, 206.7, "and takes as long");
    near(n[2].start, 14.3, "an empty kernel takes no part of the roof");
    near(n[3].start, 18.1, "another device has a roof of its own");
}

/* test that small kernels share */
Test(vgpu, small_kernels_share_the_roof)
{
    cudaStream_t s[5];
    cudaEvent_t go;
    note n[5];
    streams(s, 5);
    OK(cudaEventCreate(&go));
    kernel(s[0], &n[0], 100);
    OK(cudaEventRecord(go, s[0]));
    for (int i = 1; i < 5; i++) {
        OK(cudaStreamWaitEvent(s[i], go, 0));
        kernel(s[i], &n[i], i < 4 ? 1 : 0.5);
    }
    OK(cudaDeviceSynchronize());
    near(n[1].start, 106.7, "half of the roof");
    near(n[2].start, 106.7, "the other half");
    near(n[3].start, 108.7, "no room for a third");
    near(n[4].start, 108.7, "a quarter fits beside the third");
}

/* test the copy engines */
static double span_start(const char *name, int k); // of the k-th such span, by start

Test(vgpu, copies_in_one_direction_queue)
{
    const double length = 8 + 1e6 / 55e3;
    cudaStream_t s[4];
    char *host, *device;
    note n;
    dls_trace_enable(1);
    streams(s, 4);
    OK(cudaMallocHost((void **)&host, 4 << 20));
    OK(cudaMalloc((void **)&device, 4 << 20));
    double t = dls_gpu_host_time() / US;
    kernel(s[3], &n, 500);
    OK(cudaMemcpyAsync(device, host, 1000000, cudaMemcpyHostToDevice, s[0]));
    OK(cudaMemcpyAsync(device + (1 << 20), host, 1000000, cudaMemcpyHostToDevice, s[1]));
    OK(cudaMemcpyAsync(host + (2 << 20), device + (2 << 20), 1000000,
                       cudaMemcpyDeviceToHost, s[2]));
    OK(cudaDeviceSynchronize());
    near(span_start("copy to device", 0), t + 3.8 + 6.7, "beside the kernel");
    near(span_start("copy to device", 1), t + 3.8 + 6.7 + length, "behind the first");
    near(span_start("copy to host", 0), t + 11.4 + 6.7, "the other direction");
}

Test(vgpu, a_copy_that_is_ready_does_not_wait_for_one_that_is_not)
{
    cudaStream_t s[2];
    char *host, *device;
    note n;
    dls_trace_enable(1);
    streams(s, 2);
    OK(cudaMallocHost((void **)&host, 4 << 20));
    OK(cudaMalloc((void **)&device, 4 << 20));
    double t = dls_gpu_host_time() / US;
    kernel(s[0], &n, 500);
    OK(cudaMemcpyAsync(device, host, 1000000, cudaMemcpyHostToDevice, s[0]));
    OK(cudaMemcpyAsync(device + (1 << 20), host, 1000000, cudaMemcpyHostToDevice, s[1]));
    OK(cudaDeviceSynchronize());
    near(span_start("copy to device", 0), t + 7.6 + 6.7, "the second one, at once");
    near(span_start("copy to device", 1), t + 6.7 + 500, "the first one, when ready");
}

Test(vgpu, a_gap_has_to_be_long_enough)
{
    cudaStream_t s[2];
    char *host, *device;
    note n;
    dls_trace_enable(1);
    streams(s, 2);
    OK(cudaMallocHost((void **)&host, 16 << 20));
    OK(cudaMalloc((void **)&device, 16 << 20));
    double t = dls_gpu_host_time() / US;
    kernel(s[0], &n, 100);
    OK(cudaMemcpyAsync(device, host, 1000000, cudaMemcpyHostToDevice, s[0]));
    OK(cudaMemcpyAsync(device + (1 << 20), host, 8000000, cudaMemcpyHostToDevice, s[1]));
    OK(cudaDeviceSynchronize());
    near(span_start("copy to device", 0), t + 106.7, "the short one");
    near(span_start("copy to device", 1), t + 106.7 + 8 + 1e6 / 55e3, "behind it");
}

Test(vgpu, four_operations_find_their_places)
{
    const double megabyte = 8 + 1e6 / 55e3;
    cudaStream_t s[2];
    char *host, *device;
    note first, last;
    dls_trace_enable(1);
    streams(s, 2);
    OK(cudaMallocHost((void **)&host, 4 << 20));
    OK(cudaMalloc((void **)&device, 4 << 20));
    double t = dls_gpu_host_time() / US;
    kernel(s[0], &first, 100);
    OK(cudaMemcpyAsync(device, host, 1000000, cudaMemcpyHostToDevice, s[0]));
    OK(cudaMemcpyAsync(device + (1 << 20), host, 1000000, cudaMemcpyHostToDevice, s[1]));
    kernel(s[1], &last, 50);
    OK(cudaDeviceSynchronize());
    near(span_start("copy to device", 0), t + 14.3, "slips in");
    near(span_start("copy to device", 1), t + 106.7, "behind its kernel");
    near(last.start, t + 106.7, "waits for the roof");
    near(last.finish, t + 156.7, "takes its time");
    cr_assert_lt(14.3 + megabyte, 106.7, "the gap is long enough");
}

static double span_start(const char *name, int k)
{
    double start[16];
    int count = 0;
    const dls_trace_span *span;
    for (int i = 0; (span = dls_trace_span_at(i)) != NULL && count < 16; i++)
        if (strcmp(span->name, name) == 0)
            start[count++] = span->start;
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && start[j - 1] > start[j]; j--) {
            double swap = start[j];
            start[j] = start[j - 1];
            start[j - 1] = swap;
        }
    cr_assert_lt(k, count, "%d spans of '%s'", count, name);
    return start[k];
}

/* test that the unknown runs alone */
static int late(void *arg, double start, double *finish)
{
    (void)arg;
    *finish = start + 50 * US;
    return 0;
}

Test(vgpu, what_is_not_known_runs_alone)
{
    dls_gpu_op op = {.name = "message", .kind = DLS_GPU_COMMUNICATION, .run = late};
    cudaStream_t s[2];
    note n[4];
    streams(s, 2);
    OK(dls_gpu_enqueue(s[0], &op, NULL));
    kernel(s[0], &n[0], 100); // behind the message
    kernel(s[1], &n[1], 100);
    OK(cudaDeviceSynchronize());
    near(n[0].start, 56.7, "behind the message");
    near(n[1].start, 14.3, "and the other beside it");
    double t = dls_gpu_host_time() / US;
    kernel(s[0], &n[2], 100);
    kernel(s[1], &n[3], 100);
    OK(cudaDeviceSynchronize());
    near(n[2].start, t + 6.7, "known again");
    near(n[3].start, t + 106.7, "and shared");
}

/* test plans under seeds */
static double busy_program(uint64_t seed)
{
    dls_gpu_options options = {.seed = seed, .world = 1};
    dls_gpu_op message = {.name = "message", .run = late};
    static note notes[300];
    cudaStream_t s[4];
    cudaEvent_t e;
    char *host, *device;
    uint32_t x = 4711;
    double sum = 0;
    OK(dls_gpu_init(&options));
    streams(s, 4);
    OK(cudaEventCreate(&e));
    OK(cudaMallocHost((void **)&host, 1 << 20));
    OK(cudaMalloc((void **)&device, 1 << 20));
    for (int i = 0; i < 300; i++) {
        x = x * 1664525 + 1013904223;
        cudaStream_t to = s[(x >> 24) % 4];
        /* enqueue one of five things */
        switch ((x >> 16) % 8) {
        case 0: OK(cudaEventRecord(e, to)); break;
        case 1: OK(cudaStreamWaitEvent(to, e, 0)); break;
        case 2: OK(cudaMemcpyAsync(device, host, x >> 14, cudaMemcpyHostToDevice, to)); break;
        case 3: OK(cudaMemcpyAsync(host, device, x >> 14, cudaMemcpyDeviceToHost, to)); break;
        case 4: if (i % 40 == 0) OK(dls_gpu_enqueue(to, &message, NULL)); break;
        case 5: if (i % 60 == 0) OK(cudaStreamSynchronize(to)); break;
        default: kernel(to, &notes[i], (double)((x >> 12) % 1000) / 50);
        }
    }
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 300; i++)
        sum += notes[i].start + 3 * notes[i].finish;
    return sum + dls_gpu_host_time();
}

Test(vgpu, plans_do_not_depend_on_the_seed)
{
    expect_one_time(busy_program, 50);
}
#endif
