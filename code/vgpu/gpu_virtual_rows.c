/* code/vgpu/gpu_virtual_rows.c: from chapters/A-virtual-gpu-blas-panels.md. Edit the chapter, or edit here and run "make untangle". */
/* Products of a few rows, and what follows a product: the parts that memory's speed
 * bounds. Compiled for this machine's vectors (HOST_KERNEL in the Makefile). */
#include "vgpu/panels.h"

#include <stdlib.h>
#include <string.h>

#include "base/vector_math.h"

/* take dot products with a few rows */
enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

static inline lanes load_f32(const void *from)
{
    lanes v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline lanes load_bf16(const void *from)
{
    halves h;
    memcpy(&h, from, sizeof h);
    words w = __builtin_convertvector(h, words) << 16;
    lanes v;
    memcpy(&v, &w, sizeof v);
    return v;
}

static inline float total_of(lanes v)
{
    float sum[LANES];
    memcpy(sum, &v, sizeof sum);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            sum[i] += sum[i + half];
    return sum[0];
}

/* out[r] = x[r] . w for r < rows; four chains of sums, so that none is waited for. */
static inline __attribute__((always_inline)) void
dot_products(float *out, const float *x, int rows, const char *w, int depth,
             int is_short)
{
    enum { CHAINS = 4, STEP = CHAINS * LANES };
    const size_t size = is_short ? 2 : 4;
    lanes sum[DLS_FEW_ROWS][CHAINS] = {{{0}}};
    int l = 0;
    for (; l + STEP <= depth; l += STEP)
        for (int k = 0; k < CHAINS; k++) {
            const char *at = w + (l + k * LANES) * size;
            lanes v = is_short ? load_bf16(at) : load_f32(at);
            for (int r = 0; r < rows; r++)
                sum[r][k] += load_f32(x + (size_t)r * depth + l + k * LANES) * v;
        }
    for (int r = 0; r < rows; r++)
        out[r] = total_of((sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]));
    for (; l < depth; l++) {
        float v = is_short ? dls_bf16_widen(((const uint16_t *)w)[l])
                           : ((const float *)w)[l];
        for (int r = 0; r < rows; r++)
            out[r] += x[(size_t)r * depth + l] * v;
    }
}

static void dots(float *out, const float *x, int rows, const char *w, int depth,
                 int is_short)
{
    #define CASE(n)                                     \
        case n:                                         \
            if (is_short)                               \
                dot_products(out, x, n, w, depth, 1);   \
            else                                        \
                dot_products(out, x, n, w, depth, 0);   \
            break;
    switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4)
    }
    #undef CASE
}

/* multiply a few rows */
int dls_panel_is_narrow(const dls_panel *p)
{
    return p->rows <= DLS_FEW_ROWS && p->w_row == 1;
}

/* X's rows in f32, one behind the other. */
static void gather(float *to, const dls_panel *p)
{
    for (int r = 0; r < p->rows; r++)
        for (int l = 0; l < p->depth; l++) {
            long long at = r * p->x_row + l * p->x_column;
            *to++ = p->factors == CUDA_R_16BF
                        ? dls_bf16_widen(((const uint16_t *)p->x)[at])
                        : ((const float *)p->x)[at];
        }
}

static void put(const dls_panel *p, int row, int column, float sum)
{
    long long at = row * p->d_row + column;
    float *wide = (float *)p->d + at;
    uint16_t *narrow = (uint16_t *)p->d + at;
    float v = p->alpha * sum;
    if (p->result == CUDA_R_32F)
        *wide = p->beta != 0 ? v + p->beta * *wide : v;
    else
        *narrow = dls_bf16_round(p->beta != 0 ? v + p->beta * dls_bf16_widen(*narrow)
                                              : v);
}

int dls_panel_multiply_narrow(const dls_panel *p)
{
    int is_short = p->factors == CUDA_R_16BF;
    size_t step = (size_t)p->w_column * (is_short ? 2 : 4);
    float *x = malloc(sizeof *x * (size_t)p->rows * (size_t)p->depth);
    if (x == NULL)
        return -1;
    gather(x, p);
    for (int c = 0; c < p->columns; c++) {
        float sum[DLS_FEW_ROWS];
        dots(sum, x, p->rows, (const char *)p->w + c * step, p->depth, is_short);
        for (int r = 0; r < p->rows; r++)
            put(p, r, c, sum[r]);
    }
    free(x);
    return 1;
}

/* widen and round rows */
void dls_panel_widen(float *to, const void *from, size_t n)
{
    const uint16_t *bits = from;
    #pragma omp simd
    for (size_t i = 0; i < n; i++)
        to[i] = dls_bf16_widen(bits[i]);
}

static void store_row(void *to, cudaDataType type, const float *from, int n)
{
    uint16_t *bits = to;
    if (type == CUDA_R_32F) {
        memcpy(to, from, sizeof *from * (size_t)n);
        return;
    }
    #pragma omp simd
    for (int i = 0; i < n; i++)
        bits[i] = dls_bf16_round(from[i]);
}

static void load_row(float *to, cudaDataType type, const void *from, int n)
{
    if (type == CUDA_R_32F)
        memcpy(to, from, sizeof *to * (size_t)n);
    else
        dls_panel_widen(to, from, (size_t)n);
}

/* apply gelu to a row */
static const float root = 0.797884561f; // of 2 / pi
static const float cubic = 0.044715f;

static inline float gate(float x) // (1 + tanh u) / 2
{
    float u = root * (x + cubic * x * x * x);
    return 1 / (1 + dls_exp_f32(-2 * u));
}

static void gelu_row(float *v, int n)
{
    #pragma omp simd
    for (int i = 0; i < n; i++)
        v[i] = v[i] * gate(v[i]);
}

static void gelu_back_row(float *v, const float *x, int n)
{
    #pragma omp simd
    for (int i = 0; i < n; i++) {
        float s = gate(x[i]), slope = root * (1 + 3 * cubic * x[i] * x[i]);
        v[i] *= s + 2 * x[i] * slope * s * (1 - s);
    }
}

/* finish a panel */
static void add_row(float *v, const float *bias, int n)
{
    #pragma omp simd
    for (int i = 0; i < n; i++)
        v[i] += bias[i];
}

static void total_row(double *total, const float *v, int n)
{
    #pragma omp simd
    for (int i = 0; i < n; i++)
        total[i] += v[i];
}

void dls_panel_finish(const dls_panel_end *e)
{
    enum { GELU = 32, DGELU = 64, AUX = 128 };
    int n = e->columns;
    float bias[n], x[n];
    if (e->bias)
        load_row(bias, e->bias_type, e->bias, n);
    if (e->total)
        memset(e->total, 0, sizeof *e->total * (size_t)n);
    for (int r = 0; r < e->rows; r++) {
        float *v = e->sum + r * e->sum_row;
        long long at = r * e->aux_row * (e->aux_type == CUDA_R_32F ? 4 : 2);
        char *aux = e->aux ? (char *)e->aux + at : NULL;
        void *d = (char *)e->d + r * e->d_row * (e->d_type == CUDA_R_32F ? 4 : 2);
        /* finish a row */
        if (e->bias)
            add_row(v, bias, n);
        if ((e->what & GELU) && (e->what & AUX))
            store_row(aux, e->aux_type, v, n);
        if (e->what & GELU)
            gelu_row(v, n);
        if (e->what & DGELU) {
            load_row(x, e->aux_type, aux, n);
            gelu_back_row(v, x, n);
        }
        if (e->total)
            total_row(e->total, v, n);
        if (d != (void *)v)
            store_row(d, e->d_type, v, n);
    }
}
