/* code/model/safetensors.h: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Safetensors files: named tensors behind a JSON header.
 *
 *   | 8 bytes: N | N bytes: {"name":{"dtype","shape","data_offsets"},...} | data |
 *
 * The reader maps the file and copies nothing; it believes no number in it. The writer
 * streams, and the file appears whole or not at all.
 */
#ifndef DLS_MODEL_SAFETENSORS_H
#define DLS_MODEL_SAFETENSORS_H

#include <stddef.h>

#include "base/status.h"
#include "model/stored.h"

#ifdef __cplusplus
extern "C" {
#endif

/* describe a stored tensor */
enum { DLS_STORED_RANK = 8 };

typedef struct dls_stored_tensor {
    const char *name;           /* UTF-8 without a NUL */
    dls_stored_type type;
    int ndim;                   /* 0: a single number */
    size_t shape[DLS_STORED_RANK];
    size_t count, bytes;
    const void *data;           /* in the mapping, at any address */
} dls_stored_tensor;

/* An open file: read only, good until it is closed. */
typedef struct dls_safetensors {
    char *path;
    const char *map;
    size_t size;
    void *header;               /* the parsed JSON */
    dls_stored_tensor *tensors; /* [n] in the order of their data */
    size_t n;
} dls_safetensors;

/* declare the safetensors calls */
/* Maps and checks a file. Errors: DLS_ERR_INPUT in one line that names the file, the
 * tensor and what was expected; DLS_ERR_IO. *out is then empty. */
dls_status dls_safetensors_open(const char *path, dls_safetensors *out);
void dls_safetensors_close(dls_safetensors *f);  // an empty one is allowed

const dls_stored_tensor *dls_safetensors_find(const dls_safetensors *f, const char *name);

typedef struct dls_safetensors_writer dls_safetensors_writer;

/* Begins a file of these n tensors (name, type, ndim, shape; the rest is not read), to be
 * appended in this order. */
dls_status dls_safetensors_begin(const char *path, const dls_stored_tensor *tensors,
                                 size_t n, dls_safetensors_writer **out);
dls_status dls_safetensors_append(dls_safetensors_writer *w, const void *data,
                                  size_t bytes);

/* Puts the file in place, if all of its data came; frees w in any case. */
dls_status dls_safetensors_commit(dls_safetensors_writer *w);
void dls_safetensors_abort(dls_safetensors_writer *w);  // NULL is allowed

#ifdef __cplusplus
}
#endif
#endif
