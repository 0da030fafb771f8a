/* tests/vgpu/test_graphs.c: from chapters/A-virtual-gpu-graphs.md. Edit the chapter, or edit here and run "make untangle". */
/* Graphs by capture and replay: times, values, order, errors; stream priorities. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vgpu/gpu.h"

#define US 1e-6
#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

#ifdef DLS_VIRTUAL_GPU // times, orders and refusals of the emulation
#include "under_seed.h"

/* enqueue affine steps for graph tests */
typedef struct step {
    long *to;
    const long *from;
    long factor;
    double *finish;
} step;

static int steps_destroyed;

static int step_run(void *arg, double start, double *finish)
{
    step *a = arg;
    (void)start;
    *a->to = *a->from * a->factor + 1;
    if (a->finish)
        *a->finish = *finish;
    return 0;
}

static void step_destroy(void *arg)
{
    steps_destroyed++;
    free(arg);
}

/* to := from * factor + 1, in a kernel of at least `us` microseconds. */
static cudaError_t affine(cudaStream_t s, long *to, const long *from, long factor,
                          double us, double *finish)
{
    step *a = malloc(sizeof *a);
    *a = (step){to, from, factor, finish};
    dls_gpu_op op = {.name = "affine", .run = step_run, .destroy = step_destroy,
                     .flops = us * US * 53.6e12};
    return dls_gpu_enqueue(s, &op, a);
}

static cudaGraphExec_t end_capture(cudaStream_t s)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    OK(cudaStreamEndCapture(s, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    return exec;
}

static void near_us(double got, double expected_us)
{
    cr_assert(fabs(got - expected_us * US) < 1e-12, "%.6f us instead of %.6f us",
              got / US, expected_us);
}

/* test graphs and priorities */
/* test the time of a graph */
Test(vgpu, a_graph_closes_the_comb)
{
    cudaStream_t s;
    long x = 0;
    double finish = 0;
    OK(cudaStreamCreate(&s));
    for (int i = 0; i < 163; i++)
        OK(affine(s, &x, &x, 1, 0, &finish));
    OK(cudaStreamSynchronize(s));
    near_us(finish, 624.3);
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < 163; i++)
        OK(affine(s, &x, &x, 1, 0, &finish));
    cudaGraphExec_t exec = end_capture(s);
    double before = dls_gpu_host_time();
    OK(cudaGraphLaunch(exec, s));
    near_us(dls_gpu_host_time() - before, 3.8);
    OK(cudaStreamSynchronize(s));
    near_us(finish - before, 360.24);
    near_us(dls_gpu_host_time() - before, 360.24);
    cr_assert_eq(x, 2 * 163);
    OK(cudaGraphExecDestroy(exec));
}

/* test the values of a replay */
Test(vgpu, a_replay_reads_what_is_there_then)
{
    cudaStream_t s, t;
    long x = 0;
    OK(cudaStreamCreate(&s));
    OK(cudaStreamCreate(&t));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    OK(affine(s, &x, &x, 2, 0, NULL));
    OK(affine(s, &x, &x, 3, 0, NULL));
    cudaGraphExec_t exec = end_capture(s);
    OK(cudaDeviceSynchronize());
    cr_assert_eq(x, 0, "captured, not run");
    OK(cudaGraphLaunch(exec, s)); // 0 -> 1 -> 4
    OK(cudaStreamSynchronize(s));
    cr_assert_eq(x, 4);
    x = 10;
    OK(cudaGraphLaunch(exec, s)); // 10 -> 21 -> 64
    OK(cudaGraphLaunch(exec, t)); // 64 -> 129 -> 388: one after the other
    cr_assert_eq(steps_destroyed, 0);
    OK(cudaGraphExecDestroy(exec)); // runs what is queued first
    cr_assert_eq(x, 388);
    cr_assert_eq(steps_destroyed, 2);
}

Test(vgpu, a_captured_copy_reads_pinned_memory_late)
{
    cudaStream_t s;
    int *pinned, *device, local = 1, back = 0;
    OK(cudaStreamCreate(&s));
    OK(cudaMallocHost((void **)&pinned, sizeof *pinned));
    OK(cudaMalloc((void **)&device, sizeof *device));
    *pinned = 1;
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    OK(cudaMemcpyAsync(device, pinned, 4, cudaMemcpyHostToDevice, s));
    cudaGraphExec_t exec = end_capture(s);
    *pinned = 7;
    OK(cudaGraphLaunch(exec, s));
    OK(cudaMemcpy(&back, device, 4, cudaMemcpyDeviceToHost));
    cr_assert_eq(back, 7);
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    cr_assert_eq(cudaMemcpyAsync(device, &local, 4, cudaMemcpyHostToDevice, s),
                 cudaErrorStreamCaptureUnsupported);
}

/* test a graph of two streams */
/* a -> (b, c) -> d in a graph, launched twice; returns d's value. */
static long fork_and_join(double finish[4])
{
    cudaStream_t s, t;
    cudaEvent_t fork, join;
    long a = 0, b = 0, c = 0, d = 0;
    OK(cudaStreamCreate(&s));
    OK(cudaStreamCreate(&t));
    OK(cudaEventCreate(&fork));
    OK(cudaEventCreate(&join));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    OK(affine(s, &a, &d, 2, 4, &finish[0])); // a = 2 d + 1
    OK(cudaEventRecord(fork, s));
    OK(cudaStreamWaitEvent(t, fork, 0));
    OK(affine(s, &b, &a, 3, 10, &finish[1])); // b = 3 a + 1
    OK(affine(t, &c, &a, 5, 3, &finish[2]));  // c = 5 a + 1
    OK(cudaEventRecord(join, t));
    OK(cudaStreamWaitEvent(s, join, 0));
    OK(affine(s, &d, &c, 1, 2, &finish[3])); // d = c + 1
    cudaGraphExec_t exec = end_capture(s);
    OK(cudaGraphLaunch(exec, s)); // a 1, b 4, c 6, d 7
    OK(cudaGraphLaunch(exec, s)); // a 15, b 46, c 76, d 77
    OK(cudaStreamSynchronize(s));
    return 1000 * b + d;
}

static long fork_and_join_value(void)
{
    double finish[4];
    return fork_and_join(finish);
}

Test(vgpu, branches_of_a_graph_keep_their_order)
{
    cr_assert_eq(wrong_seeds(fork_and_join_value, 46077), 0);
}

Test(vgpu, branches_of_a_graph_run_side_by_side)
{
    double finish[4];
    fork_and_join(finish);
    // four launches were captured at 3.8 each; then the two launches of the graph
    const double start = 4 * 3.8 + 6.7 + (23.04 - 6.7);
    near_us(finish[0], start + 4);
    near_us(finish[1], start + 4 + 0.17 + 10);
    near_us(finish[2], start + 4 + 0.17 + 3);
    near_us(finish[3], start + 4 + 0.17 + 10 + 0.17 + 2);
}

/* test what a capture refuses */
static cudaStream_t caught, other;
static cudaEvent_t before_capture;

static cudaError_t call_synchronize(void) { return cudaStreamSynchronize(caught); }
static cudaError_t call_query(void) { return cudaStreamQuery(caught); }
static cudaError_t call_device(void) { return cudaDeviceSynchronize(); }
static cudaError_t call_isolation(void)
{
    return cudaStreamWaitEvent(caught, before_capture, 0);
}

static cudaError_t call_malloc(void)
{
    void *p;
    return cudaMalloc(&p, 64);
}

static int never_ready(void *arg, double *earliest)
{
    (void)arg;
    (void)earliest;
    return 0;
}

static cudaError_t call_receive(void)
{
    dls_gpu_op op = {.name = "receive", .ready = never_ready};
    return dls_gpu_enqueue(caught, &op, NULL);
}

Test(vgpu, a_capture_is_spoiled_by_what_it_forbids)
{
    static const struct { cudaError_t (*call)(void); cudaError_t error; } cases[] = {
        {call_synchronize, cudaErrorStreamCaptureUnsupported},
        {call_query, cudaErrorStreamCaptureUnsupported},
        {call_device, cudaErrorStreamCaptureUnsupported},
        {call_malloc, cudaErrorStreamCaptureUnsupported},
        {call_receive, cudaErrorStreamCaptureUnsupported},
        {call_isolation, cudaErrorStreamCaptureIsolation},
    };
    enum cudaStreamCaptureStatus status;
    long x = 0;
    OK(cudaStreamCreate(&caught));
    OK(cudaEventCreate(&before_capture));
    OK(cudaEventRecord(before_capture, caught));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cudaGraph_t graph = (cudaGraph_t)&x;
        OK(cudaStreamBeginCapture(caught, cudaStreamCaptureModeGlobal));
        cr_assert_eq(cases[i].call(), cases[i].error, "case %zu", i);
        OK(cudaStreamIsCapturing(caught, &status));
        cr_assert_eq(status, cudaStreamCaptureStatusInvalidated, "case %zu", i);
        cr_assert_eq(affine(caught, &x, &x, 1, 0, NULL),
                     cudaErrorStreamCaptureInvalidated, "case %zu", i);
        cr_assert_eq(cudaStreamEndCapture(caught, &graph),
                     cudaErrorStreamCaptureInvalidated, "case %zu", i);
        cr_assert_null(graph);
    }
    OK(cudaStreamSynchronize(caught));
    OK(cudaStreamIsCapturing(caught, &status));
    cr_assert_eq(status, cudaStreamCaptureStatusNone);
}

/* test who may end a capture */
Test(vgpu, a_fork_must_join)
{
    cudaGraph_t graph;
    cudaEvent_t fork;
    long x = 0;
    OK(cudaStreamCreate(&caught));
    OK(cudaStreamCreate(&other));
    OK(cudaEventCreate(&fork));
    cr_assert_eq(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeGlobal),
                 cudaErrorStreamCaptureUnsupported);
    cr_assert_eq(cudaStreamEndCapture(caught, &graph), cudaErrorIllegalState);
    OK(cudaStreamBeginCapture(caught, cudaStreamCaptureModeRelaxed));
    cr_assert_eq(cudaStreamBeginCapture(caught, cudaStreamCaptureModeRelaxed),
                 cudaErrorIllegalState);
    OK(cudaEventRecord(fork, caught));
    OK(cudaStreamWaitEvent(other, fork, 0));
    OK(affine(other, &x, &x, 1, 0, NULL));
    cr_assert_eq(cudaStreamEndCapture(caught, &graph), cudaErrorStreamCaptureUnjoined);
    cr_assert_eq(cudaEventSynchronize(fork), cudaErrorCapturedEvent);
    cr_assert_eq(cudaStreamWaitEvent(other, fork, 0), cudaErrorCapturedEvent);
    cr_assert_str_eq(cudaGetErrorName(cudaErrorCapturedEvent), "cudaErrorCapturedEvent");
    OK(affine(other, &x, &x, 1, 0, NULL));
    OK(cudaStreamSynchronize(other));
    cr_assert_eq(x, 1, "the captured one never ran");
}

Test(vgpu, two_captures_do_not_mix)
{
    cudaGraph_t graph;
    cudaEvent_t event;
    long x = 0;
    OK(cudaStreamCreate(&caught));
    OK(cudaStreamCreate(&other));
    OK(cudaEventCreate(&event));
    OK(cudaStreamBeginCapture(caught, cudaStreamCaptureModeGlobal));
    OK(cudaStreamBeginCapture(other, cudaStreamCaptureModeGlobal));
    OK(cudaEventRecord(event, caught));
    cr_assert_eq(cudaStreamWaitEvent(other, event, 0), cudaErrorStreamCaptureMerge);
    cr_assert_eq(cudaStreamEndCapture(other, &graph), cudaErrorStreamCaptureInvalidated);
    cr_assert_eq(cudaStreamEndCapture(caught, &graph), cudaErrorStreamCaptureInvalidated);

    OK(cudaStreamBeginCapture(caught, cudaStreamCaptureModeGlobal));
    OK(cudaEventRecord(event, caught));
    OK(cudaStreamWaitEvent(other, event, 0));
    cr_assert_eq(cudaStreamEndCapture(other, &graph), cudaErrorStreamCaptureUnmatched);
    cr_assert_eq(affine(NULL, &x, &x, 1, 0, NULL), cudaErrorStreamCaptureImplicit);
    cr_assert_eq(cudaStreamEndCapture(caught, &graph), cudaErrorStreamCaptureInvalidated);
    OK(affine(NULL, &x, &x, 1, 0, NULL));
}

/* test priorities of streams */
static long urgent_last(int priority)
{
    cudaStream_t a, b;
    long x = 0;
    OK(cudaStreamCreate(&a));
    OK(cudaStreamCreateWithPriority(&b, cudaStreamDefault, priority));
    OK(affine(a, &x, &x, 2, 0, NULL));
    OK(affine(b, &x, &x, 5, 0, NULL)); // first: 1, then 3; last: 1, then 6
    OK(cudaDeviceSynchronize());
    return x;
}

static long with_priority(void) { return urgent_last(-3); }
static long without_priority(void) { return urgent_last(0); }

Test(vgpu, an_urgent_stream_goes_first)
{
    int least = 9, greatest = 9, priority = 9;
    cudaStream_t s;
    cr_assert_eq(wrong_seeds(with_priority, 3), 0);
    int wrong = wrong_seeds(without_priority, 3);
    cr_assert(wrong >= 10 && wrong <= 40, "%d of 50 seeds", wrong);
    OK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    cr_assert(least == 0 && greatest == -5);
    OK(cudaStreamCreateWithPriority(&s, cudaStreamNonBlocking, -99));
    OK(cudaStreamGetPriority(s, &priority));
    cr_assert_eq(priority, -5);
}
#endif
