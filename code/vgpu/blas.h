/* code/vgpu/blas.h: from chapters/A-virtual-gpu-blas.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, virtual backend: what the files of cuBLAS and cublasLt share. */
#ifndef DLS_VGPU_BLAS_H
#define DLS_VGPU_BLAS_H

#include <cublas_v2.h>

#include "vgpu/vgpu_internal.h"

struct cublasContext {
    int device; // the current one when the handle was made
    cudaStream_t stream;
    cublasPointerMode_t pointer_mode;
    cublasMath_t math_mode;
    cublasAtomicsMode_t atomics;
};

/* declare matrices and products */
typedef enum dls_blas_work {
    DLS_BLAS_NONE, DLS_BLAS_F16, DLS_BLAS_F32, DLS_BLAS_F64, DLS_BLAS_I32,
    DLS_BLAS_I32_SCALED // int32 sums, float scalars: cublasLt only
} dls_blas_work;

typedef union dls_blas_scalar { float f; double d; int32_t i; } dls_blas_scalar;

typedef struct dls_blas_matrix {
    cudaDataType type;
    int rows, columns;
    long long down, right;    // elements from (i, j) to (i + 1, j) and to (i, j + 1)
    long long stride;         // elements to the next matrix of the batch
    const void *base;
    const void *const *array; // one pointer per matrix, on the device; NULL: base, stride
} dls_blas_matrix;

typedef struct dls_blas_product {
    dls_blas_work work;
    cudaDataType narrow;           // f32 factors are rounded to this, if not their own
    int tf32;                      // ... or to TF32
    dls_blas_matrix a, b, c, d;    // (m, k), (k, n), (m, n), (m, n)
    int batch;
    dls_blas_scalar alpha, beta;
    const void *device_alpha, *device_beta; // NULL: the values above
    dls_work kind;                 // what the virtual clock charges
    /* what cublasLt adds */
    unsigned epilogue;             // cublasLtEpilogue_t, 0: none
    dls_blas_matrix bias, aux;
    const float *scale[4];         // of A, B, C and D, on the device; NULL: 1
} dls_blas_product;

/* declare the functions of blas */
size_t dls_blas_size(cudaDataType type); // bytes of an element, 0: an unknown type
double dls_blas_load(cudaDataType type, const void *data, long long at);
void dls_blas_store(cudaDataType type, void *data, long long at, double v); // rounds once
double dls_blas_round(cudaDataType type, double v); // to the nearest number of the type

/* Matrix i of a batch. */
void *dls_blas_matrix_at(const dls_blas_matrix *x, int i);
/* A column-major matrix of a call; `transposed` swaps what is seen. */
dls_blas_matrix dls_blas_columns(cudaDataType type, int transposed, int rows, int columns,
                                 const void *base, long long ld);

/* The work type of A and B, C and a compute type; NONE: there is no such product. */
dls_blas_work dls_blas_work_of(cudaDataType ab, cudaDataType c,
                               cublasComputeType_t compute);
/* Fills in how f32 factors are rounded, and what is charged. */
void dls_blas_set_compute(dls_blas_product *p, cublasComputeType_t compute,
                          cublasMath_t math);
dls_blas_scalar dls_blas_scalar_at(dls_blas_work work, const void *p);
int dls_blas_is_zero(dls_blas_work work, dls_blas_scalar s);

/* Tells an observer that matrix i of a batch is read or written. */
void dls_blas_tell(int write, const dls_blas_matrix *x, int batch);

/* Enqueues on a device's stream. The matrices have been checked. */
cublasStatus_t dls_blas_enqueue(int device, cudaStream_t stream,
                                const dls_blas_product *p);
/* Puts an operation on the handle's device and stream. */
cublasStatus_t dls_blas_launch(int device, cudaStream_t stream, const dls_gpu_op *op,
                               void *arg);

/* sum (m, n) = a (m, k) · b (k, n), dense, column-major; < 0 when oneDNN refuses. */
int dls_blas_multiply(dls_blas_work work, int m, int n, int k, const void *a,
                      const void *b, void *sum);
/* d += alpha * a * b in f64, any steps. */
void dls_blas_multiply_f64(double alpha, const dls_blas_matrix *a, const double *A,
                           const dls_blas_matrix *b, const double *B,
                           const dls_blas_matrix *d, double *D);
/* Product number i by oneDNN, in panels on all threads (vgpu/panels.h). 1: done, 0: not
 * one of these, < 0. */
int dls_blas_multiply_panels(const dls_blas_product *p, int i);
/* What cublasLt does to the element (i, j) of product number `batch` before it is
 * rounded into D, and what it adds up when all elements are there. */
double dls_blas_epilogue(const dls_blas_product *p, int batch, int i, int j, double v);
void dls_blas_finish_epilogue(const dls_blas_product *p, int batch, double *row_sums);
#endif
