/* code/model/safetensors.c: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Reading and writing safetensors. The order of the checks matters: each makes the
 * arithmetic of the next one safe, and no number of the file sizes an allocation.
 */
#include "model/safetensors.h"

/* include for safetensors */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { HEADER_LIMIT = 100000000 };  // the format's own

/* map a file */
static dls_status map_file(dls_safetensors *f, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return DLS_FAIL(DLS_ERR_IO, "%s: %s", f->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a regular file", f->path);
    f->size = (size_t)st.st_size;
    if (f->size < 8)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: cut short: %zu bytes, the length of the "
                        "header alone has 8", f->path, f->size);
    void *map = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot map: %s", f->path, strerror(errno));
    f->map = map;
    return DLS_OK;
}

/* measure the header */
static dls_status measure_header(const dls_safetensors *f, size_t *length)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | (unsigned char)f->map[i];
    if (n > HEADER_LIMIT)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: a header of %llu bytes: the format allows "
                        "%d", f->path, (unsigned long long)n, HEADER_LIMIT);
    if (8 + n > f->size)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: cut short: a header of %llu bytes in a file "
                        "of %zu", f->path, (unsigned long long)n, f->size);
    *length = (size_t)n;
    return DLS_OK;
}

/* parse the header */
static dls_status parse_header(dls_safetensors *f, size_t length)
{
    json_error_t error;
    const char *text = f->map + 8;
    if (length == 0 || *text != '{')
        return DLS_FAIL(DLS_ERR_INPUT, "%s: header: expected a JSON object", f->path);
    json_t *header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!header)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: header, byte %d: %s", f->path,
                        error.position, error.text);
    f->header = header;
    return DLS_OK;
}

/* read the entries */
/* refuse a tensor */
#define REFUSE(f, name, format, ...)                                       \
    DLS_FAIL(DLS_ERR_INPUT, "%s: tensor \"%.200s\": " format, (f)->path, name, \
             __VA_ARGS__)

static dls_status read_size(const dls_safetensors *f, const char *name, const char *field,
                            json_t *value, size_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return REFUSE(f, name, "%s: expected whole numbers from 0 on", field);
    *out = (size_t)json_integer_value(value);
    return DLS_OK;
}

/* read the shape */
static dls_status read_shape(const dls_safetensors *f, dls_stored_tensor *t,
                             json_t *shape)
{
    size_t bits = dls_stored_type_bits(t->type), n = json_array_size(shape);
    if (!json_is_array(shape) || n > DLS_STORED_RANK)
        return REFUSE(f, t->name, "shape: expected an array of at most %d numbers",
                      DLS_STORED_RANK);
    t->ndim = (int)n;
    t->count = 1;
    int overflow = 0;
    for (size_t i = 0; i < n; i++) {
        DLS_TRY(read_size(f, t->name, "shape", json_array_get(shape, i), &t->shape[i]));
        overflow |= __builtin_mul_overflow(t->count, t->shape[i], &t->count);
    }
    if (overflow || __builtin_mul_overflow(t->count, bits, &bits))
        return REFUSE(f, t->name, "shape: the product of %zu numbers does not fit in "
                      "64 bits", n);
    if (bits % 8 != 0)
        return REFUSE(f, t->name, "%zu bits of %s are not whole bytes", bits,
                      dls_stored_type_name(t->type));
    t->bytes = bits / 8;
    return DLS_OK;
}

/* read the offsets */
static dls_status read_offsets(const dls_safetensors *f, dls_stored_tensor *t,
                               json_t *offsets, size_t start)
{
    size_t at[2], room = f->size - start;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return REFUSE(f, t->name, "data_offsets: expected %s", "two numbers");
    for (size_t i = 0; i < 2; i++)
        DLS_TRY(read_size(f, t->name, "data_offsets", json_array_get(offsets, i),
                          &at[i]));
    if (at[0] > at[1])
        return REFUSE(f, t->name, "begins at %zu, behind its end at %zu", at[0], at[1]);
    if (at[1] > room)
        return REFUSE(f, t->name, "ends at %zu, the file has %zu bytes of data", at[1],
                      room);
    if (at[1] - at[0] != t->bytes)
        return REFUSE(f, t->name, "%zu bytes of data, %zu elements of %s are %zu",
                      at[1] - at[0], t->count, dls_stored_type_name(t->type), t->bytes);
    t->data = f->map + start + at[0];
    return DLS_OK;
}

/* read an entry */
static dls_status read_entry(const dls_safetensors *f, dls_stored_tensor *t,
                             json_t *entry, size_t start)
{
    json_t *dtype = json_object_get(entry, "dtype");
    json_t *shape = json_object_get(entry, "shape");
    json_t *offsets = json_object_get(entry, "data_offsets");
    if (!dtype || !shape || !offsets || json_object_size(entry) != 3)
        return REFUSE(f, t->name, "expected %s", "dtype, shape and data_offsets");
    if (!json_is_string(dtype) ||
        !dls_stored_type_parse(json_string_value(dtype), &t->type))
        return REFUSE(f, t->name, "dtype: \"%.40s\" is not one of the format's types",
                      json_is_string(dtype) ? json_string_value(dtype) : "");
    DLS_TRY(read_shape(f, t, shape));
    return read_offsets(f, t, offsets, start);
}

/* check the metadata */
static dls_status check_metadata(const dls_safetensors *f, json_t *metadata)
{
    const char *key;
    json_t *value;
    int strings = json_is_object(metadata);
    json_object_foreach(metadata, key, value)
        strings = strings && json_is_string(value);
    if (!strings)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: __metadata__: expected strings by name",
                        f->path);
    return DLS_OK;
}

/* tabulate the tensors */
static dls_status tabulate(dls_safetensors *f, size_t start)
{
    const char *name;
    json_t *entry;
    f->tensors = calloc(json_object_size(f->header) + 1, sizeof *f->tensors);
    if (!f->tensors)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory for its table", f->path);
    json_object_foreach((json_t *)f->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            DLS_TRY(check_metadata(f, entry));
            continue;
        }
        dls_stored_tensor *t = &f->tensors[f->n];
        t->name = name;
        DLS_TRY(read_entry(f, t, entry, start));
        f->n++;
    }
    return DLS_OK;
}

/* cover the data */
static int earlier(const void *a, const void *b)
{
    const dls_stored_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static dls_status cover_data(dls_safetensors *f, size_t start)
{
    const char *data = f->map + start, *at = data;
    qsort(f->tensors, f->n, sizeof *f->tensors, earlier);
    for (size_t i = 0; i < f->n; i++) {
        const dls_stored_tensor *t = &f->tensors[i];
        const char *begin = t->data;
        if (begin != at)
            return REFUSE(f, t->name, "begins at %zu, %s at %zu", (size_t)(begin - data),
                          begin < at ? "inside the one that ends"
                                     : "behind a hole that begins", (size_t)(at - data));
        at = begin + t->bytes;
    }
    if (at != f->map + f->size)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %zu bytes behind the last tensor", f->path,
                        (size_t)(f->map + f->size - at));
    return DLS_OK;
}

/* open a safetensors file */
static dls_status read_file(dls_safetensors *f)
{
    size_t length;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot open: %s", f->path, strerror(errno));
    dls_status s = map_file(f, fd);
    close(fd);                  // the mapping stays
    DLS_TRY(s);
    DLS_TRY(measure_header(f, &length));
    DLS_TRY(parse_header(f, length));
    DLS_TRY(tabulate(f, 8 + length));
    return cover_data(f, 8 + length);
}

dls_status dls_safetensors_open(const char *path, dls_safetensors *out)
{
    *out = (dls_safetensors){.path = strdup(path)};
    dls_status s = out->path ? read_file(out)
                             : DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path);
    if (s != DLS_OK)
        dls_safetensors_close(out);
    return s;
}

/* close a safetensors file */
const dls_stored_tensor *dls_safetensors_find(const dls_safetensors *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->tensors[i].name, name) == 0)
            return &f->tensors[i];
    return NULL;
}

void dls_safetensors_close(dls_safetensors *f)
{
    if (f->map)
        munmap((void *)f->map, f->size);
    json_decref(f->header);
    free(f->tensors);
    free(f->path);
    *f = (dls_safetensors){0};
}

/* define the safetensors writer */
struct dls_safetensors_writer {
    dls_file_writer *file;
    char *path;
    size_t left;                /* bytes of data still to come */
};

/* describe an entry */
static json_t *entry_of(const dls_stored_tensor *t, size_t *at)
{
    size_t bytes = dls_stored_type_bits(t->type) / 8, begin = *at;
    json_t *shape = json_array();
    for (int i = 0; i < t->ndim; i++) {
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
        bytes *= t->shape[i];
    }
    *at += bytes;
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dls_stored_type_name(t->type),
                     "shape", shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)*at);
}

/* compose the header */
static char *compose_header(const dls_stored_tensor *tensors, size_t n, size_t *bytes)
{
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    int failed = !header;
    *bytes = 0;
    for (size_t i = 0; i < n && !failed; i++)
        failed = json_object_set_new(header, tensors[i].name,
                                     entry_of(&tensors[i], bytes)) != 0;
    char *text = failed ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

/* write the header */
static dls_status write_header(dls_safetensors_writer *w, const char *text)
{
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    unsigned char head[8];
    for (int i = 0; i < 8; i++)
        head[i] = (unsigned char)(padded >> 8 * i);
    if (padded > HEADER_LIMIT)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: a header of %zu bytes: the format allows %d",
                        w->path, padded, HEADER_LIMIT);
    DLS_TRY(dls_file_append(w->file, head, sizeof head));
    DLS_TRY(dls_file_append(w->file, text, length));
    return dls_file_append(w->file, "       ", padded - length);
}

/* begin a safetensors file */
dls_status dls_safetensors_begin(const char *path, const dls_stored_tensor *tensors,
                                 size_t n, dls_safetensors_writer **out)
{
    dls_status s = DLS_OK;
    dls_safetensors_writer *w = calloc(1, sizeof *w);
    if (!w)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path);
    char *text = compose_header(tensors, n, &w->left);
    w->path = strdup(path);
    if (!text || !w->path)
        DLS_TRY_GOTO(s, DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path), fail);
    DLS_TRY_GOTO(s, dls_file_begin(path, &w->file), fail);
    DLS_TRY_GOTO(s, write_header(w, text), fail);
    free(text);
    *out = w;
    return DLS_OK;
fail:
    free(text);
    dls_safetensors_abort(w);
    return s;
}

/* append and commit */
dls_status dls_safetensors_append(dls_safetensors_writer *w, const void *data,
                                  size_t bytes)
{
    if (bytes > w->left)
        return DLS_FAIL(DLS_ERR_STATE, "%s: %zu bytes more than its header says",
                        w->path, bytes - w->left);
    w->left -= bytes;
    return dls_file_append(w->file, data, bytes);
}

void dls_safetensors_abort(dls_safetensors_writer *w)
{
    if (!w)
        return;
    dls_file_abort(w->file);
    free(w->path);
    free(w);
}

dls_status dls_safetensors_commit(dls_safetensors_writer *w)
{
    dls_status s;
    if (w->left > 0) {
        s = DLS_FAIL(DLS_ERR_STATE, "%s: %zu bytes less than its header says", w->path,
                     w->left);
    } else {
        s = dls_file_commit(w->file);
        w->file = NULL;
    }
    dls_safetensors_abort(w);
    return s;
}
