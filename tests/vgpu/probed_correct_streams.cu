/* tests/vgpu/probed_correct_streams.cu: from chapters/A-virtual-gpu-check-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Correct programs of several streams, pools, graphs and the host: nothing to report. */
#include "check_test.h"

#include "vgpu/gpu.h"

/* kernels for correct streams */
static __global__ void put(int *x, int v) { x[threadIdx.x] = v; }
static __global__ void add(const int *x, int *y) { y[threadIdx.x] += x[threadIdx.x]; }

/* Two streams that do not wait for the default stream, x and y of 64 ints, h pinned. */
#define ORDERED(name, flags, result, ...)                                         \
    Test(check_correct, name)                                                     \
    {                                                                             \
        CHECKED(seed)                                                             \
        {                                                                         \
            cudaStream_t a, b;                                                    \
            cudaEvent_t e;                                                        \
            int *x = device<int>(64), *y = device<int>(64), *h;                   \
            OK(cudaMallocHost((void **)&h, 256));                                 \
            OK(cudaStreamCreateWithFlags(&a, flags));                             \
            OK(cudaStreamCreateWithFlags(&b, flags));                             \
            OK(cudaEventCreate(&e));                                              \
            OK(cudaDeviceSynchronize());                                          \
            __VA_ARGS__;                                                          \
            OK(cudaDeviceSynchronize());                                          \
            OK(cudaMemcpy(h, y, 256, cudaMemcpyDeviceToHost));                    \
            cr_assert_eq(h[63], result, "%s: %d", #name, h[63]);                  \
            cr_assert_eq(dls_check_count(), 0, "%s", dls_check_report_number(0)->title); \
            OK(cudaEventDestroy(e));                                              \
            OK(cudaStreamDestroy(a));                                             \
            OK(cudaStreamDestroy(b));                                             \
            OK(cudaFreeHost(h));                                                  \
            OK(cudaFree(x));                                                      \
            OK(cudaFree(y));                                                      \
        }                                                                         \
    }
/* order streams */
ORDERED(event_between_streams, cudaStreamNonBlocking, 5, put<<<1, 64, 0, a>>>(x, 5);
        OK(cudaEventRecord(e, a)); OK(cudaStreamWaitEvent(b, e, 0));
        add<<<1, 64, 0, b>>>(x, y))

ORDERED(same_stream, cudaStreamNonBlocking, 12, put<<<1, 64, 0, a>>>(x, 6);
        add<<<1, 64, 0, a>>>(x, y); add<<<1, 64, 0, a>>>(x, y))

ORDERED(default_stream_joins, cudaStreamDefault, 7, put<<<1, 64, 0, a>>>(x, 7);
        add<<<1, 64>>>(x, y); put<<<1, 64, 0, b>>>(x, 0))

ORDERED(event_recorded_again, cudaStreamNonBlocking, 9, OK(cudaEventRecord(e, a));
        put<<<1, 64, 0, a>>>(x, 9); OK(cudaEventRecord(e, a));
        OK(cudaStreamWaitEvent(b, e, 0)); add<<<1, 64, 0, b>>>(x, y))

ORDERED(apart_in_one_buffer, cudaStreamNonBlocking, 4, put<<<1, 32, 0, a>>>(y, 3);
        put<<<1, 32, 0, b>>>(y + 32, 4))
/* order the host */
ORDERED(host_between_streams, cudaStreamNonBlocking, 5, put<<<1, 64, 0, a>>>(x, 5);
        OK(cudaStreamSynchronize(a)); add<<<1, 64, 0, b>>>(x, y))

ORDERED(pinned_staging, cudaStreamNonBlocking, 33, for (int i = 1; i <= 2; i++) {
            for (int k = 0; k < 64; k++)
                h[k] = 11 * i;
            OK(cudaMemcpyAsync(x, h, 256, cudaMemcpyHostToDevice, a));
            OK(cudaEventRecord(e, a));
            add<<<1, 64, 0, a>>>(x, y);
            OK(cudaEventSynchronize(e)); // the buffer may be filled again
        })

ORDERED(polled_event, cudaStreamNonBlocking, 0, put<<<1, 64, 0, a>>>(x, 8);
        OK(cudaMemcpyAsync(h, x, 256, cudaMemcpyDeviceToHost, a));
        OK(cudaEventRecord(e, a)); while (cudaEventQuery(e) == cudaErrorNotReady) {}
        cr_assert_eq(h[5], 8))

static int run_on_the_device(void *arg, double start, double *finish)
{
    (void)start, (void)finish;
    for (int i = 0; i < 64; i++)
        ((int *)arg)[i] = 13; // stands for a kernel
    return 0;
}
ORDERED(an_operation_in_cpp, cudaStreamNonBlocking, 13, dls_gpu_op op = {};
        op.name = "thirteen"; op.run = run_on_the_device; op.kind = DLS_GPU_COMPUTE;
        OK(dls_gpu_enqueue(a, &op, y)))
/* order pools and graphs */
ORDERED(pool_reuses, cudaStreamNonBlocking, 9, int *p; int *q;
        OK(cudaMallocAsync((void **)&p, 256, a)); put<<<1, 64, 0, a>>>(p, 4);
        add<<<1, 64, 0, a>>>(p, y); OK(cudaFreeAsync(p, a));
        OK(cudaMallocAsync((void **)&q, 256, a)); put<<<1, 64, 0, a>>>(q, 5);
        add<<<1, 64, 0, a>>>(q, y); OK(cudaFreeAsync(q, a)))

ORDERED(graph_replayed, cudaStreamNonBlocking, 6, cudaGraph_t g; cudaGraphExec_t x2;
        OK(cudaStreamBeginCapture(a, cudaStreamCaptureModeGlobal));
        put<<<1, 64, 0, a>>>(x, 2); OK(cudaEventRecord(e, a));
        OK(cudaStreamWaitEvent(b, e, 0)); add<<<1, 64, 0, b>>>(x, y);
        OK(cudaEventRecord(e, b)); OK(cudaStreamWaitEvent(a, e, 0));
        OK(cudaStreamEndCapture(a, &g)); OK(cudaGraphInstantiate(&x2, g, 0));
        for (int i = 0; i < 3; i++) OK(cudaGraphLaunch(x2, a));
        OK(cudaStreamSynchronize(a)); OK(cudaGraphExecDestroy(x2));
        OK(cudaGraphDestroy(g)))
