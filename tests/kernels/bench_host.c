/* tests/kernels/bench_host.c: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Speed of the host versions on one core: the best of some repetitions, in f32. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "base/table.h"
#include "kernels/kernels.h"

/* declare the measured functions */
#define DLS_HOST_HEADER "kernels/layernorm_host.h"
#include "kernels/host_pair.h"
#define DLS_HOST_HEADER "kernels/bias_host.h"
#include "kernels/host_pair.h"
#define DLS_HOST_HEADER "kernels/gelu_host.h"
#include "kernels/host_pair.h"
#define DLS_HOST_HEADER "kernels/elementwise_host.h"
#include "kernels/host_pair.h"
#define DLS_HOST_HEADER "kernels/attention_naive_host.h"
#include "kernels/host_pair.h"
#define DLS_HOST_HEADER "kernels/cross_entropy_host.h"
#include "kernels/host_pair.h"
#define DLS_HOST_HEADER "kernels/reduce_host.h"
#include "kernels/host_pair.h"
#define DLS_HOST_HEADER "kernels/adamw_host.h"
#include "kernels/host_pair.h"

/* measure the best of some runs */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static dls_table *table;

#define MEASURE(name, flops, bytes, call)                             \
    do {                                                              \
        double best = 1e9;                                            \
        for (int run = 0; run < 20; run++) {                          \
            double start = now();                                     \
            call;                                                     \
            double seconds = now() - start;                           \
            best = seconds < best ? seconds : best;                   \
        }                                                             \
        dls_table_add_text(table, name);                              \
        dls_table_add_real(table, best * 1e6);                        \
        dls_table_add_real(table, (double)(bytes) / best * 1e-9);     \
        dls_table_add_real(table, (double)(flops) / best * 1e-9);     \
    } while (0)

/* list what is measured */
enum { B = 8, T = 64, C = 128, H = 4, D = C / H, V = 256, N = B * T, P = 1 << 20 };

static float *array(size_t n, unsigned stream)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; x != NULL && i < n; i++)
        x[i] = 2 * (float)dls_rng_uniform(1, stream, i) - 1;
    return x;
}

static void measure_activations(void)
{
    const double n = N * C, pairs = B * H * T * (T + 1) / 2.0, square = N * H * T;
    float *x = array(4 * N * C, 1), *y = array(4 * N * C, 2), *w = array(4 * C, 3);
    float *b = array(4 * C, 4), *m = array(N, 5), *r = array(N, 6), *z = array(N * V, 7);
    float *att = array(N * H * T, 8), *scratch = array(N * H * T, 9),
          *d = array(3 * N * C, 10);
    dls_attention_shape shape = {.B = B, .Tq = T, .Tk = T, .H = H, .Hk = H, .D = D,
                                 .causal = 1,
                                 .q_row = 3 * C, .k_row = 3 * C, .v_row = 3 * C};
    int targets[N];
    if (dls_attention_complete(&shape) != DLS_OK)
        return;
    for (int i = 0; i < N; i++)
        targets[i] = i % V;
    /* measure each activation */
    MEASURE("layernorm forward", 8 * n, 8 * n,
            dls_layernorm_forward_f32(y, m, r, x, w, b, N, C));
    MEASURE("layernorm backward input", 12 * n, 12 * n,
            dls_layernorm_backward_input_f32(y, x, x, w, m, r, N, C));
    MEASURE("layernorm backward weight", 6 * n, 8 * n,
            dls_layernorm_backward_weight_f32(w, b, y, x, m, r, N, C));
    MEASURE("bias add, 4C", 4 * n, 32 * n, dls_bias_add_f32(x, b, N, 4 * C));
    MEASURE("bias backward, 4C", 4 * n, 16 * n, dls_bias_backward_f32(b, x, N, 4 * C));
    MEASURE("gelu forward, 4C", 40 * n, 32 * n, dls_gelu_forward_f32(y, x, 4 * N * C));
    MEASURE("gelu backward, 4C", 84 * n, 48 * n, dls_gelu_backward_f32(y, y, x, 4 * N * C));
    MEASURE("add", n, 12 * n, dls_add_f32(y, x, y, N * C));
    MEASURE("attention forward", (4 * D + 5) * pairs, 4 * (4 * n + 3 * pairs + square),
            dls_attention_naive_forward_f32(shape, y, NULL, att, x, x + C, x + 2 * C));
    MEASURE("attention backward", (8 * D + 5) * pairs, 4 * (8 * n + 6 * pairs + square),
            dls_attention_naive_backward_f32(shape, d, d + C, d + 2 * C, scratch, y, x, x + C,
                                             x + 2 * C, att));
    MEASURE("cross-entropy forward", 4 * N * V, 4 * N * V,
            dls_cross_entropy_forward_f32(m, r, z, targets, N, V, V));
    MEASURE("cross-entropy backward", 4 * N * V, 8 * N * V,
            dls_cross_entropy_backward_f32(z, z, r, targets, 1e-3f, N, V, V));
    float *all[] = {x, y, w, b, m, r, z, att, scratch, d};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void measure_parameters(void)
{
    float *p = array(P, 1), *g = array(P, 2), *m = array(P, 3), *v = array(P, 3);
    const dls_adamw_rates rates = {0.9, 0.1, 0.95, 0.05, 1, 1, 1e-6, 1e-8, 0.1};
    double squares = 0;
    for (size_t i = 0; i < P; i++)
        v[i] *= v[i];
    MEASURE("copy, a million", 0, 8 * P, memcpy(m, g, P * sizeof *m));
    MEASURE("square sum, a million", 2 * P, 4 * P, dls_square_sum_f32(&squares, g, P));
    MEASURE("adamw, a million", 15 * P, 28 * P,
            dls_adamw_f32(p, NULL, g, m, v, P, rates, NULL));
    free(p);
    free(g);
    free(m);
    free(v);
}

/* print the measurements */
int main(void)
{
    static const dls_column columns[] = {
        {"operation", NULL}, {"µs", "%7.1f"}, {"GB/s", "%7.1f"}, {"GFLOP/s", "%7.1f"}};
    dls_status status = dls_table_create(&table, columns, 4);
    if (status == DLS_OK) {
        measure_activations();
        measure_parameters();
        status = dls_table_print(table, stdout, 0);
    }
    if (status != DLS_OK)
        fprintf(stderr, "%s\n", dls_status_message());
    dls_table_free(table);
    return status != DLS_OK;
}
