/* tests/vgpu/probed_streams.cu: from chapters/A-virtual-gpu-check-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Planted faults: races between operations of streams, and with the host. */
#include "check_test.h"

#include <cublas_v2.h>

/* kernels for streams */
__global__ void fill(float *x)
{
    x[threadIdx.x] = 1.0f; // fill
}
__global__ void sum_up(const float *x, float *y)
{
    y[threadIdx.x] = x[threadIdx.x]; // sum_up
}

struct two_streams {
    cudaStream_t a, b;
    two_streams(unsigned flags = cudaStreamNonBlocking)
    {
        OK(cudaStreamCreateWithFlags(&a, flags));
        OK(cudaStreamCreateWithFlags(&b, flags));
    }
    ~two_streams()
    {
        cudaStreamDestroy(a);
        cudaStreamDestroy(b);
    }
};

/* Where a party to a race stands: in a kernel, in a function of the host, or where the
 * test of this name calls the runtime. */
static int line_of_party(const char *who, const char *name)
{
    return line_of(strstr(who, "'fill'") ? "fill" : strstr(who, "'sum_up'") ? "sum_up"
                   : strstr(who, "read by the host") ? "look_at"
                   : strstr(who, "written by the host") ? "overwrite" : name);
}

/* Two operations race; each is named with its stream, and with its line. */
static void expect_streams(const char *name, const char *one, const char *two)
{
    const dls_check_report *r = only_report(DLS_CHECK_STREAM_RACE, name);
    int swapped = strstr(r->here.what, one) == NULL;
    const dls_check_party *a = swapped ? &r->there : &r->here;
    const dls_check_party *b = swapped ? &r->here : &r->there;
    cr_assert(strstr(a->what, one) && strstr(b->what, two), "%s: %s, %s", name, a->what,
              b->what);
    cr_assert(a->line && a->line == line_of_party(one, name), "%s: %s, line %d", name,
              a->what, a->line);
    cr_assert(b->line && b->line == line_of_party(two, name), "%s: %s, line %d", name,
              b->what, b->line);
}

#define STREAM_FAULT(name, one, two, ...)                                         \
    Test(check_faults, name)                                                      \
    {                                                                             \
        CHECKED(seed)                                                             \
        {                                                                         \
            float *x = device<float>(64), *y = device<float>(64);                 \
            two_streams s;                                                        \
            OK(cudaDeviceSynchronize());                                          \
            __VA_ARGS__;                                                          \
            cudaDeviceSynchronize();                                              \
            expect_streams(#name, one, two);                                      \
            OK(cudaFree(x));                                                      \
            OK(cudaFree(y));                                                      \
        }                                                                         \
    }
/* forget an event */
STREAM_FAULT(no_event, "'fill' in stream", "'sum_up' in stream",
             fill<<<1, 64, 0, s.a>>>(x); sum_up<<<1, 64, 0, s.b>>>(x, y))

STREAM_FAULT(event_too_early, "'fill' in stream", "'sum_up' in stream", cudaEvent_t e;
             OK(cudaEventCreate(&e)); OK(cudaEventRecord(e, s.a));
             fill<<<1, 64, 0, s.a>>>(x); OK(cudaStreamWaitEvent(s.b, e, 0));
             sum_up<<<1, 64, 0, s.b>>>(x, y); OK(cudaEventDestroy(e)))

STREAM_FAULT(two_writers, // two_writers
             "'fill' in stream", "'memset' in stream",
             fill<<<1, 64, 0, s.a>>>(x); OK(cudaMemsetAsync(x, 0, 256, s.b)))

STREAM_FAULT(beside_the_default, "'fill' in default stream", "'sum_up' in stream",
             fill<<<1, 64>>>(x); sum_up<<<1, 64, 0, s.a>>>(x, y))

STREAM_FAULT(copy_beside_kernel, // copy_beside_kernel
             "'fill' in stream", "'copy on device' in stream",
             fill<<<1, 64, 0, s.a>>>(x);
             OK(cudaMemcpyAsync(y, x, 256, cudaMemcpyDeviceToDevice, s.b)))

STREAM_FAULT(last_byte_of_a_copy, // last_byte_of_a_copy
             "'fill' in stream", "'copy on device' in stream",
             fill<<<1, 33, 0, s.a>>>(x);
             OK(cudaMemcpyAsync(x + 32, y, 4, cudaMemcpyDeviceToDevice, s.b)))

STREAM_FAULT(product_beside_kernel, // product_beside_kernel
             "'fill' in stream", "'sgemm' in stream",
             const float one = 1; const float zero = 0; cublasHandle_t blas;
             cublasCreate(&blas); cublasSetStream(blas, s.b);
             fill<<<1, 64, 0, s.a>>>(x);
             cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, x, 4, x, 4, &zero,
                         y, 4);
             cublasDestroy(blas))
/* use memory that a stream uses */
Test(check_faults, freed_while_in_use)
{
    CHECKED(seed)
    {
        two_streams s;
        float *x = NULL, *y = device<float>(64);
        OK(cudaDeviceSynchronize()); // y is zero now, also for s.b
        OK(cudaMallocAsync((void **)&x, 256, s.a));
        fill<<<1, 64, 0, s.a>>>(x);
        OK(cudaStreamSynchronize(s.a));
        sum_up<<<1, 64, 0, s.b>>>(x, y);
        OK(cudaFreeAsync(x, s.a)); // freed_while_in_use
        OK(cudaDeviceSynchronize());
        cr_assert_geq(dls_check_count(), 1);
        const dls_check_report *r = dls_check_report_number(0);
        cr_assert(r->kind == DLS_CHECK_STREAM_RACE || r->kind == DLS_CHECK_AFTER_FREE);
        int line = line_of("sum_up");
        cr_assert(r->here.line == line || r->there.line == line);
        int freed = r->kind == DLS_CHECK_AFTER_FREE ? r->origin[1].line
                    : r->here.line == line ? r->there.line : r->here.line;
        cr_assert_eq(freed, line_of("freed_while_in_use"));
        OK(cudaFree(y));
    }
}
/* touch memory too early on the host */
static volatile float seen;

static __attribute__((noinline)) void look_at(const float *x)
{
    seen = x[5]; // look_at
}
static __attribute__((noinline)) void overwrite(float *x)
{
    x[5] = 2.0f; // overwrite
}

STREAM_FAULT(host_too_early, // host_too_early
             "read by the host", "'copy to host' in stream", float *h;
             OK(cudaMallocHost((void **)&h, 256));
             OK(cudaMemcpyAsync(h, x, 256, cudaMemcpyDeviceToHost, s.a));
             look_at(h);
             OK(cudaDeviceSynchronize()); OK(cudaFreeHost(h)))

STREAM_FAULT(staging_overwritten, // staging_overwritten
             "written by the host", "'copy to device' in stream",
             float *h; OK(cudaMallocHost((void **)&h, 256)); memset(h, 0, 256);
             OK(cudaMemcpyAsync(x, h, 256, cudaMemcpyHostToDevice, s.a)); overwrite(h);
             OK(cudaDeviceSynchronize()); OK(cudaFreeHost(h)))

STREAM_FAULT(managed_too_early, "read by the host", "'fill' in stream",
             float *m = managed<float>(64, 0); fill<<<1, 64, 0, s.a>>>(m);
             look_at(m); OK(cudaDeviceSynchronize()); OK(cudaFree(m)))
/* forget to look */
Test(check_faults, never_recorded)
{
    CHECKED(seed)
    {
        cudaEvent_t e;
        OK(cudaEventCreate(&e));
        OK(cudaStreamWaitEvent(0, e, 0)); // never_recorded
        expect(DLS_CHECK_NEVER_RECORDED, "never_recorded", "never recorded");
        OK(cudaEventDestroy(e));
    }
}

Test(check_faults, launch_unseen)
{
    CHECKED(seed)
    {
        fill<<<1, 2000>>>(NULL); // launch_unseen
        dls_check_look_at_the_end();
        expect(DLS_CHECK_LAUNCH_ERROR, "launch_unseen", "the launch of fill failed");
        cudaGetLastError();
    }
}

Test(check_faults, error_returned)
{
    CHECKED(seed)
    {
        cudaMemset(NULL, 0, 16); // error_returned
        expect(DLS_CHECK_API_ERROR, "error_returned", "cudaErrorInvalidValue");
        cudaGetLastError();
    }
}
