/* code/vgpu/shadow/cuda_bf16.h: from chapters/A-virtual-gpu-numbers.md. Edit the chapter, or edit here and run "make untangle". */
/* __nv_bfloat16 and __nv_bfloat162 with CUDA's names; functions are in vgpu_short.h. */
#ifndef DLS_SHADOW_CUDA_BF16_H
#define DLS_SHADOW_CUDA_BF16_H

#include "cuda_runtime.h"
#include "vgpu_float.h"

#define DLS_T __nv_bfloat16
#define DLS_T2 __nv_bfloat162
#define DLS_RAW __nv_bfloat16_raw
#define DLS_NAME(before, after) before##bfloat16##after
#define DLS_FORMAT DLS_FORMAT_BF16
#include "vgpu_short.h"

typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;
#endif
