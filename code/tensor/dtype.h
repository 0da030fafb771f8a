/* code/tensor/dtype.h: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* The types that elements of a tensor can have. */
#ifndef DLS_TENSOR_DTYPE_H
#define DLS_TENSOR_DTYPE_H

#include <stddef.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the element types */
typedef enum dls_dtype { DLS_F32 = 0, DLS_F64 = 1, DLS_BF16 = 2, DLS_DTYPES } dls_dtype;

size_t dls_dtype_size(dls_dtype dtype);       // bytes: 4, 8, 2; 0 for an unknown value
const char *dls_dtype_name(dls_dtype dtype);  // "f32", "f64", "bf16"; "?" for others

/* The type in which numbers of `dtype` are added up: f32 for bf16, else dtype itself. */
dls_dtype dls_dtype_accumulator(dls_dtype dtype);

/* "f32", "f64" or "bf16" -> *out. Errors: DLS_ERR_INPUT naming the word. */
dls_status dls_dtype_parse(const char *word, dls_dtype *out);

#ifdef __cplusplus
}
#endif
#endif
