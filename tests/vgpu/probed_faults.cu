/* tests/vgpu/probed_faults.cu: from chapters/A-virtual-gpu-check-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Planted faults: wrong addresses, and memory at the wrong time. */
#include "check_test.h"

#include <cublas_v2.h>
#include <stdint.h>

/* run past an array */
__global__ void one_too_many(float *x)
{
    x[threadIdx.x] = 1.0f; // past_the_end
}
FAULT(past_the_end, DLS_CHECK_GLOBAL_BOUNDS, "0 bytes past the end of 252 bytes",
      float *x = device<float>(63); one_too_many<<<1, 64>>>(x); OK(cudaFree(x)))

__global__ void far_away(float *x, int by)
{
    if (threadIdx.x == 5)
        x[threadIdx.x + by] = 1.0f; // far_past_the_end
}
FAULT(far_past_the_end, DLS_CHECK_GLOBAL_BOUNDS, "bytes past the end of 256 bytes",
      float *x = device<float>(64); float *y = device<float>(64);
      far_away<<<1, 64>>>(x, 1000); OK(cudaFree(x)); OK(cudaFree(y)))

__global__ void below(const float *x, float *y)
{
    y[threadIdx.x] = x[(int)threadIdx.x - 1]; // before_the_start
}
FAULT(before_the_start, DLS_CHECK_GLOBAL_BOUNDS, "thread (0,0,0) of block (0,0,0)",
      float *x = device<float>(64); float *y = device<float>(64);
      below<<<1, 64>>>(x, y); OK(cudaFree(x)); OK(cudaFree(y)))

__global__ void third_float(float *x)
{
    x[threadIdx.x] = 1.0f; // half_an_element
}
FAULT(half_an_element, DLS_CHECK_GLOBAL_BOUNDS, "bytes of device memory",
      char *x = device<char>(10); third_float<<<1, 3>>>((float *)x); OK(cudaFree(x)))

__global__ void write_to(float *x)
{
    *x = 1.0f; // null_pointer
}
FAULT(null_pointer, DLS_CHECK_GLOBAL_BOUNDS, "", write_to<<<1, 1>>>(NULL);
      cudaDeviceSynchronize(); cudaDeviceReset())
__global__ void astray(int *x, int *nowhere)
{
    x[64] = 1; // found_before_a_crash
    *nowhere = 2;
}
Test(check_faults, found_before_a_crash)
{
    CHECKED(seed)
    {
        int found = 0, *x = device<int>(64);
        astray<<<1, 1>>>(x, NULL);
        cudaDeviceSynchronize();
        for (unsigned i = 0; i < dls_check_count(); i++)
            found += dls_check_report_number(i)->here.line ==
                     line_of("found_before_a_crash");
        cr_assert_eq(found, 1);
        cudaDeviceReset();
    }
}
__global__ void local_index(float *x, int n)
{
    float taps[4] = {1, 2, 3, 4};
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += taps[i] * x[i]; // local_array
    x[threadIdx.x] = sum;
}
FAULT(local_array, DLS_CHECK_LOCAL_BOUNDS, "index 4", float *x = device<float>(64);
      local_index<<<1, 1>>>(x, 5); OK(cudaFree(x)))
/* run past a shared array */
__global__ void shared_index(float *x, int by)
{
    __shared__ float tile[64];
    float *p = tile;
    p[threadIdx.x + by] = x[threadIdx.x]; // static_shared
    __syncthreads();
    x[threadIdx.x] = tile[63];
}
FAULT(static_shared, DLS_CHECK_SHARED_BOUNDS, "past the end of the shared array 'tile'",
      float *x = device<float>(64); shared_index<<<1, 64>>>(x, 1); OK(cudaFree(x)))

__global__ void dynamic_index(float *x)
{
    extern __shared__ float room[];
    room[threadIdx.x] = x[threadIdx.x]; // dynamic_shared
}
FAULT(dynamic_shared, DLS_CHECK_SHARED_BOUNDS, "thread (64,0,0)",
      float *x = device<float>(65); dynamic_index<<<1, 65, 256>>>(x);
      cudaDeviceSynchronize(); cudaDeviceReset())

__global__ void no_shared(float *x)
{
    extern __shared__ float room[];
    room[threadIdx.x] = x[threadIdx.x]; // forgotten_shared
}
FAULT(forgotten_shared, DLS_CHECK_SHARED_BOUNDS, "of block (0,0,0)",
      float *x = device<float>(8); no_shared<<<1, 8>>>(x); cudaDeviceSynchronize();
      cudaDeviceReset())

__global__ void rows_of_a_tile(float *x, int rows)
{
    __shared__ float tile[4][8];
    for (int i = 0; i < rows; i++)
        tile[i][threadIdx.x] = x[threadIdx.x]; // shared_row
    __syncthreads();
    x[threadIdx.x] = tile[3][threadIdx.x];
}
FAULT(shared_row, DLS_CHECK_LOCAL_BOUNDS, "index 4", float *x = device<float>(8);
      rows_of_a_tile<<<1, 8>>>(x, 5); OK(cudaFree(x)))
/* misalign an access */
__global__ void vectors(const float *x, float *y)
{
    float4 v = *(const float4 *)(x + 1); // misaligned_float4
    y[0] = v.x + v.w;
}
FAULT(misaligned_float4, DLS_CHECK_MISALIGNED, "16 bytes at",
      float *x = device<float>(64); vectors<<<1, 1>>>(x, x + 32); OK(cudaFree(x)))

__global__ void pairs(float *x)
{
    *(double *)(x + 3) = 1.0; // misaligned_double
}
FAULT(misaligned_double, DLS_CHECK_MISALIGNED, "which is a multiple of 4 only",
      float *x = device<float>(64); pairs<<<1, 1>>>(x); OK(cudaFree(x)))

__global__ void bytes(char *x)
{
    *(int *)(x + threadIdx.x) = 1; // misaligned_int
}
FAULT(misaligned_int, DLS_CHECK_MISALIGNED, "4 bytes at", char *x = device<char>(64);
      bytes<<<1, 2>>>(x); OK(cudaFree(x)))

__global__ void shared_vectors(float *x)
{
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    float2 v = *(float2 *)&s[1]; // misaligned_shared
    x[threadIdx.x] = v.x;
}
FAULT(misaligned_shared, DLS_CHECK_MISALIGNED, "8 bytes at", float *x = device<float>(64);
      shared_vectors<<<1, 64>>>(x); OK(cudaFree(x)))
/* read what nobody wrote */
__global__ void copy_floats(const float *x, float *y)
{
    y[threadIdx.x] = x[threadIdx.x]; // never_written
}
FAULT(never_written, DLS_CHECK_UNINITIALISED, "256 bytes of device memory",
      float *x = device<float>(64, 0); float *y = device<float>(64);
      copy_floats<<<1, 64>>>(x, y); OK(cudaFree(x)); OK(cudaFree(y)))

__global__ void copy_rest(const float *x, float *y)
{
    y[threadIdx.x] = x[threadIdx.x]; // half_written
}
FAULT(half_written, DLS_CHECK_UNINITIALISED, "of 256 bytes",
      float *x = device<float>(64, 0); float *y = device<float>(64);
      OK(cudaMemset(x, 0, 128)); copy_rest<<<1, 64>>>(x, y); OK(cudaFree(x));
      OK(cudaFree(y)))

__global__ void all_but_one(char *x)
{
    if (threadIdx.x != 7)
        x[threadIdx.x] = 1;
}
__global__ void sum_bytes(const char *x, int *sum)
{
    atomicAdd(sum, x[threadIdx.x]); // one_byte
}
FAULT(one_byte, DLS_CHECK_UNINITIALISED, "byte 7 of 64 bytes",
      char *x = device<char>(64, 0); int *sum = device<int>(1);
      all_but_one<<<1, 64>>>(x); sum_bytes<<<1, 64>>>(x, sum); OK(cudaFree(x));
      OK(cudaFree(sum)))

__global__ void shared_gap(float *x)
{
    __shared__ float s[65];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = s[threadIdx.x + 1]; // shared_gap
}
FAULT(shared_gap, DLS_CHECK_UNINITIALISED, "byte 256 of the shared array 's'",
      float *x = device<float>(64); shared_gap<<<1, 64>>>(x); OK(cudaFree(x)))

__global__ void inherited(float *x)
{
    __shared__ float s[32];
    if (blockIdx.x == 0)
        s[threadIdx.x] = 1.0f;
    __syncthreads();
    x[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x]; // from_another_block
}
FAULT(from_another_block, DLS_CHECK_UNINITIALISED, "block (1,0,0)",
      float *x = device<float>(64); inherited<<<2, 32>>>(x); OK(cudaFree(x)))

__global__ void counting(int *counter)
{
    atomicAdd(counter, 1); // counter_not_cleared
}
FAULT(counter_not_cleared, DLS_CHECK_UNINITIALISED, "updated atomically by",
      int *x = device<int>(1, 0); counting<<<1, 32>>>(x); OK(cudaFree(x)))

Test(check_faults, product_of_nothing)
{
    const float one = 1, zero = 0;
    cublasHandle_t blas;
    CHECKED(seed)
    {
        cublasCreate(&blas);
        float *a = device<float>(16), *b = device<float>(16, 0), *c = device<float>(16);
        cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, a, 4, b, 4, &zero, c,
                    4);
        OK(cudaDeviceSynchronize());
        const dls_check_report *r = only_report(DLS_CHECK_UNINITIALISED, "sgemm");
        cr_assert(strstr(r->here.what, "'sgemm' in default stream"), "%s", r->here.what);
        OK(cudaFree(a));
        OK(cudaFree(b));
        OK(cudaFree(c));
        cublasDestroy(blas);
    }
}
/* use memory at the wrong time */
__global__ void late(float *x)
{
    x[threadIdx.x] = 1.0f; // after_free
}
FAULT(after_free, DLS_CHECK_AFTER_FREE, "of 256 bytes of device memory, freed",
      float *x = device<float>(64); OK(cudaFree(x)); late<<<1, 64>>>(x))

__global__ void late_in_stream(float *x)
{
    x[threadIdx.x] = 1.0f; // after_free_async
}
FAULT(after_free_async, DLS_CHECK_AFTER_FREE, "freed", float *x;
      OK(cudaMallocAsync((void **)&x, 256, 0)); OK(cudaFreeAsync(x, 0));
      late_in_stream<<<1, 64>>>(x))

__global__ void reused(float *x)
{
    x[threadIdx.x] = 1.0f; // through_a_stale_pointer
}
FAULT(through_a_stale_pointer, DLS_CHECK_AFTER_FREE, "freed", float *x; float *y;
      OK(cudaMallocAsync((void **)&x, 256, 0)); OK(cudaFreeAsync(x, 0));
      OK(cudaMallocAsync((void **)&y, 256, 0)); reused<<<1, 64>>>(x);
      OK(cudaFreeAsync(y, 0)))
/* free wrongly */
static __attribute__((noinline)) void free_again(void *x)
{
    cudaFree(x); // freed_twice
    cudaGetLastError();
}
static __attribute__((noinline)) void free_inside(float *x)
{
    cudaFree(x + 1); // freed_inside
    cudaGetLastError();
}
static __attribute__((noinline)) void free_pinned(void *x)
{
    cudaFree(x); // freed_as_device
    cudaGetLastError();
}
static __attribute__((noinline)) float *leak()
{
    void *p = NULL;
    cudaMalloc(&p, 256); // leaked
    return (float *)p;
}
static __attribute__((noinline)) void *leak_pinned()
{
    void *p = NULL;
    cudaMallocHost(&p, 64); // leaked_pinned
    return p;
}

FAULT(freed_twice, DLS_CHECK_DOUBLE_FREE, "byte 0 of 256 bytes",
      float *x = device<float>(64); OK(cudaFree(x)); free_again(x))

FAULT(freed_inside, DLS_CHECK_INVALID_FREE, "byte 4 of 256 bytes",
      float *x = device<float>(64); free_inside(x); OK(cudaFree(x)))

FAULT(freed_as_device, DLS_CHECK_INVALID_FREE, "byte 0 of 64 bytes", void *x;
      OK(cudaMallocHost(&x, 64)); free_pinned(x); OK(cudaFreeHost(x)))

FAULT(leaked, DLS_CHECK_LEAK, "256 bytes of device memory", float *x = leak();
      dls_check_look_at_the_end(); OK(cudaFree(x)))

FAULT(leaked_pinned, DLS_CHECK_LEAK, "64 bytes of pinned host memory",
      void *x = leak_pinned(); dls_check_look_at_the_end(); OK(cudaFreeHost(x)))
/* confuse host and device */
static volatile float sink;

static __attribute__((noinline)) float peek(const float *x)
{
    return x[3]; // host_reads
}
FAULT(host_reads, DLS_CHECK_HOST_ACCESS, "byte 12 of 256 bytes",
      float *x = device<float>(64); sink = peek(x); OK(cudaFree(x)))

static __attribute__((noinline)) void poke(float *x)
{
    x[3] = 1; // host_writes
}
FAULT(host_writes, DLS_CHECK_HOST_ACCESS, "written by the host",
      float *x = device<float>(64); poke(x); OK(cudaFree(x)))
static __attribute__((noinline)) void give_up(int why)
{
    if (why)
        throw why;
}
static __attribute__((noinline)) float peek_in_a_catch(const float *x)
{
    try {
        give_up(3);
    } catch (int why) {
        return x[why]; // host_reads_in_a_catch
    }
    return 0;
}
FAULT(host_reads_in_a_catch, DLS_CHECK_HOST_ACCESS, "byte 12 of 256 bytes",
      float *x = device<float>(64); sink = peek_in_a_catch(x); OK(cudaFree(x)))
__global__ void into_the_heap(float *x)
{
    x[threadIdx.x] = 1.0f; // heap_of_the_host
}
FAULT(heap_of_the_host, DLS_CHECK_HOST_MEMORY, "not memory of the device",
      float *x = (float *)malloc(256); into_the_heap<<<1, 64>>>(x);
      cudaDeviceSynchronize(); free(x))

__global__ void onto_the_stack(float *x)
{
    x[0] = 1.0f; // stack_of_the_host
}
FAULT(stack_of_the_host, DLS_CHECK_HOST_MEMORY, "not memory of the device",
      float x = 0; onto_the_stack<<<1, 1>>>(&x); cudaDeviceSynchronize())
