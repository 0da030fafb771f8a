/* tests/vgpu/test_streams.c: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Order of execution: correct programs under fifty seeds, and planted mistakes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vgpu/gpu.h"
#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

#ifdef DLS_VIRTUAL_GPU // times, orders and capacities of the emulation
#include "under_seed.h"
#include "vgpu/vgpu_internal.h"

/* enqueue small assignments */
/* *to = *from * factor + 1, as an operation of a stream. */
typedef struct assignment { long *to; const long *from; long factor; } assignment;

static int assign(void *arg, double start, double *finish)
{
    (void)start;
    (void)finish;
    assignment *a = arg;
    *a->to = *a->from * a->factor + 1;
    return 0;
}

static void enqueue_assign(cudaStream_t stream, long *to, const long *from, long factor)
{
    assignment *a = malloc(sizeof *a);
    *a = (assignment){to, from, factor};
    dls_gpu_op op = {.name = "assign", .run = assign, .destroy = free};
    OK(dls_gpu_enqueue(stream, &op, a));
}

/* test order within a stream */
static long chain(void)
{
    cudaStream_t s;
    long x = 0;
    OK(cudaStreamCreate(&s));
    for (int i = 0; i < 10; i++)
        enqueue_assign(s, &x, &x, 2); // 1, 3, 7 ... 2^n - 1
    OK(cudaStreamSynchronize(s));
    return x;
}

Test(vgpu, a_stream_keeps_its_order) { cr_assert_eq(wrong_seeds(chain, 1023), 0); }

/* test the missing event */
/* One stream computes x, the other uses it; with_event says whether it waits. */
static long two_streams(int with_event)
{
    cudaStream_t a, b;
    cudaEvent_t ready;
    long x = 0, y = 0;
    OK(cudaStreamCreate(&a));
    OK(cudaStreamCreate(&b));
    OK(cudaEventCreate(&ready));
    enqueue_assign(a, &x, &x, 0); // x = 1
    OK(cudaEventRecord(ready, a));
    if (with_event)
        OK(cudaStreamWaitEvent(b, ready, 0));
    enqueue_assign(b, &y, &x, 5); // y = 6, or 1 when too early
    OK(cudaDeviceSynchronize());
    return y;
}

static long with_event(void) { return two_streams(1); }
static long without_event(void) { return two_streams(0); }

Test(vgpu, an_event_orders_two_streams) { cr_assert_eq(wrong_seeds(with_event, 6), 0); }

Test(vgpu, a_missing_event_shows)
{
    int wrong = wrong_seeds(without_event, 6);
    cr_assert(wrong >= 10 && wrong <= 40, "%d of 50 seeds show it", wrong);
}

/* test the default stream */
static long around_default(unsigned int flags)
{
    cudaStream_t a, b;
    long x = 0, y = 0, z = 0;
    OK(cudaStreamCreateWithFlags(&a, flags));
    OK(cudaStreamCreateWithFlags(&b, flags));
    enqueue_assign(a, &x, &x, 0);    // x = 1
    enqueue_assign(NULL, &y, &x, 5); // y = 6
    enqueue_assign(b, &z, &y, 2);    // z = 13
    OK(cudaDeviceSynchronize());
    return z;
}

static long blocking(void) { return around_default(cudaStreamDefault); }
static long non_blocking(void) { return around_default(cudaStreamNonBlocking); }

/* Only the second half: a non-blocking stream behind the default stream. */
static long behind_default(void)
{
    cudaStream_t b;
    long y = 0, z = 0;
    OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    enqueue_assign(NULL, &y, &y, 0); // y = 1
    enqueue_assign(b, &z, &y, 2);    // z = 3
    OK(cudaDeviceSynchronize());
    return z;
}

Test(vgpu, the_default_stream_orders_blocking_streams)
{
    cr_assert_eq(wrong_seeds(blocking, 13), 0);
    cr_assert_gt(wrong_seeds(non_blocking, 13), 10);
    cr_assert_gt(wrong_seeds(behind_default, 3), 10);
}

/* test laziness */
Test(vgpu, nothing_runs_before_it_must)
{
    cudaStream_t s;
    long x = 0;
    OK(cudaStreamCreate(&s));
    enqueue_assign(s, &x, &x, 0);
    cr_assert_eq(x, 0, "ran before any synchronisation");
    OK(cudaStreamSynchronize(s));
    cr_assert_eq(x, 1);
}

Test(vgpu, long_queues_are_drained)
{
    cudaStream_t s;
    long x = 0;
    OK(cudaStreamCreate(&s));
    for (int i = 0; i < 2000; i++)
        enqueue_assign(s, &x, &x, 1);
    cr_assert_gt(x, 900, "only %ld of 2000 ran", x);
    OK(cudaStreamSynchronize(s));
    cr_assert_eq(x, 2000);
}

/* test operations that wait */
typedef struct message { int looks_left; double arrival, finished; } message;

static int message_ready(void *arg, double *earliest)
{
    message *m = arg;
    *earliest = m->arrival;
    return m->looks_left <= 0;
}

static int message_run(void *arg, double start, double *finish)
{
    message *m = arg;
    m->finished = *finish = start;
    return 0;
}

static void message_describe(void *arg, char *text, size_t size)
{
    (void)arg;
    snprintf(text, size, "message 7 from rank 1");
}

static int bring_nearer(void *arg) { return --((message *)arg)->looks_left == 1; }

static dls_gpu_op receive_op(int line)
{
    return (dls_gpu_op){.name = "receive", .kind = DLS_GPU_COMMUNICATION,
                        .ready = message_ready, .run = message_run,
                        .describe = message_describe, .file = "chapters/x.md",
                        .line = line};
}

Test(vgpu, a_receive_waits_for_its_message)
{
    cudaStream_t s;
    message m = {.looks_left = 3, .arrival = 1e-3};
    dls_gpu_op op = receive_op(1);
    OK(cudaStreamCreate(&s));
    dls_gpu_set_idle(bring_nearer, &m);
    OK(dls_gpu_enqueue(s, &op, &m));
    double before = dls_gpu_host_time();
    cr_assert_eq(cudaStreamQuery(s), cudaErrorNotReady);
    cr_assert_float_eq(dls_gpu_host_time(), before + 1e-6, 1e-12, "a question");
    OK(cudaStreamSynchronize(s));
    cr_assert_eq(m.finished, 1e-3);
    cr_assert_eq(dls_gpu_host_time(), 1e-3);
}

/* test deadlock reports */
static dls_status synchronise(cudaStream_t s)
{
    DLS_CUDA(cudaStreamSynchronize(s));
    return DLS_OK;
}

Test(vgpu, a_deadlock_is_reported_at_once)
{
    cudaStream_t s;
    message never = {.looks_left = 1000};
    dls_gpu_op op = receive_op(77);
    OK(cudaStreamCreate(&s));
    OK(dls_gpu_name_stream(s, "comm"));
    OK(dls_gpu_enqueue(s, &op, &never));
    cr_assert_eq(synchronise(s), DLS_ERR_STATE);
    const char *start = "deadlock: comm: 'receive' (chapters/x.md:77) waits for "
                        "message 7 from rank 1; the host waits in "
                        "cudaStreamSynchronize at chapters/A-virtual-gpu-runtime.md:";
    cr_assert_eq(strncmp(dls_status_message(), start, strlen(start)), 0, "%s",
                 dls_status_message());
    cr_assert_eq(cudaStreamSynchronize(s), cudaErrorLaunchTimeout, "sticky");
    OK(cudaDeviceReset());
    OK(cudaStreamSynchronize(s));
}

static int doze(void *arg) { (void)arg; return usleep(10000); }

Test(vgpu, the_watchdog_ends_a_wait)
{
    cudaStream_t s;
    message never = {.looks_left = 1000};
    dls_gpu_op op = receive_op(5);
    setenv("DLS_WATCHDOG", "0.2", 1);
    OK(cudaStreamCreate(&s));
    dls_gpu_set_idle(doze, NULL);
    OK(dls_gpu_enqueue(s, &op, &never));
    cr_assert_eq(synchronise(s), DLS_ERR_COMM);
    cr_assert(strstr(dls_status_message(), "no progress for 0.2 s: stream 1: 'receive'"),
              "%s", dls_status_message());
}

/* test failing operations */
static int destroyed;
static void count_destroy(void *arg) { (void)arg; destroyed++; }

static int fail(void *arg, double start, double *finish)
{
    (void)arg;
    (void)start;
    (void)finish;
    return -(int)DLS_FAIL(DLS_ERR_COMM, "rank 2 is gone");
}

Test(vgpu, a_failing_operation_is_sticky)
{
    cudaStream_t s;
    dls_gpu_op bad = {.name = "bad", .run = fail, .destroy = count_destroy,
                      .file = "f.md", .line = 3};
    dls_gpu_op good = {.name = "good", .destroy = count_destroy};
    OK(cudaStreamCreate(&s));
    OK(dls_gpu_enqueue(s, &good, NULL));
    OK(dls_gpu_enqueue(s, &bad, NULL));
    OK(dls_gpu_enqueue(s, &good, NULL));
    OK(dls_gpu_enqueue(s, &good, NULL));
    cr_assert_eq(synchronise(s), DLS_ERR_COMM);
    cr_assert_str_eq(dls_status_message(),
                     "operation 'bad' of stream 1 (f.md:3): rank 2 is gone");
    cr_assert_eq(destroyed, 4);
    cr_assert_eq(dls_gpu_enqueue(s, &good, NULL), cudaErrorLaunchFailure);
    cr_assert_eq(destroyed, 5, "also when the enqueue fails");
    cr_assert_eq(cudaGetLastError(), cudaErrorLaunchFailure);
    cr_assert_eq(cudaGetLastError(), cudaErrorLaunchFailure, "can not be cleared");
}

Test(vgpu, a_fork_after_the_first_call_is_refused)
{
    cudaStream_t s;
    int status;
    OK(cudaStreamCreate(&s));
    pid_t child = fork();
    if (child == 0)
        _exit(synchronise(s) == DLS_ERR_STATE &&
              strstr(dls_status_message(), "fork before the first CUDA call") ? 7 : 1);
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    OK(cudaStreamSynchronize(s));
}

/* test refused launches */
static void never_run(void *closure) { (void)closure; cr_assert_fail("it ran"); }

Test(vgpu, impossible_launches_are_refused)
{
    static const struct { unsigned grid[3], block[3]; size_t shared; } bad[] = {
        {{1, 1, 1}, {1025, 1, 1}, 0}, {{1, 1, 1}, {32, 33, 1}, 0},
        {{1, 1, 1}, {1, 1, 65}, 0},   {{0, 1, 1}, {32, 1, 1}, 0},
        {{1, 65536, 1}, {1, 1, 1}, 0}, {{1, 1, 1}, {0, 1, 1}, 0},
        {{1, 1, 1}, {32, 1, 1}, 227 * 1024 + 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        destroyed = 0;
        cr_assert_eq(dls_vgpu_enqueue_kernel("k", bad[i].grid, bad[i].block,
                                             bad[i].shared, NULL, never_run, NULL,
                                             count_destroy),
                     cudaErrorInvalidConfiguration, "case %zu", i);
        cr_assert_eq(destroyed, 1);
        cr_assert_eq(cudaGetLastError(), cudaErrorInvalidConfiguration);
        cr_assert_eq(cudaGetLastError(), cudaSuccess, "not sticky");
    }
    OK(cudaDeviceSynchronize());
}

Test(vgpu, dead_handles_are_refused)
{
    cudaStream_t s;
    cudaEvent_t e;
    OK(cudaStreamCreate(&s));
    OK(cudaEventCreate(&e));
    OK(cudaStreamDestroy(s));
    cr_assert_eq(cudaStreamSynchronize(s), cudaErrorInvalidResourceHandle);
    cr_assert_eq(cudaEventRecord(e, s), cudaErrorInvalidResourceHandle);
    cr_assert_eq(cudaStreamDestroy(NULL), cudaErrorInvalidResourceHandle);
    cr_assert_eq(cudaSetDevice(8), cudaErrorInvalidDevice);
    OK(cudaEventSynchronize(e)); // never recorded: passed
}
#endif
