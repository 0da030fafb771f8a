/* code/tensor/tensor.h: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* Everything of the folder. */
#ifndef DLS_TENSOR_TENSOR_H
#define DLS_TENSOR_TENSOR_H

#include "tensor/context.h"
#include "tensor/dtype.h"
#include "tensor/gemm.h"
#include "tensor/memory.h"
#include "tensor/tolerance.h"

#endif
