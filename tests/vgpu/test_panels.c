/* tests/vgpu/test_panels.c: from chapters/A-virtual-gpu-blas-panels.md. Edit the chapter, or edit here and run "make untangle". */
/* Products in panels: within their bounds, and the same on any number of threads. */
#include <criterion/criterion.h>
#include <cublas_v2.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/gpu.h"

#ifdef DLS_BACKEND_virtual
#include "vgpu/panels.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

/* draw factors that are bf16 numbers */
static float number(unsigned seed, long i)
{
    unsigned x = (unsigned)i * 2654435761u + seed * 40503u;
    x ^= x >> 15;
    x *= 2246822519u;
    return (float)((int)(x >> 24) - 128) / 128;
}

static float get(cudaDataType type, const void *p, long i)
{
    return type == CUDA_R_32F ? ((const float *)p)[i]
                              : dls_bf16_widen(((const uint16_t *)p)[i]);
}

static void *drawn(cudaDataType type, unsigned seed, long n)
{
    void *p;
    OK(cudaMallocManaged(&p, (size_t)n * 4, cudaMemAttachGlobal));
    for (long i = 0; i < n; i++)
        if (type == CUDA_R_32F)
            ((float *)p)[i] = number(seed, i);
        else
            ((uint16_t *)p)[i] = dls_bf16_round(number(seed, i));
    return p;
}

/* compare a product with float64 */
typedef struct product {
    int m, n, k, ta, tb;
    cudaDataType in, out;
} product;

static void *multiply(cublasHandle_t h, const product *p, const void *A, const void *B)
{
    const float alpha = -0.75f, beta = 0.5f;
    void *C = drawn(p->out, 3, (long)p->m * p->n);
    OK(cublasGemmEx(h, p->ta ? CUBLAS_OP_T : CUBLAS_OP_N,
                    p->tb ? CUBLAS_OP_T : CUBLAS_OP_N, p->m, p->n, p->k, &alpha, A, p->in,
                    p->ta ? p->k : p->m, B, p->in, p->tb ? p->n : p->k, &beta, C, p->out,
                    p->m, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    OK(cudaDeviceSynchronize());
    return C;
}

static void compare(const product *p, const void *A, const void *B, const void *C,
                    long at)
{
    int i = (int)(at % p->m), j = (int)(at / p->m);
    double sum = 0, all = 0, old = (double)number(3, at);
    for (int l = 0; l < p->k; l++) {
        double a = get(p->in, A, p->ta ? l + (long)i * p->k : i + (long)l * p->m);
        double b = get(p->in, B, p->tb ? j + (long)l * p->n : l + (long)j * p->k);
        sum += a * b;
        all += fabs(a * b);
    }
    double want = -0.75 * sum + 0.5 * old, n = p->k + 3;
    double bound = n * 0x1p-24 / (1 - n * 0x1p-24) * (0.75 * all + 0.5 * fabs(old));
    bound += p->out == CUDA_R_16BF ? 0x1p-8 * (fabs(want) + bound) : 0;
    double got = get(p->out, C, at);
    cr_expect(fabs(got - want) <= bound, "%d x %d x %d, %d%d, (%d, %d): %g, not %g, > %g",
              p->m, p->n, p->k, p->ta, p->tb, i, j, got, want, bound);
}

static void check(cublasHandle_t h, const product *p)
{
    long elements = (long)p->m * p->n, step = elements / 500 + 1;
    void *A = drawn(p->in, 1, (long)p->m * p->k), *B = drawn(p->in, 2, (long)p->k * p->n);
    void *C = multiply(h, p, A, B);
    for (long at = 0; at < elements; at += step)
        compare(p, A, B, C, at);
    compare(p, A, B, C, elements - 1);
    OK(cudaFree(A));
    OK(cudaFree(B));
    OK(cudaFree(C));
}

/* test all kinds of panels */
static const int sizes[][3] = {
    {1, 1, 1}, {7, 1, 67}, {515, 3, 131}, {64, 4, 1}, {9, 5, 67}, {1, 300, 19},
    {515, 131, 130}, {131, 515, 130}};

static void check_all(cublasHandle_t h, cudaDataType in, cudaDataType out)
{
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int bits = 0; bits < 4; bits++) {
            product p = {sizes[s][0], sizes[s][1], sizes[s][2], bits & 1, bits >> 1, in,
                         out};
            check(h, &p);
        }
}

Test(vgpu, products_in_panels_are_within_their_bounds)
{
    cublasHandle_t h;
    OK(cublasCreate(&h));
    check_all(h, CUDA_R_32F, CUDA_R_32F);
    check_all(h, CUDA_R_16BF, CUDA_R_16BF);
    check_all(h, CUDA_R_16BF, CUDA_R_32F);
    OK(cublasDestroy(h));
}

Test(vgpu, bf16_is_multiplied_where_the_processor_has_none)
{
    cublasHandle_t h;
    setenv("DNNL_MAX_CPU_ISA", "AVX2", 1);
    OK(cublasCreate(&h));
    check_all(h, CUDA_R_16BF, CUDA_R_16BF);
    check_all(h, CUDA_R_16BF, CUDA_R_32F);
    OK(cublasDestroy(h));
}

/* test that threads change no bit */
static void same_on_threads(cublasHandle_t h, const product *p)
{
    void *A = drawn(p->in, 1, (long)p->m * p->k), *B = drawn(p->in, 2, (long)p->k * p->n);
    void *first = NULL;
    for (int threads = 1; threads <= 4; threads++) {
        dls_vgpu.threads = threads;
        void *C = multiply(h, p, A, B);
        size_t bytes = (size_t)p->m * (size_t)p->n * dls_blas_size(p->out);
        cr_expect(first == NULL || memcmp(first, C, bytes) == 0,
                  "%d x %d x %d, %d%d: %d threads", p->m, p->n, p->k, p->ta, p->tb,
                  threads);
        first = first ? first : C;
    }
}

Test(vgpu, a_product_is_the_same_on_any_number_of_threads)
{
    static const product all[] = {
        {768, 64, 1024, 1, 0, CUDA_R_32F, CUDA_R_32F},
        {1, 256, 3072, 0, 1, CUDA_R_32F, CUDA_R_32F},
        {300, 257, 1500, 0, 0, CUDA_R_32F, CUDA_R_32F},
        {515, 301, 130, 0, 1, CUDA_R_16BF, CUDA_R_32F},
        {768, 64, 1024, 1, 0, CUDA_R_16BF, CUDA_R_16BF},
        {3000, 1, 768, 1, 0, CUDA_R_16BF, CUDA_R_16BF}};
    cublasHandle_t h;
    OK(cublasCreate(&h));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        same_on_threads(h, &all[i]);
    OK(cublasDestroy(h));
}
#endif
