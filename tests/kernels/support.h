/* tests/kernels/support.h: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What the tests of the kernels share: running a test in six ways (host or simt; f32, f64
 * or bf16), moving arrays, tolerances derived from the format, and finite differences. */
#ifndef DLS_TESTS_KERNELS_SUPPORT_H
#define DLS_TESTS_KERNELS_SUPPORT_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tensor/bf16.h"
#include "tensor/tensor.h"

/* define a kernel test */
typedef struct kcase {
    dls_ctx ctx;
    double u;          // unit roundoff of the arithmetic: the accumulator's
    double stored;     // of a stored result, where that is another rounding; else 0
    void *device[512]; // freed at the end of the test, like `host`
    void *host[512];
    int devices, hosts;
} kcase;

void kcase_run(void (*test)(kcase *k), const char *kernels, dls_dtype dtype);

#define KERNEL_TEST(name)                                                 \
    static void name(kcase *k);                                           \
    Test(kernels, name##_host_f32) { kcase_run(name, "host", DLS_F32); }   \
    Test(kernels, name##_host_f64) { kcase_run(name, "host", DLS_F64); }   \
    Test(kernels, name##_host_bf16) { kcase_run(name, "host", DLS_BF16); } \
    Test(kernels, name##_simt_f32) { kcase_run(name, "simt", DLS_F32); }   \
    Test(kernels, name##_simt_f64) { kcase_run(name, "simt", DLS_F64); }   \
    Test(kernels, name##_simt_bf16) { kcase_run(name, "simt", DLS_BF16); } \
    static void name(kcase *k)

/* declare the test support */
/* All return arrays that live until the test ends. */
double *kcase_random(kcase *k, size_t n, unsigned stream, double low, double high);
double *kcase_zeros(kcase *k, size_t n);                    // on the host
void *kcase_put(kcase *k, const double *x, size_t n);       // to the device, in its type
int *kcase_put_ints(kcase *k, const int *x, size_t n);
void *kcase_space(kcase *k, size_t n);                      // on the device, all NaN
double *kcase_get(kcase *k, const void *device, size_t n);  // waits, then reads
void *kcase_put_acc(kcase *k, const double *x, size_t n);   // the same three for arrays
void *kcase_space_acc(kcase *k, size_t n);                  // of the accumulator's type
double *kcase_get_acc(kcase *k, const void *device, size_t n);
void kcase_release(kcase *k, int devices, int hosts);       // all made since then

/* x as the type under test holds it, and as its accumulator does. */
double kcase_round(const kcase *k, double x);
double kcase_round_acc(const kcase *k, double x);

#define OK(expr) cr_assert_eq((expr), DLS_OK, "%s: %s", #expr, dls_status_message())

/* gamma_n of the arithmetic under test plus gamma_n of the reference. */
double rounding(const kcase *k, double n);

/* |got - want| <= bound for each element; a NaN fails unless one is wanted. */
void expect_near(const double *got, const double *want, const double *bound, size_t n,
                 const char *what);

/* The same with one bound for all. */
void expect_within(const double *got, const double *want, double bound, size_t n,
                   const char *what);

/* Both for results that were stored in the type under test: `bound` is for the
 * arithmetic, and a rounding is added to it where storing makes one more. */
void expect_stored(const kcase *k, const double *got, const double *want,
                   const double *bound, size_t n, const char *what);
void expect_stored_within(const kcase *k, const double *got, const double *want,
                          double bound, size_t n, const char *what);

/* A scalar function of the array x (n): returns sum of terms, *size their absolute sum.
 */
typedef double (*scalar_function)(kcase *k, void *env, const double *x, double *size);

/* Compares `gradient` (n) with central differences of f at up to 40 places. `terms` is
 * the length of the longest sum in f. Does nothing but in f64. */
void expect_gradient(kcase *k, scalar_function f, void *env, const double *x, size_t n,
                     const double *gradient, double terms, const char *what);

/* sum of weights * array on the device, and the absolute sum. */
double weigh(kcase *k, const void *device, const double *weights, size_t n, double *size);

/* Materialised causal attention of a packed qkv (B, T, 3C); att and scratch (B, H, T, T).
 */
dls_status packed_attention_forward(kcase *k, void *out, void *att, const void *qkv,
                                    int B, int T, int C, int H);
dls_status packed_attention_backward(kcase *k, void *dqkv, void *scratch,
                                     const void *dout, const void *qkv, const void *att,
                                     int B, int T, int C, int H);

#endif
