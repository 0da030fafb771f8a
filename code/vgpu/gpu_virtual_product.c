/* code/vgpu/gpu_virtual_product.c: from chapters/A-virtual-gpu-blas.md. Edit the chapter, or edit here and run "make untangle". */
/* A matrix product as an operation: D = f(alpha op(A) op(B) + beta C).
 *
 *   A, B in their types --unpack--> work type --multiply--> sums --finish--> D
 *
 * The work type is f32, f64, int32, or fp16 kept in floats. Products of short numbers are
 * exact in f32, sums are f32, and D is rounded once. Everything is known when a product
 * is enqueued but the matrices, the pointer arrays, and scalars on the device. */
#include "vgpu/blas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/lt.h"
#include "vgpu/observer.h"

/* read and store elements of any type */
size_t dls_blas_size(cudaDataType type)
{
    switch (type) {
    case CUDA_R_8I: case CUDA_R_8F_E4M3: case CUDA_R_8F_E5M2: return 1;
    case CUDA_R_16F: case CUDA_R_16BF: return 2;
    case CUDA_R_32F: case CUDA_R_32I: return 4;
    case CUDA_R_64F: return 8;
    default: return 0;
    }
}

double dls_blas_load(cudaDataType type, const void *data, long long at)
{
    const unsigned short *two = data;
    const unsigned char *one = data;
    switch (type) {
    case CUDA_R_16BF: return dls_decode(two[at], DLS_FORMAT_BF16);
    case CUDA_R_16F: return dls_decode(two[at], DLS_FORMAT_FP16);
    case CUDA_R_8F_E4M3: return dls_decode(one[at], DLS_FORMAT_E4M3);
    case CUDA_R_8F_E5M2: return dls_decode(one[at], DLS_FORMAT_E5M2);
    case CUDA_R_8I: return ((const signed char *)data)[at];
    case CUDA_R_32I: return ((const int32_t *)data)[at];
    case CUDA_R_64F: return ((const double *)data)[at];
    default: return ((const float *)data)[at];
    }
}

static unsigned short encode_short(double v, dls_format f)
{
    return (unsigned short)dls_encode(v, f, DLS_ROUND_NEAREST);
}

static unsigned encode_fp8(double v, dls_format f)
{
    unsigned code = dls_encode(v, f, DLS_ROUND_NEAREST);
    return v == v && (code & 0x7f) > f.largest ? (code & 0x80) | f.largest : code;
}

void dls_blas_store(cudaDataType type, void *data, long long at, double v)
{
    unsigned short *two = (unsigned short *)data + at;
    unsigned char *one = (unsigned char *)data + at;
    switch (type) {
    case CUDA_R_16BF: *two = encode_short(v, DLS_FORMAT_BF16); break;
    case CUDA_R_16F: *two = encode_short(v, DLS_FORMAT_FP16); break;
    case CUDA_R_8F_E4M3: *one = (unsigned char)encode_fp8(v, DLS_FORMAT_E4M3); break;
    case CUDA_R_8F_E5M2: *one = (unsigned char)encode_fp8(v, DLS_FORMAT_E5M2); break;
    case CUDA_R_8I: *one = (unsigned char)(signed char)fmin(fmax(rint(v), -128), 127);
        break;
    case CUDA_R_32I: ((int32_t *)data)[at] = (int32_t)v; break;
    case CUDA_R_64F: ((double *)data)[at] = v; break;
    default: ((float *)data)[at] = (float)v;
    }
}

double dls_blas_round(cudaDataType type, double v)
{
    unsigned char space[8];
    dls_blas_store(type, space, 0, v);
    return dls_blas_load(type, space, 0);
}

/* unpack a factor */
static float round_tf32(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if ((bits >> 23 & 0xff) != 0xff) // not infinity or NaN
        bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&v, &bits, sizeof bits);
    return v;
}

/* x, any steps, to dense column-major numbers of the work type. */
static void unpack(const dls_blas_product *p, const dls_blas_matrix *x, const void *data,
                   void *out)
{
    size_t to = 0;
    for (int j = 0; j < x->columns; j++)
        for (int i = 0; i < x->rows; i++, to++) {
            double v = dls_blas_load(x->type, data, i * x->down + j * x->right);
            if (p->work == DLS_BLAS_I32 || p->work == DLS_BLAS_I32_SCALED)
                ((int32_t *)out)[to] = (int32_t)v;
            else if (p->tf32)
                ((float *)out)[to] = round_tf32((float)v);
            else if (p->narrow != x->type)
                ((float *)out)[to] = (float)dls_blas_round(p->narrow, v);
            else
                ((float *)out)[to] = (float)v;
        }
}

/* finish a product */
dls_blas_scalar dls_blas_scalar_at(dls_blas_work work, const void *p)
{
    dls_blas_scalar s = {0};
    if (work == DLS_BLAS_F16)
        s.f = (float)dls_blas_load(CUDA_R_16F, p, 0);
    else
        memcpy(&s, p, work == DLS_BLAS_F64 ? 8 : 4);
    return s;
}

int dls_blas_is_zero(dls_blas_work work, dls_blas_scalar s)
{
    return work == DLS_BLAS_F64 ? s.d == 0 : work == DLS_BLAS_I32 ? s.i == 0 : s.f == 0;
}

static double scaled_old(const dls_blas_product *p, const void *C, int i, int j)
{
    double old = dls_blas_load(p->c.type, C, i * p->c.down + j * p->c.right);
    if (p->work == DLS_BLAS_I32)
        return (double)(int32_t)((uint32_t)p->beta.i * (uint32_t)(int32_t)old);
    return (double)(p->beta.f * (float)old * (p->scale[2] ? *p->scale[2] : 1));
}

/* The element (i, j) of the result, not yet rounded to D's type. */
static double element(const dls_blas_product *p, const void *sum, int fresh,
                      const void *C, int i, int j)
{
    size_t at = (size_t)i + (size_t)j * (size_t)p->d.rows;
    if (p->work == DLS_BLAS_I32) {
        uint32_t v = (uint32_t)p->alpha.i * ((const uint32_t *)sum)[at];
        v += fresh ? 0 : (uint32_t)(int32_t)scaled_old(p, C, i, j);
        return (double)(int32_t)v;
    }
    float whole = p->work == DLS_BLAS_I32_SCALED ? (float)((const int32_t *)sum)[at]
                                                 : ((const float *)sum)[at];
    float v = p->alpha.f * whole;
    v *= (p->scale[0] ? *p->scale[0] : 1) * (p->scale[1] ? *p->scale[1] : 1);
    return fresh ? v : v + (float)scaled_old(p, C, i, j);
}

static int finish(const dls_blas_product *p, int batch, const void *sum)
{
    int fresh = dls_blas_is_zero(p->work, p->beta);
    const void *C = dls_blas_matrix_at(&p->c, batch);
    void *D = dls_blas_matrix_at(&p->d, batch);
    double *rows = p->epilogue ? calloc((size_t)p->d.rows, sizeof *rows) : NULL;
    if (p->epilogue && rows == NULL)
        return -(int)DLS_FAIL(DLS_ERR_MEMORY, "no memory for an epilogue");
    for (int j = 0; j < p->d.columns; j++)
        for (int i = 0; i < p->d.rows; i++) {
            double v = element(p, sum, fresh, C, i, j);
            if (p->epilogue) {
                v = dls_blas_epilogue(p, batch, i, j, v);
                rows[i] += v;
            }
            v *= p->scale[3] ? *p->scale[3] : 1;
            dls_blas_store(p->d.type, D, i * p->d.down + j * p->d.right, v);
        }
    if (p->epilogue)
        dls_blas_finish_epilogue(p, batch, rows);
    free(rows);
    return 0;
}

/* tell what a product touches */
void dls_blas_tell(int write, const dls_blas_matrix *x, int batch)
{
    if (dls_vgpu_observer == NULL || dls_blas_size(x->type) == 0)
        return;
    size_t size = dls_blas_size(x->type);
    int by_columns = x->down == 1;
    size_t length = (size_t)(by_columns ? x->rows : x->columns);
    size_t count = (size_t)(by_columns ? x->columns : x->rows);
    long long pitch = by_columns ? x->right : x->down;
    dls_vgpu_touched(write, dls_blas_matrix_at(x, batch), size * length,
                     size * (size_t)pitch, count);
}

static void tell_product(const dls_blas_product *p, int i)
{
    if (p->a.columns > 0 && !dls_blas_is_zero(p->work, p->alpha)) {
        dls_blas_tell(0, &p->a, i);
        dls_blas_tell(0, &p->b, i);
    }
    if (!dls_blas_is_zero(p->work, p->beta))
        dls_blas_tell(0, &p->c, i);
    if (p->epilogue && p->bias.base)
        dls_blas_tell((p->epilogue & CUBLASLT_EPILOGUE_BIAS) == 0, &p->bias, i);
    dls_blas_tell(1, &p->d, i);
}

/* run a product */
static void scale_f64(const dls_blas_product *p, const double *C, double *D)
{
    for (int j = 0; j < p->d.columns; j++)
        for (int i = 0; i < p->d.rows; i++) {
            double *d = &D[i * p->d.down + j * p->d.right];
            *d = p->beta.d == 0 ? 0 : p->beta.d * C[i * p->c.down + j * p->c.right];
        }
}

/* The short cuts. 1: done, 0: go the long way, < 0: failed. */
static int run_directly(const dls_blas_product *p, int i, int empty)
{
    void *A = dls_blas_matrix_at(&p->a, i), *B = dls_blas_matrix_at(&p->b, i);
    void *D = dls_blas_matrix_at(&p->d, i);
    if (p->work == DLS_BLAS_F64) {
        scale_f64(p, dls_blas_matrix_at(&p->c, i), D);
        if (!empty)
            dls_blas_multiply_f64(p->alpha.d, &p->a, A, &p->b, B, &p->d, D);
        return 1;
    }
    return empty ? 0 : dls_blas_multiply_panels(p, i);
}

static int run_unpacked(const dls_blas_product *p, int i, int empty)
{
    size_t m = (size_t)p->d.rows, n = (size_t)p->d.columns, k = (size_t)p->a.columns;
    void *a = malloc(4 * m * k + 1), *b = malloc(4 * k * n + 1);
    void *sum = calloc(m * n, 4);
    int code = 0;
    if (a == NULL || b == NULL || sum == NULL)
        code = -(int)DLS_FAIL(DLS_ERR_MEMORY, "no memory to unpack a %zu×%zu×%zu product",
                              m, n, k);
    if (code == 0 && !empty) {
        unpack(p, &p->a, dls_blas_matrix_at(&p->a, i), a);
        unpack(p, &p->b, dls_blas_matrix_at(&p->b, i), b);
        if (dls_blas_multiply(p->work, (int)m, (int)n, (int)k, a, b, sum) != 0)
            code = -(int)DLS_FAIL(DLS_ERR_DEVICE, "oneDNN refused the product");
    }
    if (code == 0)
        code = finish(p, i, sum);
    free(a);
    free(b);
    free(sum);
    return code;
}

static int product_run(void *arg, double start, double *finish_time)
{
    (void)start;
    (void)finish_time;
    dls_blas_product *p = arg;
    int code = 0;
    if (p->device_alpha)
        p->alpha = dls_blas_scalar_at(p->work, p->device_alpha);
    if (p->device_beta)
        p->beta = dls_blas_scalar_at(p->work, p->device_beta);
    int empty = p->a.columns == 0 || dls_blas_is_zero(p->work, p->alpha);
    for (int i = 0; i < p->batch && code >= 0; i++) {
        tell_product(p, i);
        code = run_directly(p, i, empty);
        if (code == 0)
            code = run_unpacked(p, i, empty);
        else if (code < 0)
            code = -(int)DLS_FAIL(DLS_ERR_DEVICE, "oneDNN refused the product");
    }
    return code < 0 ? code : 0;
}

/* enqueue a product */
static double bytes_of(const dls_blas_matrix *x)
{
    return (double)x->rows * x->columns * (double)dls_blas_size(x->type);
}

static dls_gpu_op product_op(const dls_blas_product *p)
{
    double m = p->d.rows, n = p->d.columns, k = p->a.columns;
    int again = p->device_beta || !dls_blas_is_zero(p->work, p->beta);
    double bytes = bytes_of(&p->a) + bytes_of(&p->b) + bytes_of(&p->d) +
                   (again ? bytes_of(&p->c) : 0) + (p->aux.base ? bytes_of(&p->aux) : 0);
    const char *name = p->a.type == CUDA_R_16BF         ? "gemm_bf16"
                       : p->a.type == CUDA_R_16F        ? "gemm_fp16"
                       : p->a.type == CUDA_R_8I         ? "gemm_int8"
                       : dls_blas_size(p->a.type) == 1  ? "gemm_fp8"
                       : p->work == DLS_BLAS_F64        ? "dgemm" : "sgemm";
    return (dls_gpu_op){
        .name = name, .kind = DLS_GPU_COMPUTE, .work = p->kind,
        .flops = 2 * m * n * k * p->batch,
        .bytes = bytes * p->batch, .run = product_run, .destroy = free,
    };
}

cublasStatus_t dls_blas_launch(int device, cudaStream_t stream, const dls_gpu_op *op,
                               void *arg)
{
    int current = device;
    cudaGetDevice(&current);
    if (current != device)
        cudaSetDevice(device);
    cudaError_t error = dls_vgpu_launch(stream, op, arg, -1);
    if (current != device)
        cudaSetDevice(current);
    return error ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t dls_blas_enqueue(int device, cudaStream_t stream,
                                const dls_blas_product *p)
{
    dls_blas_product *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *copy = *p;
    dls_gpu_op op = product_op(p);
    return dls_blas_launch(device, stream, &op, copy);
}
