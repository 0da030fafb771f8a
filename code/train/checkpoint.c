/* code/train/checkpoint.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * A checkpoint file:
 *
 *     0  magic, version, bytes per element, step, elements, type, number of sections
 *    40  five times: bytes and checksum of a section
 *   120  checksum of the 120 bytes before
 *   128  settings | layout | values | first moments | second moments
 *
 * Nothing in it is believed before its checksum is verified, lengths included.
 */
/* include for checkpoints */
#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"

/* define the checkpoint header */
enum { SECTIONS = 5, CHECKPOINT_VERSION = 2 };
static const char magic[8] = {'D', 'L', 'S', 'C', 'K', 'P', 'T', '\n'};

typedef struct section { uint64_t bytes, hash; } section;

typedef struct header {
    char magic[8];
    uint32_t version, element_bytes;
    int64_t step;
    uint64_t elements;
    uint32_t dtype, sections;
    section section[SECTIONS];
    uint64_t hash;              /* of all bytes before this one */
} header;

_Static_assert(sizeof(header) == 128, "the header has no padding");

/* describe the sections */
typedef struct payload { const void *data[SECTIONS]; size_t bytes[SECTIONS]; } payload;

static payload sections_of(const dls_checkpoint *c)
{
    size_t n = c->elements * dls_dtype_size(dls_dtype_accumulator(c->dtype));
    return (payload){
        {c->settings, c->layout, c->values, c->m, c->v},
        {strlen(c->settings) + 1, strlen(c->layout) + 1, n, n, n}};
}

static const char *const section_names[SECTIONS] = {
    "settings", "layout", "values", "first moments", "second moments"};

/* fill the header */
static header header_of(const dls_checkpoint *c, const payload *p)
{
    header h = {
        .version = CHECKPOINT_VERSION,
        .element_bytes = (uint32_t)dls_dtype_size(dls_dtype_accumulator(c->dtype)),
        .step = c->step, .elements = c->elements, .dtype = (uint32_t)c->dtype,
        .sections = SECTIONS,
    };
    memcpy(h.magic, magic, sizeof magic);
    for (int i = 0; i < SECTIONS; i++)
        h.section[i] = (section){p->bytes[i], dls_hash64(p->data[i], p->bytes[i])};
    h.hash = dls_hash64(&h, offsetof(header, hash));
    return h;
}

/* write a checkpoint */
static dls_status write_checkpoint(const char *path, const dls_checkpoint *c)
{
    payload p = sections_of(c);
    header h = header_of(c, &p);
    dls_file_writer *w;
    dls_status s;
    DLS_TRY(dls_file_begin(path, &w));
    DLS_TRY_GOTO(s, dls_file_append(w, &h, sizeof h), fail);
    for (int i = 0; i < SECTIONS; i++)
        DLS_TRY_GOTO(s, dls_file_append(w, p.data[i], p.bytes[i]), fail);
    return dls_file_commit(w);
fail:
    dls_file_abort(w);
    return s;
}

/* write down the layout */
char *dls_checkpoint_layout(const dls_params *set)
{
    size_t room = (size_t)set->n * (DLS_PARAM_NAME + 96) + 1, used = 0;
    char *text = malloc(room);
    if (!text)
        return NULL;
    text[0] = 0;
    for (int i = 0; i < set->n; i++) {
        const dls_param *p = &set->items[i];
        used += (size_t)snprintf(text + used, room - used, "%s", p->name);
        for (int k = 0; k < p->ndim; k++)
            used += (size_t)snprintf(text + used, room - used, "%c%zu", k ? 'x' : ' ',
                                     p->shape[k]);
        used += (size_t)snprintf(text + used, room - used, "\n");
    }
    return text;
}

/* compare line by line */
dls_status dls_checkpoint_same(const char *what, const char *stored, const char *now)
{
    while (*stored || *now) {
        int a = (int)strcspn(stored, "\n"), b = (int)strcspn(now, "\n");
        if (a != b || memcmp(stored, now, (size_t)a) != 0)
            return DLS_FAIL(DLS_ERR_INPUT, "the checkpoint does not fit this run: %s "
                            "\"%.*s\" there, \"%.*s\" here", what, a, stored, b, now);
        stored += a + (stored[a] != 0);
        now += b + (now[b] != 0);
    }
    return DLS_OK;
}

dls_status dls_checkpoint_check_layout(const dls_checkpoint *c, const dls_params *set)
{
    char *now = dls_checkpoint_layout(set);
    if (!now)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the layout");
    dls_status s = dls_checkpoint_same("parameter", c->layout, now);
    free(now);
    if (s == DLS_OK && c->elements != set->elements)
        return DLS_FAIL(DLS_ERR_INPUT, "the checkpoint has %zu elements, this model %zu",
                        c->elements, set->elements);
    return s;
}

/* check before believing */
/* check the header */
static dls_status check_header(const char *path, const char *data, size_t size, header *h)
{
    if (size < sizeof *h)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: cut short: %zu bytes, a header alone has %zu",
                        path, size, sizeof *h);
    memcpy(h, data, sizeof *h);
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: not a checkpoint", path);
    if (h->version != CHECKPOINT_VERSION)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: format version %u, expected %d", path,
                        h->version, CHECKPOINT_VERSION);
    if (h->hash != dls_hash64(h, offsetof(header, hash)))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: damaged: the header does not match its "
                        "checksum", path);
    return DLS_OK;
}

/* check the sections */
static dls_status check_sections(const char *path, const char *data, size_t size,
                                 const header *h)
{
    size_t at = sizeof *h, whole = sizeof *h;
    for (int i = 0; i < SECTIONS; i++)
        whole += h->section[i].bytes;
    if (size != whole)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: %zu bytes, expected %zu", path,
                        size < whole ? "cut short" : "too long", size, whole);
    for (int i = 0; i < SECTIONS; at += h->section[i].bytes, i++)
        if (dls_hash64(data + at, h->section[i].bytes) != h->section[i].hash)
            return DLS_FAIL(DLS_ERR_INPUT, "%s: damaged: the section \"%s\" does not "
                            "match its checksum", path, section_names[i]);
    return DLS_OK;
}

/* check the consistency */
static dls_status check_consistency(const char *path, const char *data, const header *h)
{
    size_t n = h->section[2].bytes, a = h->section[0].bytes, b = h->section[1].bytes;
    size_t element = dls_dtype_size(dls_dtype_accumulator((dls_dtype)h->dtype));
    int sizes = element > 0 && h->element_bytes == element
        && h->elements <= n && n == h->elements * h->element_bytes
        && h->section[3].bytes == n && h->section[4].bytes == n
        && h->sections == SECTIONS && h->step >= 0;
    int texts = a > 0 && b > 0 && data[sizeof *h + a - 1] == 0
        && data[sizeof *h + a + b - 1] == 0;
    if (!sizes || !texts)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: contradicts itself: %llu elements of %u "
                        "bytes in sections of %zu", path,
                        (unsigned long long)h->elements, h->element_bytes, n);
    return DLS_OK;
}

/* open a checkpoint */
/* point into the file */
static void point_into(dls_checkpoint *c, char *data, const header *h)
{
    const char *at[SECTIONS];
    size_t offset = sizeof *h;
    for (int i = 0; i < SECTIONS; offset += h->section[i++].bytes)
        at[i] = data + offset;
    *c = (dls_checkpoint){
        .step = h->step, .dtype = (dls_dtype)h->dtype, .elements = h->elements,
        .settings = at[0], .layout = at[1], .values = at[2], .m = at[3], .v = at[4],
        .file = data};
}

dls_status dls_checkpoint_load(const char *path, dls_checkpoint *out)
{
    char *data;
    size_t size;
    header h;
    dls_transformer_config model;
    dls_status s;
    DLS_TRY(dls_file_read(path, &data, &size));
    DLS_TRY_GOTO(s, check_header(path, data, size, &h), fail);
    DLS_TRY_GOTO(s, check_sections(path, data, size, &h), fail);
    DLS_TRY_GOTO(s, check_consistency(path, data, &h), fail);
    DLS_TRY_GOTO(s, dls_transformer_config_parse(&model, path, data + sizeof h), fail);
    point_into(out, data, &h);
    out->model = model;
    return DLS_OK;
fail:
    free(data);
    return s;
}

/* look after the directory */
/* append a step */
static dls_status append_step(int64_t **steps, int *n, int64_t step)
{
    int64_t *more = realloc(*steps, ((size_t)*n + 1) * sizeof step);
    if (!more)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to list checkpoints");
    more[(*n)++] = step;
    *steps = more;
    return DLS_OK;
}

void dls_checkpoint_path(char *path, size_t size, const char *directory, int64_t step)
{
    snprintf(path, size, "%s/checkpoint-%08lld.dls", directory, (long long)step);
}

/* list the checkpoints */
static int step_of_name(const char *name, const char *suffix, int64_t *step)
{
    char again[64];
    long long n;
    if (sscanf(name, "checkpoint-%lld.", &n) != 1 || n < 0)
        return 0;
    snprintf(again, sizeof again, "checkpoint-%08lld.%s", n, suffix);
    *step = n;
    return strcmp(again, name) == 0;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

dls_status dls_checkpoint_steps(const char *directory, const char *suffix,
                                int64_t **steps, int *n)
{
    *steps = NULL;
    *n = 0;
    DIR *d = opendir(directory);
    if (!d)
        return errno == ENOENT ? DLS_OK : DLS_FAIL(DLS_ERR_IO, "%s: %s", directory,
                                                   strerror(errno));
    dls_status s = DLS_OK;
    int64_t step;
    for (struct dirent *e; s == DLS_OK && (e = readdir(d)) != NULL;)
        if (step_of_name(e->d_name, suffix, &step))
            s = append_step(steps, n, step);
    closedir(d);
    if (*n > 1)
        qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return s;
}

/* save and rotate */
dls_status dls_checkpoint_save(const char *directory, const dls_checkpoint *c)
{
    char path[PATH_MAX];
    dls_checkpoint_path(path, sizeof path, directory, c->step);
    DLS_TRY(write_checkpoint(path, c));
    return dls_checkpoint_prune(directory, 2);
}

dls_status dls_checkpoint_prune(const char *directory, int keep)
{
    char path[PATH_MAX];
    int64_t *steps;
    int n;
    dls_status s = dls_checkpoint_steps(directory, "dls", &steps, &n);
    for (int i = keep; s == DLS_OK && i < n; i++) {
        dls_checkpoint_path(path, sizeof path, directory, steps[i]);
        if (unlink(path) != 0 && errno != ENOENT)
            s = DLS_FAIL(DLS_ERR_IO, "%s: %s", path, strerror(errno));
    }
    free(steps);
    return s;
}

/* find the newest good one */
dls_status dls_checkpoint_find(const char *directory, dls_checkpoint *out)
{
    char path[PATH_MAX];
    int64_t *steps;
    int n, i;
    *out = (dls_checkpoint){0};
    dls_status s = dls_checkpoint_steps(directory, "dls", &steps, &n);
    for (i = 0; s == DLS_OK && i < n; i++) {
        dls_checkpoint_path(path, sizeof path, directory, steps[i]);
        if (dls_checkpoint_load(path, out) == DLS_OK)
            break;
        dls_log(DLS_LOG_WARN, "%s; %s", dls_status_message(),
                i + 1 < n ? "using the one before" : "there is no other");
    }
    free(steps);
    if (s == DLS_OK && n > 0 && i == n)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: none of its %d checkpoints is good",
                        directory, n);
    return s;
}

void dls_checkpoint_free(dls_checkpoint *c)
{
    free(c->file);
    *c = (dls_checkpoint){0};
}
