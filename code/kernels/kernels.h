/* code/kernels/kernels.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* All operations of chapter 9. Every function takes the context first, enqueues on its
 * stream and returns; device pointers are `void *` and hold elements of type ctx->dtype,
 * or of its accumulator type where the shape's comment says acc.
 */
#ifndef DLS_KERNELS_KERNELS_H
#define DLS_KERNELS_KERNELS_H

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/bias.h"
#include "kernels/cache.h"
#include "kernels/cross_entropy.h"
#include "kernels/dropout.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gelu.h"
#include "kernels/layernorm.h"
#include "kernels/linear.h"
#include "kernels/reduce.h"
#include "kernels/residual_norm.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "kernels/vocabulary.h"

#endif
