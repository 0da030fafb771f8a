/* code/tensor/dtype.c: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* Element types: one table. */
#include "tensor/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[DLS_DTYPES] = {[DLS_F32] = {"f32", 4}, [DLS_F64] = {"f64", 8},
                         [DLS_BF16] = {"bf16", 2}};

/* look up an element type */
size_t dls_dtype_size(dls_dtype dtype)
{
    return (unsigned)dtype < DLS_DTYPES ? types[dtype].size : 0;
}

const char *dls_dtype_name(dls_dtype dtype)
{
    return (unsigned)dtype < DLS_DTYPES ? types[dtype].name : "?";
}

dls_dtype dls_dtype_accumulator(dls_dtype dtype)
{
    return dtype == DLS_BF16 ? DLS_F32 : dtype;
}

dls_status dls_dtype_parse(const char *word, dls_dtype *out)
{
    for (int i = 0; i < DLS_DTYPES; i++)
        if (strcmp(word, types[i].name) == 0) {
            *out = (dls_dtype)i;
            return DLS_OK;
        }
    return DLS_FAIL(DLS_ERR_INPUT, "element type: expected f32, f64 or bf16, got "
                    "\"%.40s\"", word);
}
