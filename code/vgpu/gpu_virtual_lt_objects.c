/* code/vgpu/gpu_virtual_lt_objects.c: from chapters/A-virtual-gpu-blaslt.md. Edit the chapter, or edit here and run "make untangle". */
/* The descriptors of cublasLt: memory with named attributes. */
#include "vgpu/lt.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* set and get attributes */
typedef struct attribute {
    int id;
    size_t offset, bytes;
} attribute;

static const attribute *find(const attribute *list, size_t count, int id)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].id == id)
            return &list[i];
    return NULL;
}

static cublasStatus_t set(void *object, const attribute *a, const void *value,
                          size_t bytes)
{
    if (object == NULL || a == NULL || value == NULL || bytes != a->bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy((char *)object + a->offset, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t get(const void *object, const attribute *a, void *value,
                          size_t bytes, size_t *written)
{
    if (object == NULL || a == NULL || (bytes == 0 && written == NULL) ||
        (bytes != 0 && (value == NULL || bytes != a->bytes)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes)
        memcpy(value, (const char *)object + a->offset, bytes);
    if (written)
        *written = a->bytes;
    return CUBLAS_STATUS_SUCCESS;
}

/* list the attributes */
#define AT(S, id, field) {id, offsetof(S, field), sizeof(((S *)0)->field)}
#define LAYOUT(name, field) AT(dls_lt_layout, CUBLASLT_MATRIX_LAYOUT_##name, field)
#define DESC(name, field) AT(dls_lt_matmul, CUBLASLT_MATMUL_DESC_##name, field)
#define PREF(name, field) AT(dls_lt_preference, CUBLASLT_MATMUL_PREF_##name, field)

static const attribute layout_list[] = {
    LAYOUT(TYPE, type), LAYOUT(ORDER, order), LAYOUT(ROWS, rows), LAYOUT(COLS, columns),
    LAYOUT(LD, ld), LAYOUT(BATCH_COUNT, batch), LAYOUT(STRIDED_BATCH_OFFSET, stride),
};
static const attribute desc_list[] = {
    DESC(COMPUTE_TYPE, compute), DESC(SCALE_TYPE, scale),
    DESC(POINTER_MODE, pointer_mode), DESC(TRANSA, ta), DESC(TRANSB, tb),
    DESC(TRANSC, tc), DESC(FILL_MODE, fill), DESC(EPILOGUE, epilogue),
    DESC(BIAS_POINTER, bias), DESC(BIAS_BATCH_STRIDE, bias_stride),
    DESC(EPILOGUE_AUX_POINTER, aux), DESC(EPILOGUE_AUX_LD, aux_ld),
    DESC(EPILOGUE_AUX_BATCH_STRIDE, aux_stride), DESC(SM_COUNT_TARGET, sm_count),
    DESC(A_SCALE_POINTER, scales[0]), DESC(B_SCALE_POINTER, scales[1]),
    DESC(C_SCALE_POINTER, scales[2]), DESC(D_SCALE_POINTER, scales[3]),
    DESC(EPILOGUE_AUX_DATA_TYPE, aux_type), DESC(FAST_ACCUM, fast_accumulation),
    DESC(BIAS_DATA_TYPE, bias_type),
};
static const attribute pref_list[] = {
    PREF(SEARCH_MODE, mode), PREF(MAX_WORKSPACE_BYTES, workspace),
    PREF(REDUCTION_SCHEME_MASK, reduction), PREF(MIN_ALIGNMENT_A_BYTES, alignment[0]),
    PREF(MIN_ALIGNMENT_B_BYTES, alignment[1]), PREF(MIN_ALIGNMENT_C_BYTES, alignment[2]),
    PREF(MIN_ALIGNMENT_D_BYTES, alignment[3]),
};

/* create the objects */
_Static_assert(sizeof(dls_lt_layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits");
_Static_assert(sizeof(dls_lt_matmul) <= sizeof(cublasLtMatmulDescOpaque_t), "fits");
_Static_assert(sizeof(dls_lt_preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t),
               "fits");

#define COUNT(list) (sizeof list / sizeof *list)
#define OBJECT(Name, T, A, list)                                                        \
    cublasStatus_t cublasLt##Name##Destroy(T object)                                    \
    {                                                                                   \
        free(object);                                                                   \
        return CUBLAS_STATUS_SUCCESS;                                                   \
    }                                                                                   \
    cublasStatus_t cublasLt##Name##SetAttribute(T object, A id, const void *value,      \
                                                size_t bytes)                           \
    {                                                                                   \
        return set(object, find(list, COUNT(list), (int)id), value, bytes);             \
    }                                                                                   \
    cublasStatus_t cublasLt##Name##GetAttribute(T object, A id, void *value,            \
                                                size_t bytes, size_t *written)          \
    {                                                                                   \
        return get(object, find(list, COUNT(list), (int)id), value, bytes, written);    \
    }

OBJECT(MatmulDesc, cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, desc_list)
OBJECT(MatrixLayout, cublasLtMatrixLayout_t, cublasLtMatrixLayoutAttribute_t, layout_list)
OBJECT(MatmulPreference, cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
       pref_list)

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc,
                                      cublasComputeType_t compute, cudaDataType_t scale)
{
    dls_lt_matmul fresh = {.compute = compute, .scale = scale,
                           .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                           .fill = CUBLAS_FILL_MODE_FULL, .aux_type = -1,
                           .bias_type = -1};
    if (desc == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(desc, 0, sizeof *desc);
    memcpy(desc, &fresh, sizeof fresh);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType type,
                                        uint64_t rows, uint64_t columns, int64_t ld)
{
    dls_lt_layout fresh = {.type = type, .rows = rows, .columns = columns, .ld = ld,
                           .batch = 1};
    if (layout == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(layout, 0, sizeof *layout);
    memcpy(layout, &fresh, sizeof fresh);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference)
{
    dls_lt_preference fresh = {.reduction = 7, .alignment = {256, 256, 256, 256}};
    if (preference == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(preference, 0, sizeof *preference);
    memcpy(preference, &fresh, sizeof fresh);
    return CUBLAS_STATUS_SUCCESS;
}

#define CREATE(object, init)                                                            \
    if (object == NULL)                                                                 \
        return CUBLAS_STATUS_INVALID_VALUE;                                             \
    *object = malloc(sizeof **object);                                                  \
    return *object ? init : CUBLAS_STATUS_ALLOC_FAILED

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc,
                                        cublasComputeType_t compute, cudaDataType_t scale)
{
    CREATE(desc, cublasLtMatmulDescInit(*desc, compute, scale));
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout,
                                          cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld)
{
    CREATE(layout, cublasLtMatrixLayoutInit(*layout, type, rows, columns, ld));
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    CREATE(preference, cublasLtMatmulPreferenceInit(*preference));
}
