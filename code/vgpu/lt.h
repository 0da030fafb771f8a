/* code/vgpu/lt.h: from chapters/A-virtual-gpu-blaslt.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, virtual backend: what the objects of cublasLt hold. */
#ifndef DLS_VGPU_LT_H
#define DLS_VGPU_LT_H

#include <cublasLt.h>

typedef struct dls_lt_layout {
    int32_t type, order;
    uint64_t rows, columns;
    int64_t ld;
    int32_t batch, pad;
    int64_t stride;
} dls_lt_layout;

typedef struct dls_lt_matmul {
    int32_t compute, scale, pointer_mode, ta, tb, tc, fill, sm_count;
    uint32_t epilogue;
    int32_t aux_type, bias_type;
    int8_t fast_accumulation;
    void *bias, *aux;
    int64_t bias_stride, aux_ld, aux_stride;
    const void *scales[4]; // of A, B, C, D
} dls_lt_matmul;

typedef struct dls_lt_preference {
    uint32_t mode, reduction, alignment[4];
    uint64_t workspace;
} dls_lt_preference;

#endif
