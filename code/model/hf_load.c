/* code/model/hf_load.c: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Loading: the shards are opened, every tensor is compared with the model, and only when
 * all fits do the numbers move.
 */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "model/hf_internal.h"

/* open a shard */
typedef struct shards {
    const char *directory;
    dls_safetensors *files;     /* [n] */
    char **used;                /* [n][tensors of the file] 1: a parameter has taken it */
    size_t n;
    json_t *index;              /* NULL: a single file */
} shards;

static dls_status open_shard(shards *s, const char *name)
{
    char path[PATH_MAX];
    if (strchr(name, '/') || name[0] == '.' || !*name)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: the index names \"%.200s\": expected a file "
                        "of this directory", s->directory, name);
    DLS_TRY(dls_hf_path(path, s->directory, name));
    DLS_TRY(dls_safetensors_open(path, &s->files[s->n]));
    s->used[s->n] = calloc(s->files[s->n].n + 1, 1);
    s->n++;
    if (!s->used[s->n - 1])
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory for its table", path);
    return DLS_OK;
}

static const char *base_name(const dls_safetensors *f)
{
    return strrchr(f->path, '/') + 1;
}

/* open the shards */
static dls_status room_for(shards *s, size_t files)
{
    s->files = calloc(files + 1, sizeof *s->files);
    s->used = calloc(files + 1, sizeof *s->used);
    if (!s->files || !s->used)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory for %zu files", s->directory,
                        files);
    return DLS_OK;
}

static dls_status open_indexed(shards *s, const char *path)
{
    const char *name;
    json_t *file, *map = json_object_get(s->index, "weight_map");
    if (!json_is_object(map))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: weight_map: expected file names by tensor",
                        path);
    DLS_TRY(room_for(s, json_object_size(map)));
    json_object_foreach(map, name, file) {
        size_t i = 0;
        if (!json_is_string(file))
            return DLS_FAIL(DLS_ERR_INPUT, "%s: weight_map: %.200s: expected a file name",
                            path, name);
        while (i < s->n && strcmp(base_name(&s->files[i]), json_string_value(file)) != 0)
            i++;
        if (i == s->n)
            DLS_TRY(open_shard(s, json_string_value(file)));
    }
    return DLS_OK;
}

/* open one file or many */
static dls_status open_shards(shards *s)
{
    char path[PATH_MAX];
    DLS_TRY(dls_hf_path(path, s->directory, "model.safetensors"));
    if (access(path, F_OK) == 0) {
        DLS_TRY(room_for(s, 1));
        return open_shard(s, "model.safetensors");
    }
    DLS_TRY(dls_hf_path(path, s->directory, "model.safetensors.index.json"));
    if (access(path, F_OK) != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected model.safetensors or "
                        "model.safetensors.index.json", s->directory);
    DLS_TRY(dls_hf_json(path, &s->index));
    return open_indexed(s, path);
}

/* collect complaints */
typedef struct complaints { size_t n, used; char text[1600]; } complaints;

__attribute__((format(printf, 2, 3)))
static void complain(complaints *c, const char *format, ...)
{
    char one[512];
    va_list args;
    va_start(args, format);
    vsnprintf(one, sizeof one, format, args);
    va_end(args);
    dls_log(DLS_LOG_ERROR, "%s", one);
    size_t left = sizeof c->text - c->used;
    if (strlen(one) + 3 <= left)
        c->used += (size_t)snprintf(c->text + c->used, left, "%s%s", c->n ? "; " : "",
                                    one);
    c->n++;
}

/* find a stored tensor */
static const dls_stored_tensor *take(shards *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++) {
        const dls_stored_tensor *t = dls_safetensors_find(&s->files[i], name);
        if (t) {
            s->used[i][t - s->files[i].tensors] = 1;
            return t;
        }
    }
    return NULL;
}

static const dls_stored_tensor *take_either(shards *s, const char *name)
{
    const char prefix[] = "transformer.";
    const dls_stored_tensor *t = take(s, name);
    if (!t && strncmp(name, prefix, sizeof prefix - 1) == 0)
        t = take(s, name + sizeof prefix - 1);
    return t;
}

/* compare with the model */
static const char *shape_text(char text[64], int ndim, const size_t *shape)
{
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < ndim && used < 64; i++)
        used += (size_t)snprintf(text + used, 64 - used, "%s%zu", i ? "x" : "", shape[i]);
    return ndim ? text : "a single number";
}

static void compare(const dls_hf_tensor *want, const dls_stored_tensor *got,
                    complaints *c)
{
    char a[64], b[64];
    shape_text(a, want->ndim, want->shape);
    if (!got) {
        complain(c, "missing: %s (%s)", want->name, a);
        return;
    }
    if (got->ndim != want->ndim ||
        memcmp(got->shape, want->shape, (size_t)got->ndim * sizeof *got->shape) != 0)
        complain(c, "shape: %s is %s, expected %s", want->name,
                 shape_text(b, got->ndim, got->shape), a);
    if (!dls_stored_converts(got->type))
        complain(c, "type: %s is %s, expected F64, F32, F16 or BF16", want->name,
                 dls_stored_type_name(got->type));
}

/* find the unexpected */
static int ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

static int is_buffer(const char *name, const dls_transformer_config *c)
{
    return ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias")
        || ends_with(name, ".rotary_emb.inv_freq")
        || (c->tied_head && strcmp(name, "lm_head.weight") == 0);
}

static void find_unexpected(const shards *s, const dls_transformer_config *config,
                            complaints *c)
{
    json_t *map = json_object_get(s->index, "weight_map");
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < s->files[i].n; k++) {
            const char *name = s->files[i].tensors[k].name;
            const char *mapped = json_string_value(json_object_get(map, name));
            if (map && (!mapped || strcmp(mapped, base_name(&s->files[i])) != 0))
                complain(c, "index: %s is in %s, the index says %s", name,
                         base_name(&s->files[i]), mapped ? mapped : "nothing");
            else if (!s->used[i][k] && !is_buffer(name, config))
                complain(c, "unexpected: %s", name);
        }
}

/* load a block */
static dls_status load_block(dls_hf_walk *w, const dls_hf_tensor *t, size_t from,
                             size_t n)
{
    size_t width = t->ndim == 2 ? t->shape[1] : 1, at = from * width;
    const char *data = w->source->data;
    dls_stored_read(w->source->type,
                    data + at * dls_stored_type_bits(w->source->type) / 8, n * width,
                    w->set->dtype, w->stored);
    return dls_hf_put(w, t, from, n);
}

/* compare the tied head */
static void compare_tied_head(shards *s, const dls_hf_tensor *list, size_t n,
                              const dls_stored_tensor *const *sources, complaints *c)
{
    const dls_stored_tensor *head = take(s, "lm_head.weight");
    for (size_t i = 0; head && i < n; i++) {
        const dls_stored_tensor *table = sources[i];
        if (!table || (!ends_with(list[i].name, "wte.weight") &&
                       !ends_with(list[i].name, "embed_tokens.weight")))
            continue;
        if (head->bytes != table->bytes || head->type != table->type ||
            memcmp(head->data, table->data, head->bytes) != 0)
            complain(c, "tied: lm_head.weight differs from %s", table->name);
    }
}

static dls_status match(shards *s, const dls_transformer_config *config,
                        const dls_hf_tensor *list, size_t n,
                        const dls_stored_tensor **sources)
{
    complaints c = {0};
    for (size_t i = 0; i < n; i++) {
        sources[i] = take_either(s, list[i].name);
        compare(&list[i], sources[i], &c);
    }
    if (config->tied_head)
        compare_tied_head(s, list, n, sources, &c);
    find_unexpected(s, config, &c);
    if (c.n == 0)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %zu mismatches: %s%s", s->directory, c.n, c.text,
                    strlen(c.text) + 520 > sizeof c.text ? " ..." : "");
}

/* load the weights */
static dls_status load_from(shards *s, const dls_transformer_config *config,
                            const dls_params *set, const dls_hf_tensor *list, size_t n)
{
    dls_hf_walk w = {.set = set, .step = load_block};
    const dls_stored_tensor **sources = calloc(n, sizeof *sources);
    dls_status status = DLS_OK;
    if (!sources)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", s->directory);
    DLS_TRY_GOTO(status, open_shards(s), done);
    DLS_TRY_GOTO(status, match(s, config, list, n, sources), done);
    DLS_TRY_GOTO(status, dls_hf_walk_begin(&w, list, n), done);
    for (size_t i = 0; i < n && status == DLS_OK; i++) {
        w.source = sources[i];
        status = dls_hf_walk_over(&w, &list[i]);
    }
done:
    dls_hf_walk_end(&w);
    free(sources);
    return status;
}

/* open match and load */
static void close_shards(shards *s)
{
    for (size_t i = 0; i < s->n; i++) {
        dls_safetensors_close(&s->files[i]);
        free(s->used[i]);
    }
    free(s->files);
    free(s->used);
    json_decref(s->index);
}

dls_status dls_hf_load(const char *directory, const dls_transformer_config *config,
                       const dls_params *set)
{
    shards s = {.directory = directory};
    dls_hf_tensor *list;
    size_t n;
    DLS_TRY(dls_hf_tensors(config, set, &list, &n));
    dls_status status = load_from(&s, config, set, list, n);
    close_shards(&s);
    free(list);
    return status;
}
