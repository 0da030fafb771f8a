/* code/vgpu/shadow/cuda_fp16.h: from chapters/A-virtual-gpu-numbers.md. Edit the chapter, or edit here and run "make untangle". */
/* __half and __half2 with CUDA's names; the functions are in vgpu_short.h. */
#ifndef DLS_SHADOW_CUDA_FP16_H
#define DLS_SHADOW_CUDA_FP16_H

#include "cuda_runtime.h"
#include "vgpu_float.h"

#define DLS_T __half
#define DLS_T2 __half2
#define DLS_RAW __half_raw
#define DLS_NAME(before, after) before##half##after
#define DLS_FORMAT DLS_FORMAT_FP16
#include "vgpu_short.h"

typedef __half half;
typedef __half2 half2;
#endif
