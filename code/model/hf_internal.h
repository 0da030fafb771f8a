/* code/model/hf_internal.h: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared by the files that read and write the Hugging Face layout. */
#ifndef DLS_MODEL_HF_INTERNAL_H
#define DLS_MODEL_HF_INTERNAL_H

#include <limits.h>
#include <stdlib.h>

#include "model/hf.h"
#include "model/safetensors.h"

enum { DLS_HF_NAME = 128 };

typedef enum dls_hf_family {
    DLS_HF_NONE, DLS_HF_GPT2, DLS_HF_LLAMA, DLS_HF_MIXTRAL, DLS_HF_DEEPSEEK
} dls_hf_family;

/* place a stored tensor */
/* A stored tensor and where it lies: `rows` rows of a parameter, from `row` on. A vector
 * is a matrix of one column. */
typedef struct dls_hf_tensor {
    char name[DLS_HF_NAME];
    int param;                  /* index in the parameter set */
    size_t row, rows, columns;  /* of ours */
    int ndim;
    size_t shape[2];            /* as stored: (columns, rows) when transposed */
    int transposed;
} dls_hf_tensor;

/* describe the walk */
enum { DLS_HF_BLOCK = 4 << 20 };

typedef struct dls_hf_walk dls_hf_walk;

/* Handles rows from .. from + n of a tensor as stored. */
typedef dls_status (*dls_hf_step)(dls_hf_walk *w, const dls_hf_tensor *t, size_t from,
                                  size_t n);

struct dls_hf_walk {
    const dls_params *set;
    void *stored, *turned;      /* a block as stored, and as ours if that differs */
    dls_hf_step step;
    const dls_stored_tensor *source;    /* loading */
    dls_safetensors_writer *target;     /* saving */
};

/* declare the hf internals */
dls_hf_family dls_hf_family_of(const dls_transformer_config *c);

/* DIRECTORY/NAME; DLS_ERR_INPUT when that is too long. */
dls_status dls_hf_path(char path[PATH_MAX], const char *directory, const char *name);

/* A JSON object from a file, and into one: sorted, indented; takes the object. */
struct json_t;
dls_status dls_hf_json(const char *path, struct json_t **out);
dls_status dls_hf_write_json(const char *path, struct json_t *object);

/* Every stored tensor of a model, sorted by name; free *out. */
dls_status dls_hf_tensors(const dls_transformer_config *c, const dls_params *set,
                          dls_hf_tensor **out, size_t *n);

/* Buffers for a walk over these tensors; walk_end frees them, also after a failure. */
dls_status dls_hf_walk_begin(dls_hf_walk *w, const dls_hf_tensor *list, size_t n);
dls_status dls_hf_walk_over(dls_hf_walk *w, const dls_hf_tensor *t);
void dls_hf_walk_end(dls_hf_walk *w);

/* Rows from .. from + n between w->stored and the device. */
dls_status dls_hf_put(dls_hf_walk *w, const dls_hf_tensor *t, size_t from, size_t n);
dls_status dls_hf_get(dls_hf_walk *w, const dls_hf_tensor *t, size_t from, size_t n);

#endif
