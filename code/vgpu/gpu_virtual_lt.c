/* code/vgpu/gpu_virtual_lt.c: from chapters/A-virtual-gpu-blaslt.md. Edit the chapter, or edit here and run "make untangle". */
/* cublasLtMatmul: a described product is checked and becomes one of our products. */
#include "vgpu/lt.h"

#include <stdlib.h>
#include <string.h>

#include "vgpu/blas.h"

/* make a cublaslt handle */
struct cublasLtContext {
    struct cublasContext blas;
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    return cublasCreate((cublasHandle_t *)handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return handle == NULL ? CUBLAS_STATUS_INVALID_VALUE : cublasDestroy(&handle->blas);
}

size_t cublasLtGetVersion(void) { return 130100; }
size_t cublasLtGetCudartVersion(void) { return CUDART_VERSION; }

/* understand the layouts */
static cublasStatus_t understand(const dls_lt_layout *l, int operation, const void *base,
                                 dls_blas_matrix *out)
{
    if (l == NULL || (unsigned)operation > CUBLAS_OP_C)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (l->order != CUBLASLT_ORDER_COL && l->order != CUBLASLT_ORDER_ROW)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    int64_t least = (int64_t)(l->order == CUBLASLT_ORDER_COL ? l->rows : l->columns);
    if (l->ld < least || l->ld < 1 || l->rows > INT32_MAX || l->columns > INT32_MAX ||
        l->batch < 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    int turned = operation != CUBLAS_OP_N, by_rows = l->order == CUBLASLT_ORDER_ROW;
    *out = dls_blas_columns((cudaDataType)l->type, turned != by_rows,
                            (int)(turned ? l->columns : l->rows),
                            (int)(turned ? l->rows : l->columns), base, l->ld);
    out->stride = l->stride;
    return CUBLAS_STATUS_SUCCESS;
}

static int sizes_agree(const dls_blas_product *p)
{
    return p->a.rows == p->d.rows && p->b.columns == p->d.columns &&
           p->a.columns == p->b.rows && p->c.rows == p->d.rows &&
           p->c.columns == p->d.columns && p->c.type == p->d.type;
}

/* understand the types */
static int is_fp8(cudaDataType t) { return t == CUDA_R_8F_E4M3 || t == CUDA_R_8F_E5M2; }

static dls_blas_work work_of_fp8(const dls_blas_product *p, const dls_lt_matmul *m)
{
    cudaDataType c = p->c.type;
    int both_wide = p->a.type == CUDA_R_8F_E5M2 && p->b.type == CUDA_R_8F_E5M2;
    int fits = c == CUDA_R_16BF || c == CUDA_R_16F || c == CUDA_R_32F;
    return !both_wide && fits && m->ta != CUBLAS_OP_N && m->tb == CUBLAS_OP_N &&
           (m->compute == CUBLAS_COMPUTE_32F || m->compute == CUBLAS_COMPUTE_32F_PEDANTIC)
               ? DLS_BLAS_F32 : DLS_BLAS_NONE;
}

static dls_blas_work work_of(const dls_blas_product *p, const dls_lt_matmul *m)
{
    static const cudaDataType scales[] = {
        [DLS_BLAS_F16] = CUDA_R_16F, [DLS_BLAS_F32] = CUDA_R_32F,
        [DLS_BLAS_F64] = CUDA_R_64F, [DLS_BLAS_I32] = CUDA_R_32I};
    if (is_fp8(p->a.type) && is_fp8(p->b.type))
        return m->scale == CUDA_R_32F ? work_of_fp8(p, m) : DLS_BLAS_NONE;
    if (p->a.type != p->b.type)
        return DLS_BLAS_NONE;
    if (m->compute == CUBLAS_COMPUTE_32I && m->scale == CUDA_R_32F)
        return p->a.type == CUDA_R_8I && p->c.type == CUDA_R_8I ? DLS_BLAS_I32_SCALED
                                                                : DLS_BLAS_NONE;
    dls_blas_work work = dls_blas_work_of(p->a.type, p->c.type,
                                          (cublasComputeType_t)m->compute);
    return work != DLS_BLAS_NONE && (int)scales[work] == m->scale ? work : DLS_BLAS_NONE;
}

/* understand the epilogue */
enum { AUX = 128, WITH_BIAS = 4, BGRAD = 16, RELU = 2, DRELU = 8 };

static int known(unsigned epilogue)
{
    static const unsigned all[] = {1, 2, 130, 4, 6, 134, 136, 152, 32, 160, 36, 164, 192,
                                   208, 256, 512};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] == epilogue)
            return 1;
    return 0;
}


static cublasStatus_t take_epilogue(dls_blas_product *p, const dls_lt_matmul *m)
{
    unsigned e = m->epilogue, bits = e & (RELU | DRELU);
    int needs_bias = (e & (WITH_BIAS | BGRAD | CUBLASLT_EPILOGUE_BGRADA |
                           CUBLASLT_EPILOGUE_BGRADB)) != 0;
    if (!known(e))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (e == CUBLASLT_EPILOGUE_DEFAULT)
        return CUBLAS_STATUS_SUCCESS;
    if (p->work != DLS_BLAS_F32)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((needs_bias && m->bias == NULL) || ((e & AUX) && m->aux == NULL))
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((e & AUX) && (m->aux_ld < p->d.rows || m->aux_ld % (bits ? 128 : 8)))
        return CUBLAS_STATUS_INVALID_VALUE;
    p->epilogue = e;
    int length = e == CUBLASLT_EPILOGUE_BGRADB ? p->d.columns : p->d.rows;
    if (needs_bias)
        p->bias = dls_blas_columns(
            m->bias_type < 0 ? p->d.type : (cudaDataType)m->bias_type, 0, length, 1,
            m->bias, length);
    p->bias.stride = m->bias_stride;
    if (e & AUX)
        p->aux = dls_blas_columns(
            bits || m->aux_type < 0 ? p->d.type : (cudaDataType)m->aux_type, 0,
            p->d.rows, p->d.columns, m->aux, m->aux_ld);
    p->aux.stride = m->aux_stride;
    return CUBLAS_STATUS_SUCCESS;
}

/* describe the whole product */
static cublasStatus_t describe(cublasLtMatmulDesc_t desc, const void *A,
                               cublasLtMatrixLayout_t a, const void *B,
                               cublasLtMatrixLayout_t b, const void *C,
                               cublasLtMatrixLayout_t c, void *D,
                               cublasLtMatrixLayout_t d, dls_blas_product *p)
{
    const dls_lt_matmul *m = (const dls_lt_matmul *)desc;
    const dls_lt_layout *l[4] = {(dls_lt_layout *)a, (dls_lt_layout *)b,
                                 (dls_lt_layout *)c, (dls_lt_layout *)d};
    cublasStatus_t status = m ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    *p = (dls_blas_product){0};
    if (!status)
        status = understand(l[0], m->ta, A, &p->a);
    if (!status)
        status = understand(l[1], m->tb, B, &p->b);
    if (!status)
        status = understand(l[2], CUBLAS_OP_N, C, &p->c);
    if (!status)
        status = understand(l[3], CUBLAS_OP_N, D, &p->d);
    if (status)
        return status;
    if (!sizes_agree(p) || l[0]->batch != l[3]->batch || l[1]->batch != l[3]->batch ||
        l[2]->batch != l[3]->batch)
        return CUBLAS_STATUS_INVALID_VALUE;
    p->batch = l[3]->batch;
    p->work = work_of(p, m);
    if (p->work == DLS_BLAS_NONE || m->tc != CUBLAS_OP_N ||
        (unsigned)m->pointer_mode > CUBLASLT_POINTER_MODE_DEVICE)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    dls_blas_set_compute(p, (cublasComputeType_t)m->compute, CUBLAS_DEFAULT_MATH);
    for (int i = 0; i < 4 && is_fp8(p->a.type); i++)
        p->scale[i] = m->scales[i];
    return take_epilogue(p, m);
}

/* answer and multiply */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
    cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t preference, int requested,
    cublasLtMatmulHeuristicResult_t results[], int *returned)
{
    dls_blas_product p;
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (preference == NULL || requested < 1 || results == NULL || returned == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    *returned = 0;
    cublasStatus_t status = describe(desc, NULL, a, NULL, b, NULL, c, NULL, d, &p);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    results[0] = (cublasLtMatmulHeuristicResult_t){.state = CUBLAS_STATUS_SUCCESS,
                                                   .wavesCount = 1};
    *returned = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
    const void *alpha, const void *A, cublasLtMatrixLayout_t a_layout, const void *B,
    cublasLtMatrixLayout_t b_layout, const void *beta, const void *C,
    cublasLtMatrixLayout_t c_layout, void *D, cublasLtMatrixLayout_t d_layout,
    const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t workspace_bytes,
    cudaStream_t stream)
{
    dls_blas_product p;
    (void)algorithm, (void)workspace, (void)workspace_bytes;
    if (handle == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    cublasStatus_t status =
        describe(desc, A, a_layout, B, b_layout, C, c_layout, D, d_layout, &p);
    if (status == CUBLAS_STATUS_SUCCESS &&
        (alpha == NULL || beta == NULL || A == NULL || B == NULL || D == NULL))
        status = CUBLAS_STATUS_INVALID_VALUE;
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (((dls_lt_matmul *)desc)->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE) {
        p.device_alpha = alpha;
        p.device_beta = beta;
    } else {
        p.alpha = dls_blas_scalar_at(p.work, alpha);
        p.beta = dls_blas_scalar_at(p.work, beta);
        if (C == NULL && !dls_blas_is_zero(p.work, p.beta))
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (p.d.rows == 0 || p.d.columns == 0 || p.batch == 0)
        return CUBLAS_STATUS_SUCCESS;
    return dls_blas_enqueue(handle->blas.device, stream, &p);
}
