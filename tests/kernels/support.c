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
    k.u = dtype == DLS_F64 ? 0x1p-53 : 0x1p-24;
    k.stored = dtype == DLS_BF16 ? 0x1p-8 : 0;
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
    cr_assert_lt(k->hosts, 512);
    return k->host[k->hosts++] = calloc(1, bytes ? bytes : 1);
}

static void *keep_device(kcase *k, size_t count, dls_dtype dtype)
{
    cr_assert_lt(k->devices, 512);
    OK(dls_device_alloc(&k->device[k->devices], count, dtype, DLS_MEM_OTHER));
    return k->device[k->devices++];
}

/* move arrays for tests */
double kcase_round(const kcase *k, double x)
{
    return k->ctx.dtype == DLS_BF16 ? dls_precision_round(&dls_bf16, x)
           : k->ctx.dtype == DLS_F32 ? (float)x : x;
}

double kcase_round_acc(const kcase *k, double x)
{
    return k->ctx.dtype == DLS_F64 ? x : (float)x;
}

double *kcase_random(kcase *k, size_t n, unsigned stream, double low, double high)
{
    double *x = keep_host(k, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        float y = (float)(low + (high - low) * dls_rng_uniform(7, stream, i));
        x[i] = kcase_round(k, y);
    }
    return x;
}

double *kcase_zeros(kcase *k, size_t n)
{
    return keep_host(k, n * sizeof(double));
}

static void *put_as(kcase *k, dls_dtype dtype, const double *x, size_t n)
{
    void *to = keep_device(k, n, dtype), *from = malloc(n * sizeof *x + 1);
    for (size_t i = 0; i < n; i++)
        switch (dtype) {
        case DLS_F64: ((double *)from)[i] = x[i]; break;
        case DLS_BF16:
            ((dls_bfloat16 *)from)[i] = dls_narrow_bf16((float)kcase_round(k, x[i]));
            break;
        default: ((float *)from)[i] = (float)x[i];
        }
    OK(cudaMemcpy(to, from, n * dls_dtype_size(dtype), cudaMemcpyHostToDevice));
    free(from);
    return to;
}

void *kcase_put(kcase *k, const double *x, size_t n)
{
    return put_as(k, k->ctx.dtype, x, n);
}

void *kcase_put_acc(kcase *k, const double *x, size_t n)
{
    return put_as(k, dls_dtype_accumulator(k->ctx.dtype), x, n);
}

int *kcase_put_ints(kcase *k, const int *x, size_t n)
{
    int *to = keep_device(k, n, DLS_F32);
    OK(cudaMemcpy(to, x, n * sizeof *x, cudaMemcpyHostToDevice));
    return to;
}

static double *nans(kcase *k, size_t n)
{
    double *nan = keep_host(k, n * sizeof *nan);
    for (size_t i = 0; i < n; i++)
        nan[i] = NAN;
    return nan;
}

void *kcase_space(kcase *k, size_t n)
{
    return kcase_put(k, nans(k, n), n);
}

void *kcase_space_acc(kcase *k, size_t n)
{
    return kcase_put_acc(k, nans(k, n), n);
}

static double *get_as(kcase *k, dls_dtype dtype, const void *device, size_t n)
{
    double *x = keep_host(k, n * sizeof *x);
    void *from = malloc(n * sizeof *x + 1);
    OK(dls_ctx_sync(&k->ctx));
    OK(cudaMemcpy(from, device, n * dls_dtype_size(dtype), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++)
        switch (dtype) {
        case DLS_F64: x[i] = ((double *)from)[i]; break;
        case DLS_BF16: x[i] = dls_widen_bf16(((dls_bfloat16 *)from)[i]); break;
        default: x[i] = ((float *)from)[i];
        }
    free(from);
    return x;
}

double *kcase_get(kcase *k, const void *device, size_t n)
{
    return get_as(k, k->ctx.dtype, device, n);
}

double *kcase_get_acc(kcase *k, const void *device, size_t n)
{
    return get_as(k, dls_dtype_accumulator(k->ctx.dtype), device, n);
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

void expect_stored(const kcase *k, const double *got, const double *want,
                   const double *bound, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        double tiny = k->stored > 0 ? dls_precision_tiny(&dls_bf16) : 0;
        double more = bound[i] + k->stored * (fabs(want[i]) + bound[i]) + tiny;
        expect_near(&got[i], &want[i], &more, 1, what);
    }
}

void expect_stored_within(const kcase *k, const double *got, const double *want,
                          double bound, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        expect_stored(k, &got[i], &want[i], &bound, 1, what);
}

/* attend to packed rows */
static dls_attention_shape packed_shape(int B, int T, int C, int H)
{
    size_t row = 3 * (size_t)C;
    return (dls_attention_shape){.B = B, .Tq = T, .Tk = T, .H = H, .Hk = H, .D = C / H,
                                 .causal = 1, .q_row = row, .k_row = row, .v_row = row};
}

dls_status packed_attention_forward(kcase *k, void *out, void *att, const void *qkv,
                                    int B, int T, int C, int H)
{
    dls_attention_shape s = packed_shape(B, T, C, H);
    size_t step = C * dls_dtype_size(k->ctx.dtype);
    const char *q = qkv;
    return dls_attention_naive_forward(&k->ctx, &s, out, NULL, att, q, q + step,
                                       q + 2 * step);
}

dls_status packed_attention_backward(kcase *k, void *dqkv, void *scratch,
                                     const void *dout, const void *qkv, const void *att,
                                     int B, int T, int C, int H)
{
    dls_attention_shape s = packed_shape(B, T, C, H);
    size_t step = C * dls_dtype_size(k->ctx.dtype);
    const char *q = qkv;
    char *d = dqkv;
    return dls_attention_naive_backward(&k->ctx, &s, d, d + step, d + 2 * step, scratch,
                                        dout, q, q + step, q + 2 * step, att);
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
