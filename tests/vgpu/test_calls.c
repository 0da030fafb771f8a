/* tests/vgpu/test_calls.c: from chapters/A-virtual-gpu-calls.md. Edit the chapter, or edit here and run "make untangle". */
/* Questions about streams, callbacks, and graphs looked at as nodes. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)
#define IS(expr, error) cr_expect_eq((int)(expr), (int)(error), "%s", #expr)

/* test questions about streams */
Test(vgpu, streams_tell_their_flags_and_device)
{
    cudaStream_t plain, free_running;
    cudaEvent_t event;
    unsigned int flags;
    unsigned long long one, two;
    int device;
    OK(cudaStreamCreate(&plain));
    OK(cudaStreamCreateWithFlags(&free_running, cudaStreamNonBlocking));
    OK(cudaStreamGetFlags(free_running, &flags));
    cr_expect_eq(flags, cudaStreamNonBlocking);
    OK(cudaStreamGetFlags(plain, &flags));
    cr_expect_eq(flags, cudaStreamDefault);
    OK(cudaStreamGetDevice(plain, &device));
    cr_expect_eq(device, 0);
    OK(cudaStreamGetId(plain, &one));
    OK(cudaStreamGetId(free_running, &two));
    cr_expect_neq(one, two);
    IS(cudaStreamGetFlags(plain, NULL), cudaErrorInvalidValue);
    OK(cudaEventCreate(&event));
    OK(cudaEventRecordWithFlags(event, plain, cudaEventRecordDefault));
    IS(cudaEventRecordWithFlags(event, plain, 2), cudaErrorInvalidValue);
    IS(cudaEventCreateWithFlags(&event, 8), cudaErrorInvalidValue);
    IS(cudaEventCreateWithFlags(&event, cudaEventInterprocess), cudaErrorInvalidValue);
    IS(cudaStreamDestroy(cudaStreamPerThread), cudaErrorInvalidResourceHandle);
}

/* test callbacks */
static cudaError_t seen, inside;

static void note(cudaStream_t stream, cudaError_t status, void *user)
{
    int device;
    (void)stream;
    seen = status;
    inside = cudaGetDevice(&device);
    (*(int *)user)++;
}

Test(vgpu, callbacks_run_in_stream_order)
{
    cudaStream_t s;
    int calls = 0;
    seen = cudaErrorUnknown;
    OK(cudaStreamCreate(&s));
    OK(cudaStreamAddCallback(s, note, &calls, 0));
    OK(cudaStreamSynchronize(s));
    cr_expect(calls == 1 && seen == cudaSuccess);
    IS(cudaStreamAddCallback(s, NULL, &calls, 0), cudaErrorInvalidValue);
    IS(cudaStreamAddCallback(s, note, &calls, 1), cudaErrorInvalidValue);
#ifdef DLS_VIRTUAL_GPU
    IS(inside, cudaErrorNotPermitted);
#endif
}

#ifdef DLS_VIRTUAL_GPU
/* test the stream of a thread */
static unsigned long long id_here(void)
{
    unsigned long long id = 0;
    OK(cudaStreamGetId(cudaStreamPerThread, &id));
    return id;
}

static void *ask_in_a_thread(void *out)
{
    *(unsigned long long *)out = id_here();
    return NULL;
}

Test(vgpu, every_thread_has_a_default_stream)
{
    unsigned long long other = 0;
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, ask_in_a_thread, &other), 0);
    pthread_join(thread, NULL);
    cr_expect_eq(id_here(), id_here());
    cr_expect_neq(id_here(), other);
    cr_expect_neq(id_here(), 0, "not the legacy stream");
}
#endif

/* test nodes clones and updates */
static void nothing(void *user) { (void)user; }

static cudaGraph_t captured(char *to, int value, int shape)
{
    cudaStream_t s, t;
    cudaEvent_t fork, join;
    cudaGraph_t g;
    OK(cudaStreamCreate(&s));
    OK(cudaStreamCreate(&t));
    OK(cudaEventCreate(&fork));
    OK(cudaEventCreate(&join));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    OK(cudaMemsetAsync(to, value, 8, s));
    OK(cudaEventRecord(fork, s));
    OK(cudaStreamWaitEvent(t, fork, 0));
    OK(cudaMemcpyAsync(to + 8, to, 8, cudaMemcpyDeviceToDevice, s));
    if (shape == 1)
        OK(cudaMemsetAsync(to + 16, value, 8, t));
    else
        OK(cudaMemcpyAsync(to + 16, to, 8, cudaMemcpyDeviceToDevice, t));
    if (shape == 2)
        OK(cudaMemsetAsync(to + 16, value, 8, t));
    OK(cudaEventRecord(join, t));
    OK(cudaStreamWaitEvent(s, join, 0));
    OK(cudaLaunchHostFunc(s, nothing, NULL));
    OK(cudaStreamEndCapture(s, &g));
    return g;
}

static int last_byte(const char *device)
{
    char byte = 0;
    OK(cudaDeviceSynchronize());
    OK(cudaMemcpy(&byte, device + 23, 1, cudaMemcpyDeviceToHost));
    return byte;
}

static void update(cudaGraphExec_t exec, char *x, cudaGraph_t second)
{
    cudaGraphExecUpdateResultInfo info;
    OK(cudaGraphExecUpdate(exec, second, &info));
    cr_expect_eq((int)info.result, cudaGraphExecUpdateSuccess);
    OK(cudaGraphLaunch(exec, 0));
    cr_expect_eq(last_byte(x), 2);
    cr_expect_eq((int)cudaGraphExecUpdate(exec, captured(x, 3, 1), &info),
                 cudaErrorGraphExecUpdateFailure);
    cr_expect_eq((int)info.result, cudaGraphExecUpdateErrorNodeTypeChanged);
    IS(cudaGraphExecUpdate(exec, captured(x, 3, 2), &info),
       cudaErrorGraphExecUpdateFailure);
    cr_expect_eq((int)info.result, cudaGraphExecUpdateErrorTopologyChanged);
    OK(cudaGraphLaunch(exec, 0));
    cr_expect_eq(last_byte(x), 2, "a refused update changes nothing");
}

Test(vgpu, graphs_are_looked_at_cloned_and_updated)
{
    char *x;
    OK(cudaMalloc((void **)&x, 24));
    cudaGraph_t first = captured(x, 1, 0), second = captured(x, 2, 0), clone;
    cudaGraphExec_t exec;
    cudaGraphNode_t nodes[6];
    enum cudaGraphNodeType type;
    size_t count = 0;
    OK(cudaGraphGetNodes(first, NULL, &count));
    cr_expect_eq(count, 4);
    count = 6;
    OK(cudaGraphGetNodes(first, nodes, &count));
    cr_expect(count == 4 && nodes[4] == NULL);
    count = 6;
    OK(cudaGraphGetRootNodes(first, nodes, &count));
    cr_expect_eq(count, 1);
    OK(cudaGraphNodeGetType(nodes[0], &type));
    cr_expect_eq(type, cudaGraphNodeTypeMemset);
    IS(cudaGraphNodeGetType(NULL, &type), cudaErrorInvalidValue);
    OK(cudaGraphClone(&clone, first));
    OK(cudaGraphDestroy(first)); // the clone goes on
    OK(cudaGraphInstantiate(&exec, clone, 0));
    OK(cudaGraphLaunch(exec, 0));
    cr_expect_eq(last_byte(x), 1);
    update(exec, x, second);
    OK(cudaGraphExecDestroy(exec));
    OK(cudaGraphDestroy(second));
    OK(cudaGraphDestroy(clone));
}
