/* code/model/hf_blocks.c: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Moving a model block by block: between rows as they are stored and a parameter on the
 * device, turned where the file has (in, out). Also JSON files, read and written whole.
 */
#include <jansson.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "model/hf_internal.h"
#include "vgpu/gpu.h"

/* turn a block */
#define TURN(T)                                                 \
    for (size_t r = 0; r < rows; r++)                           \
        for (size_t c = 0; c < columns; c++)                    \
            ((T *)to)[c * rows + r] = ((const T *)from)[r * columns + c]; \
    break

/* to (columns, rows) = from (rows, columns), transposed. */
static void turn(void *to, const void *from, size_t rows, size_t columns, size_t size)
{
    switch (size) {
    case 2: TURN(uint16_t);
    case 4: TURN(uint32_t);
    default: TURN(uint64_t);
    }
}

/* walk over blocks */
static size_t row_bytes(const dls_hf_walk *w, const dls_hf_tensor *t)
{
    return (t->ndim == 2 ? t->shape[1] : 1) * dls_dtype_size(w->set->dtype);
}

dls_status dls_hf_walk_begin(dls_hf_walk *w, const dls_hf_tensor *list, size_t n)
{
    size_t bytes = DLS_HF_BLOCK;
    for (size_t i = 0; i < n; i++)
        bytes = row_bytes(w, &list[i]) > bytes ? row_bytes(w, &list[i]) : bytes;
    w->stored = malloc(bytes);
    w->turned = malloc(bytes);
    if (!w->stored || !w->turned)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for two blocks of %zu bytes", bytes);
    return DLS_OK;
}

dls_status dls_hf_walk_over(dls_hf_walk *w, const dls_hf_tensor *t)
{
    size_t fitting = DLS_HF_BLOCK / row_bytes(w, t), rows = fitting ? fitting : 1;
    for (size_t i = 0, n; i < t->shape[0]; i += n) {
        n = t->shape[0] - i < rows ? t->shape[0] - i : rows;
        DLS_TRY(w->step(w, t, i, n));
    }
    return DLS_OK;
}

void dls_hf_walk_end(dls_hf_walk *w)
{
    free(w->stored);
    free(w->turned);
}

/* copy a block */
static void *place_of(const dls_hf_walk *w, const dls_hf_tensor *t, size_t from)
{
    size_t row = t->row + (t->transposed ? 0 : from), column = t->transposed ? from : 0;
    return (char *)w->set->items[t->param].value
        + (row * t->columns + column) * dls_dtype_size(w->set->dtype);
}

dls_status dls_hf_put(dls_hf_walk *w, const dls_hf_tensor *t, size_t from, size_t n)
{
    size_t size = dls_dtype_size(w->set->dtype);
    void *to = place_of(w, t, from);
    if (!t->transposed) {
        DLS_CUDA(cudaMemcpy(to, w->stored, n * row_bytes(w, t), cudaMemcpyHostToDevice));
        return DLS_OK;
    }
    turn(w->turned, w->stored, n, t->rows, size);
    DLS_CUDA(cudaMemcpy2D(to, t->columns * size, w->turned, n * size, n * size, t->rows,
                          cudaMemcpyHostToDevice));
    return DLS_OK;
}

dls_status dls_hf_get(dls_hf_walk *w, const dls_hf_tensor *t, size_t from, size_t n)
{
    size_t size = dls_dtype_size(w->set->dtype);
    const void *at = place_of(w, t, from);
    if (!t->transposed) {
        DLS_CUDA(cudaMemcpy(w->stored, at, n * row_bytes(w, t), cudaMemcpyDeviceToHost));
        return DLS_OK;
    }
    DLS_CUDA(cudaMemcpy2D(w->turned, n * size, at, t->columns * size, n * size, t->rows,
                          cudaMemcpyDeviceToHost));
    turn(w->stored, w->turned, t->rows, n, size);
    return DLS_OK;
}

/* read a json file */
dls_status dls_hf_json(const char *path, struct json_t **out)
{
    json_error_t error;
    char *text;
    size_t size;
    struct stat st;
    if (stat(path, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size > 64 << 20))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a file of at most 64 MB", path);
    DLS_TRY(dls_file_read(path, &text, &size));
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!*out)
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: %s", path, error.line, error.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a JSON object", path);
    }
    return DLS_OK;
}

/* write a json file */
dls_status dls_hf_write_json(const char *path, struct json_t *object)
{
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_SORT_KEYS);
    json_decref(object);
    if (!text)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path);
    size_t n = strlen(text);
    text[n] = '\n';             // in the place of the terminator
    dls_status s = dls_file_write(path, text, n + 1);
    free(text);
    return s;
}
