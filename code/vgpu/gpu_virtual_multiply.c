/* code/vgpu/gpu_virtual_multiply.c: from chapters/A-virtual-gpu-blas.md. Edit the chapter, or edit here and run "make untangle". */
/* The multiplications behind cuBLAS that have no short cut: loops of our own.
 *
 * f64 exists for proofs, not for speed, and reaches a few GFLOP/s. fp16 sums are rounded
 * after every sixteen terms, which is how many one instruction of a tensor core adds. */
#include <string.h>

#include "vgpu/panels.h"

/* multiply in f64 */
enum { PANEL_M = 64, PANEL_K = 128 };

static void pack_panel(const dls_blas_matrix *a, const double *A, int i0, int mb, int k0,
                       int kb, double *panel) // (kb, PANEL_M)
{
    for (int k = 0; k < kb; k++)
        for (int i = 0; i < mb; i++)
            panel[k * PANEL_M + i] = A[(i0 + i) * a->down + (k0 + k) * a->right];
}

/* D[i0.., j..j+columns) += alpha * panel * B[k0.., j..] */
static void update_columns(double alpha, const double *panel, const dls_blas_matrix *b,
                           const double *B, const dls_blas_matrix *d, double *D, int i0,
                           int mb, int k0, int kb, int j, int columns)
{
    double sum[4][PANEL_M] = {{0}};
    for (int k = 0; k < kb; k++) {
        const double *a = panel + k * PANEL_M;
        double f[4] = {0};
        for (int c = 0; c < columns; c++)
            f[c] = B[(k0 + k) * b->down + (j + c) * b->right];
        for (int i = 0; i < mb; i++) {
            sum[0][i] += a[i] * f[0];
            sum[1][i] += a[i] * f[1];
            sum[2][i] += a[i] * f[2];
            sum[3][i] += a[i] * f[3];
        }
    }
    for (int c = 0; c < columns; c++)
        for (int i = 0; i < mb; i++)
            D[(i0 + i) * d->down + (j + c) * d->right] += alpha * sum[c][i];
}

void dls_blas_multiply_f64(double alpha, const dls_blas_matrix *a, const double *A,
                           const dls_blas_matrix *b, const double *B,
                           const dls_blas_matrix *d, double *D)
{
    double panel[PANEL_K * PANEL_M];
    for (int i0 = 0; i0 < d->rows; i0 += PANEL_M)
        for (int k0 = 0; k0 < a->columns; k0 += PANEL_K) {
            int mb = d->rows - i0 < PANEL_M ? d->rows - i0 : PANEL_M;
            int kb = a->columns - k0 < PANEL_K ? a->columns - k0 : PANEL_K;
            pack_panel(a, A, i0, mb, k0, kb, panel);
            for (int j = 0; j < d->columns; j += 4)
                update_columns(alpha, panel, b, B, d, D, i0, mb, k0, kb, j,
                               d->columns - j < 4 ? d->columns - j : 4);
        }
}

/* multiply in int32 */
static void multiply_i32(size_t m, size_t n, size_t k, const uint32_t *a,
                         const uint32_t *b, uint32_t *sum)
{
    memset(sum, 0, m * n * sizeof *sum);
    for (size_t j = 0; j < n; j++)
        for (size_t l = 0; l < k; l++)
            for (size_t i = 0; i < m; i++)
                sum[i + j * m] += a[i + l * m] * b[l + j * k];
}

/* multiply in fp16 */
static void multiply_f16(size_t m, size_t n, size_t k, const float *a, const float *b,
                         float *sum)
{
    enum { DEPTH = 16 };
    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < m; i++) {
            float total = 0;
            for (size_t l0 = 0; l0 < k; l0 += DEPTH) {
                for (size_t l = l0; l < k && l < l0 + DEPTH; l++)
                    total += a[i + l * m] * b[l + j * k];
                total = (float)dls_blas_round(CUDA_R_16F, total);
            }
            sum[i + j * m] = total;
        }
}

/* multiply dense matrices */
int dls_blas_multiply(dls_blas_work work, int m, int n, int k, const void *a,
                      const void *b, void *sum)
{
    const dls_panel all = {
        .rows = n, .columns = m, .depth = k, .x_row = k, .x_column = 1, .w_row = m,
        .w_column = 1, .d_row = m, .factors = CUDA_R_32F, .result = CUDA_R_32F,
        .alpha = 1, .x = b, .w = a, .d = sum};
    if (work == DLS_BLAS_F32)
        return dls_panels_multiply(&all) == 1 ? 0 : -1;
    if (work == DLS_BLAS_I32 || work == DLS_BLAS_I32_SCALED)
        multiply_i32((size_t)m, (size_t)n, (size_t)k, a, b, sum);
    else
        multiply_f16((size_t)m, (size_t)n, (size_t)k, a, b, sum);
    return 0;
}
