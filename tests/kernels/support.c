/* tests/kernels/support.c: from chapters/09-transformer-kernels-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* See support.h. */
#include "support.h"

#include "base/rng.h"

/* run a kernel case */
void kcase_run(void (*test)(kcase *k), const char *kernels, dls_dtype dtype)
{
    static kcase k;
    setenv("DLS_KERNELS", kernels, 1);
    OK(dls_ctx_create(&k.ctx, 0, dtype));
    k.u = dtype == DLS_F32 ? 0x1p-24 : 0x1p-53;
    test(&k);
    kcase_release(&k, 0, 0);
    dls_ctx_destroy(&k.ctx);
}

void kcase_release(kcase *k, int devices, int hosts)
{
    OK(dls_ctx_sync(&k->ctx));
    while (k->devices > devices)
        dls_device_free(k->device[--k->devices]);
    while (k->hosts > hosts)
        free(k->host[--k->hosts]);
}

static void *keep_host(kcase *k, size_t bytes)
{
    cr_assert_lt(k->hosts, 128);
    return k->host[k->hosts++] = calloc(1, bytes ? bytes : 1);
}

static void *keep_device(kcase *k, size_t count, dls_dtype dtype)
{
    cr_assert_lt(k->devices, 128);
    OK(dls_device_alloc(&k->device[k->devices], count, dtype, DLS_MEM_OTHER));
    return k->device[k->devices++];
}

/* move arrays for tests */
double *kcase_random(kcase *k, size_t n, unsigned stream, double low, double high)
{
    double *x = keep_host(k, n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(low + (high - low) * dls_rng_uniform(7, stream, i));
    return x;
}

double *kcase_zeros(kcase *k, size_t n)
{
    return keep_host(k, n * sizeof(double));
}

void *kcase_put(kcase *k, const double *x, size_t n)
{
    void *to = keep_device(k, n, k->ctx.dtype);
    float *narrow = keep_host(k, n * sizeof *narrow);
    for (size_t i = 0; i < n; i++)
        narrow[i] = (float)x[i];
    const void *from = k->ctx.dtype == DLS_F32 ? (const void *)narrow : (const void *)x;
    OK(cudaMemcpy(to, from, n * dls_dtype_size(k->ctx.dtype), cudaMemcpyHostToDevice));
    return to;
}

int *kcase_put_ints(kcase *k, const int *x, size_t n)
{
    int *to = keep_device(k, n, DLS_F32);
    OK(cudaMemcpy(to, x, n * sizeof *x, cudaMemcpyHostToDevice));
    return to;
}

void *kcase_space(kcase *k, size_t n)
{
    double *nan = keep_host(k, n * sizeof *nan);
    for (size_t i = 0; i < n; i++)
        nan[i] = NAN;
    return kcase_put(k, nan, n);
}

double *kcase_get(kcase *k, const void *device, size_t n)
{
    double *x = keep_host(k, n * sizeof *x);
    OK(dls_ctx_sync(&k->ctx));
    OK(cudaMemcpy(x, device, n * dls_dtype_size(k->ctx.dtype), cudaMemcpyDeviceToHost));
    if (k->ctx.dtype == DLS_F32)
        for (size_t i = n; i-- > 0;) {
            float narrow;
            memcpy(&narrow, (char *)x + i * sizeof narrow, sizeof narrow);
            x[i] = narrow;
        }
    return x;
}

/* compare within bounds */
static double gamma_of(double n, double u)
{
    return n * u / (1 - n * u);
}

double rounding(const kcase *k, double n)
{
    return gamma_of(n, k->u) + gamma_of(n, 0x1p-53);
}

void expect_near(const double *got, const double *want, const double *bound, size_t n,
                 const char *what)
{
    for (size_t i = 0; i < n; i++) {
        int same = isnan(want[i]) ? isnan(got[i]) : got[i] == want[i];
        cr_assert(same || fabs(got[i] - want[i]) <= bound[i],
                  "%s[%zu] = %.17g, expected %.17g within %.3g", what, i, got[i], want[i],
                  bound[i]);
    }
}

void expect_within(const double *got, const double *want, double bound, size_t n,
                   const char *what)
{
    for (size_t i = 0; i < n; i++)
        expect_near(&got[i], &want[i], &bound, 1, what);
}

/* attend to packed rows */
static dls_attention_shape packed_shape(int B, int T, int C, int H)
{
    size_t row = 3 * (size_t)C;
    return (dls_attention_shape){.B = B, .Tq = T, .Tk = T, .H = H, .Hk = H, .D = C / H,
                                 .causal = 1, .q_row = row, .k_row = row, .v_row = row};
}

dls_status packed_attention_forward(kcase *k, void *out, void *att, const void *qkv, int B,
                                    int T, int C, int H)
{
    dls_attention_shape s = packed_shape(B, T, C, H);
    size_t step = C * dls_dtype_size(k->ctx.dtype);
    const char *q = qkv;
    return dls_attention_naive_forward(&k->ctx, &s, out, NULL, att, q, q + step,
                                       q + 2 * step);
}

dls_status packed_attention_backward(kcase *k, void *dqkv, void *scratch, const void *dout,
                                     const void *qkv, const void *att, int B, int T, int C,
                                     int H)
{
    dls_attention_shape s = packed_shape(B, T, C, H);
    size_t step = C * dls_dtype_size(k->ctx.dtype);
    const char *q = qkv;
    char *d = dqkv;
    return dls_attention_naive_backward(&k->ctx, &s, d, d + step, d + 2 * step, scratch, dout,
                                        q, q + step, q + 2 * step, att);
}

/* differentiate numerically */
double weigh(kcase *k, const void *device, const double *weights, size_t n, double *size)
{
    double sum = 0, *x = kcase_get(k, device, n);
    *size = 0;
    for (size_t i = 0; i < n; i++) {
        sum += weights[i] * x[i];
        *size += fabs(weights[i] * x[i]);
    }
    free(k->host[--k->hosts]);
    return sum;
}

void expect_gradient(kcase *k, scalar_function f, void *env, const double *x, size_t n,
                     const double *gradient, double terms, const char *what)
{
    const double h = 0x1p-17;
    if (k->ctx.dtype != DLS_F64)
        return;
    double *moved = kcase_zeros(k, n);
    memcpy(moved, x, n * sizeof *x);
    for (size_t place = 0; place < n && place < 40; place++) {
        size_t i = n <= 40 ? place : place * 7919 % n;
        /* compare one partial derivative */
        double size, below, above, marker;
        moved[i] = x[i] + h;
        above = f(k, env, moved, &size);
        moved[i] = x[i] - h;
        below = f(k, env, moved, &marker);
        moved[i] = x[i];
        double slope = (above - below) / (2 * h);
        double bound = 100 * h * h + rounding(k, terms) * size / h;
        cr_assert(fabs(slope - gradient[i]) <= bound,
                  "%s: derivative %zu is %.12g, the difference quotient %.12g (bound %.2g)", what,
                  i, gradient[i], slope, bound);
    }
}
