/* code/vgpu/gpu_virtual_epilogue.c: from chapters/A-virtual-gpu-blaslt.md. Edit the chapter, or edit here and run "make untangle". */
/* What cublasLt does to a product's elements before they are rounded and written. */
#include "vgpu/lt.h"

#include <math.h>

#include "vgpu/blas.h"

/* differentiate gelu */
static const double root = 0.79788456080286535588; // of 2 / pi
static const double cubic = 0.044715;

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(root * (x + cubic * x * x * x)));
}

static double gelu_slope(double x)
{
    double t = tanh(root * (x + cubic * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * cubic * x * x);
}

/* keep bits */
static unsigned char *byte_of(const dls_blas_product *p, int batch, int i, int j,
                              int *bit)
{
    long long at = batch * p->aux.stride + i + j * p->aux.right;
    *bit = (int)(at % 8);
    return (unsigned char *)(uintptr_t)p->aux.base + at / 8;
}

static void keep_bit(const dls_blas_product *p, int batch, int i, int j, int value)
{
    int bit;
    unsigned char *byte = byte_of(p, batch, i, j, &bit);
    *byte = (unsigned char)((*byte & ~(1 << bit)) | value << bit);
}

static int kept_bit(const dls_blas_product *p, int batch, int i, int j)
{
    int bit;
    return *byte_of(p, batch, i, j, &bit) >> bit & 1;
}

/* apply an epilogue */
double dls_blas_epilogue(const dls_blas_product *p, int batch, int i, int j, double v)
{
    enum { RELU = 2, BIAS = 4, DRELU = 8, GELU = 32, DGELU = 64, AUX = 128 };
    void *aux = dls_blas_matrix_at(&p->aux, batch);
    long long at = i + j * p->aux.right;
    if (p->epilogue & BIAS)
        v += dls_blas_load(p->bias.type, dls_blas_matrix_at(&p->bias, batch), i);
    if (p->epilogue & RELU) {
        if (p->epilogue & AUX)
            keep_bit(p, batch, i, j, v > 0);
        return v > 0 || v != v ? v : 0;
    }
    if (p->epilogue & GELU) {
        if (p->epilogue & AUX)
            dls_blas_store(p->aux.type, aux, at, v);
        return gelu(v);
    }
    if (p->epilogue & DRELU)
        return kept_bit(p, batch, i, j) ? v : 0;
    if (p->epilogue & DGELU)
        return v * gelu_slope(dls_blas_load(p->aux.type, aux, at));
    return v;
}

/* add up a gradient */
static double sum_over_k(const dls_blas_matrix *x, int batch, int index, int along_row)
{
    const void *data = dls_blas_matrix_at(x, batch);
    int count = along_row ? x->columns : x->rows;
    double sum = 0;
    for (int l = 0; l < count; l++)
        sum += dls_blas_load(x->type, data, along_row ? index * x->down + l * x->right
                                                      : l * x->down + index * x->right);
    return sum;
}

void dls_blas_finish_epilogue(const dls_blas_product *p, int batch, double *row_sums)
{
    enum { BGRAD = 16 };
    void *bias = dls_blas_matrix_at(&p->bias, batch);
    unsigned e = p->epilogue;
    for (int i = 0; i < p->bias.rows; i++) {
        if (e & BGRAD)
            dls_blas_store(p->bias.type, bias, i, row_sums[i]);
        else if (e == CUBLASLT_EPILOGUE_BGRADA)
            dls_blas_store(p->bias.type, bias, i, sum_over_k(&p->a, batch, i, 1));
        else if (e == CUBLASLT_EPILOGUE_BGRADB)
            dls_blas_store(p->bias.type, bias, i, sum_over_k(&p->b, batch, i, 0));
    }
}
