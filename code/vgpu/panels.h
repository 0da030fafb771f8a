/* code/vgpu/panels.h: from chapters/A-virtual-gpu-blas-panels.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, virtual backend: a product as the processor's memory sees it,
 * row by row, and the panels it is cut into. */
#ifndef DLS_VGPU_PANELS_H
#define DLS_VGPU_PANELS_H

#include "vgpu/blas.h"

/* declare a panel */
/* D (rows, columns) = alpha X (rows, depth) W (depth, columns) + beta D. Steps are in
 * elements; D's columns are neighbours. X and W are f32 or bf16, D is f32 or bf16. */
typedef struct dls_panel {
    int rows, columns, depth;
    long long x_row, x_column, w_row, w_column, d_row;
    cudaDataType factors, result;
    float alpha, beta;
    const void *x, *w;
    void *d;
} dls_panel;

/* Multiplies on all threads. 1: done, 0: oneDNN has no such product, < 0: failed. */
int dls_panels_multiply(const dls_panel *p);

/* Multiplies on the calling thread. 1: done, 0: oneDNN has no such product, < 0. */
int dls_panel_multiply(const dls_panel *p);

/* The same for a few rows, at the speed of memory; what 1 here means: it can. */
enum { DLS_FEW_ROWS = 4 };
int dls_panel_is_narrow(const dls_panel *p);
int dls_panel_multiply_narrow(const dls_panel *p);

/* declare what follows a panel */
/* What cublasLt does to a panel of sums, in f32, before it is rounded into D. */
typedef struct dls_panel_end {
    unsigned what;            // the epilogue's bits
    int rows, columns;
    float *sum;               // (rows, sum_row) in and out
    long long sum_row, aux_row, d_row;
    cudaDataType bias_type, aux_type, d_type;
    const void *bias;         // (columns), or NULL
    void *aux, *d;            // (rows, ...); d may be sum
    double *total;            // (columns) sums over the rows, or NULL
} dls_panel_end;

void dls_panel_finish(const dls_panel_end *e);
void dls_panel_widen(float *to, const void *from, size_t n); // bf16 to f32

/* widen and narrow bf16 */
static inline float dls_bf16_widen(uint16_t bits)
{
    union { uint32_t u; float f; } v = {(uint32_t)bits << 16};
    return v.f;
}

static inline uint16_t dls_bf16_round(float value)
{
    union { float f; uint32_t u; } v = {value};
    uint32_t rounded = v.u + 0x7fff + (v.u >> 16 & 1), quiet = v.u | 0x400000;
    return (uint16_t)((value == value ? rounded : quiet) >> 16);
}
#endif
