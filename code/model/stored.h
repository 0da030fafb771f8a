/* code/model/stored.h: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/* Elements as a safetensors file stores them: the format's types, and the conversion of
 * those that are weights (F64, F32, F16, BF16) to the type a model computes in. */
#ifndef DLS_MODEL_STORED_H
#define DLS_MODEL_STORED_H

#include <stddef.h>

#include "tensor/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name the stored types */
typedef enum dls_stored_type {
    DLS_STORED_BOOL, DLS_STORED_F4, DLS_STORED_F6_E2M3, DLS_STORED_F6_E3M2,
    DLS_STORED_U8, DLS_STORED_I8, DLS_STORED_F8_E5M2, DLS_STORED_F8_E4M3,
    DLS_STORED_F8_E8M0, DLS_STORED_F8_E4M3FNUZ, DLS_STORED_F8_E5M2FNUZ,
    DLS_STORED_I16, DLS_STORED_U16, DLS_STORED_F16, DLS_STORED_BF16,
    DLS_STORED_I32, DLS_STORED_U32, DLS_STORED_F32,
    DLS_STORED_C64, DLS_STORED_F64, DLS_STORED_I64, DLS_STORED_U64,
    DLS_STORED_TYPES
} dls_stored_type;

/* declare the stored types */
const char *dls_stored_type_name(dls_stored_type type);  // "F32"; "?" when unknown
unsigned dls_stored_type_bits(dls_stored_type type);     // per element

/* 1 and *out, or 0 when the format has no type of that name. */
int dls_stored_type_parse(const char *word, dls_stored_type *out);

/* 1: dls_stored_read takes it. */
int dls_stored_converts(dls_stored_type type);

dls_stored_type dls_stored_type_of(dls_dtype dtype);     // the same format, for saving

/* out (n) of `dtype` = n elements of `type` at `data`, at any address; rounded once, to
 * nearest even. The type must be one that converts. */
void dls_stored_read(dls_stored_type type, const void *data, size_t n, dls_dtype dtype,
                     void *out);

#ifdef __cplusplus
}
#endif
#endif
