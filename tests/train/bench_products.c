/* tests/train/bench_products.c: from chapters/09-transformer-cpu.md. Edit the chapter, or edit here and run "make untangle". */
/* The products of a training step of GPT-2 124M one by one, beside the peak of the
 * processor's multiply-adds, and the floor under the step that follows from both. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/table.h"
#include "tensor/gemm.h"
#include "vgpu/gpu.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

enum { N = 256, C = 768, V = 50257, BLOCKS = 12, ROUNDS = 9 };

/* stop the products on an error */
#define OK(expr) ok((int)(expr), #expr)

static void ok(int code, const char *what)
{
    if (code == 0)
        return;
    fprintf(stderr, "bench_products: %s: %s\n", what, dls_status_message());
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* measure the peak */
enum { CHAINS = 12, LANES = 16 };
typedef float lanes __attribute__((vector_size(4 * LANES)));

static inline __attribute__((always_inline)) lanes
multiply_add(lanes s, lanes x, int half)
{
#ifdef __AVX512BF16__
    if (half)
        return (lanes)_mm512_dpbf16_ps((__m512)s, (__m512bh)x, (__m512bh)x);
#endif
    (void)half;
    return s * x + x;
}

static inline __attribute__((always_inline)) void run_chains(lanes x, long n, int half)
{
    lanes s[CHAINS] = {{0}};
    for (long i = 0; i < n; i++)
        #pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            s[c] = multiply_add(s[c], x, half);
        #ifdef __AVX512F__
            __asm__ volatile("" : "+v"(s[c]));
        #endif
        }
}

/* Operations per second on all threads; half: of bf16, if the processor has it. */
static double peak(int half)
{
    const long n = 4000000;
    double best = 0, each = 2.0 * CHAINS * LANES * (double)n * (half ? 2 : 1);
    lanes x;
    for (int i = 0; i < LANES; i++)
        x[i] = half ? 0x1.007ep-1f : 0.5f; // 0x3f003f00: two halves in bf16
    for (int run = 0; run < ROUNDS; run++) {
        double start = now();
        #pragma omp parallel
        if (half)
            run_chains(x, n, 1);
        else
            run_chains(x, n, 0);
        best = fmax(best, each * dls_gpu_threads() / (now() - start));
    }
    return best;
}

/* list the products of a step */
typedef struct shape {
    const char *name;
    int out, in, count;         // the weights (out, in), and how many there are
} shape;

static const shape shapes[] = {
    {"qkv", 3 * C, C, BLOCKS}, {"attention out", C, C, BLOCKS},
    {"mlp in", 4 * C, C, BLOCKS}, {"mlp out", C, 4 * C, BLOCKS}, {"head", V, C, 1}};
static const char *const directions[] = {"forward", "input", "weights"};

enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct arrays { void *x, *w, *y, *dw; } arrays;

static void multiply(dls_ctx *ctx, const arrays *a, const shape *s, int direction)
{
    if (direction == 0)
        OK(dls_gemm(ctx, 0, 1, N, s->out, s->in, 1, a->x, a->w, 0, a->y));
    else if (direction == 1)
        OK(dls_gemm(ctx, 0, 0, N, s->in, s->out, 1, a->y, a->w, 0, a->x));
    else
        OK(dls_gemm_into(ctx, 1, 0, s->out, s->in, N, 1, a->y, a->x, 0, a->dw, DLS_F32));
    OK(dls_ctx_sync(ctx));
}

/* time one product of a step */
static double time_product(dls_ctx *ctx, const arrays *a, const shape *s, int direction)
{
    double best = INFINITY;
    for (int run = 0; run < ROUNDS; run++) {
        double start = now();
        multiply(ctx, a, s, direction);
        best = fmin(best, now() - start);
    }
    return best;
}

/* print the products */
static const dls_column columns[] = {
    {"product", NULL}, {"direction", NULL}, {"rows", NULL}, {"columns", NULL},
    {"sum", NULL}, {"times", NULL}, {"GFLOP/s", "%.0f"}, {"% of peak", "%.0f"},
    {"ms a step", "%.1f"}};

/* Adds a row; returns the seconds of a step. */
static double add_product(dls_table *t, const shape *s, int direction, double seconds,
                          double top)
{
    double flops = 2.0 * N * s->out * s->in;
    const int sizes[3][3] = {
        {N, s->out, s->in}, {N, s->in, s->out}, {s->out, s->in, N}};
    dls_table_add_text(t, s->name);
    dls_table_add_text(t, directions[direction]);
    for (int i = 0; i < 3; i++)
        dls_table_add_int(t, sizes[direction][i]);
    dls_table_add_int(t, s->count);
    dls_table_add_real(t, 1e-9 * flops / seconds);
    dls_table_add_real(t, 100 * flops / seconds / top);
    dls_table_add_real(t, 1e3 * s->count * seconds);
    return s->count * seconds;
}

static void print_products(dls_ctx *ctx, const arrays *a)
{
    int half = ctx->dtype == DLS_BF16;
    double top = peak(half), all = 0, flops = 0, seconds[SHAPES][3];
    dls_table *t;
    for (int i = 0; i < SHAPES; i++)
        for (int d = 0; d < 3; d++)
            seconds[i][d] = time_product(ctx, a, &shapes[i], d);
    top = fmax(top, peak(half));
    OK(dls_table_create(&t, columns, 9));
    for (int i = 0; i < SHAPES; i++)
        for (int d = 0; d < 3; d++) {
            all += add_product(t, &shapes[i], d, seconds[i][d], top);
            flops += 2.0 * N * shapes[i].out * shapes[i].in * shapes[i].count;
        }
    printf("\n%s, %d threads: peak of the multiply-adds %.0f GFLOP/s\n",
           dls_dtype_name(ctx->dtype), dls_gpu_threads(), top * 1e-9);
    OK(dls_table_print(t, stdout, 0));
    dls_table_free(t);
    printf("%.1f GFLOP a step: %.0f ms at the peak, %.0f ms at these rates (%.0f %%)\n",
           flops * 1e-9, 1e3 * flops / top, 1e3 * all, 100 * flops / top / all);
}

/* measure all products */
static void measure_type(dls_dtype type)
{
    dls_ctx ctx;
    arrays a;
    void **all[] = {&a.x, &a.w, &a.y, &a.dw};
    size_t counts[] = {(size_t)N * 4 * C, (size_t)V * C, (size_t)N * V, (size_t)V * C};
    OK(dls_ctx_create(&ctx, 0, type));
    for (int i = 0; i < 4; i++) {
        dls_dtype of = i < 3 ? type : DLS_F32;
        OK(cudaMalloc(all[i], counts[i] * dls_dtype_size(of)));
        OK(cudaMemset(*all[i], 0, counts[i] * dls_dtype_size(of)));
    }
    OK(cudaDeviceSynchronize());
    print_products(&ctx, &a);
    for (int i = 0; i < 4; i++)
        OK(cudaFree(*all[i]));
    dls_ctx_destroy(&ctx);
}

int main(void)
{
    measure_type(DLS_F32);
    measure_type(DLS_BF16);
    return 0;
}
