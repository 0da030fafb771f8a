/* code/model/hf_save.c: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Saving: the list of tensors in the order of their names, divided into shards; weights
 * first, then the index, then config.json.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "model/hf_internal.h"

/* divide into shards */
static size_t tensor_bytes(const dls_params *set, const dls_hf_tensor *t)
{
    return t->rows * t->columns * dls_dtype_size(set->dtype);
}

/* shard[i] = the shard of tensor i; returns how many there are. */
static size_t divide(const dls_params *set, const dls_hf_tensor *list, size_t n,
                     size_t most, size_t *shard)
{
    size_t used = 0, at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = tensor_bytes(set, &list[i]);
        if (most && used && used + bytes > most) {
            at++;
            used = 0;
        }
        used += bytes;
        shard[i] = at;
    }
    return at + 1;
}

typedef struct shard_name { char text[64]; } shard_name;

static shard_name name_shard(size_t i, size_t of)
{
    shard_name name = {"model.safetensors"};
    if (of > 1)
        snprintf(name.text, sizeof name.text, "model-%05zu-of-%05zu.safetensors", i + 1,
                 of);
    return name;
}

/* save a shard */
static dls_status save_block(dls_hf_walk *w, const dls_hf_tensor *t, size_t from,
                             size_t n)
{
    size_t width = t->ndim == 2 ? t->shape[1] : 1;
    DLS_TRY(dls_hf_get(w, t, from, n));
    return dls_safetensors_append(w->target, w->stored,
                                  n * width * dls_dtype_size(w->set->dtype));
}

static dls_status save_shard(dls_hf_walk *w, const char *path, const dls_hf_tensor *list,
                             size_t n)
{
    dls_status s = DLS_OK;
    dls_stored_tensor *entries = calloc(n, sizeof *entries);
    if (!entries)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path);
    for (size_t i = 0; i < n; i++) {
        entries[i] = (dls_stored_tensor){
            .name = list[i].name, .type = dls_stored_type_of(w->set->dtype),
            .ndim = list[i].ndim, .shape = {list[i].shape[0], list[i].shape[1]}};
    }
    s = dls_safetensors_begin(path, entries, n, &w->target);
    free(entries);
    DLS_TRY(s);
    for (size_t i = 0; i < n; i++)
        DLS_TRY_GOTO(s, dls_hf_walk_over(w, &list[i]), fail);
    return dls_safetensors_commit(w->target);
fail:
    dls_safetensors_abort(w->target);
    return s;
}

/* save the index */
static dls_status save_index(const char *directory, const dls_params *set,
                             const dls_hf_tensor *list, size_t n, const size_t *shard,
                             size_t of)
{
    char path[PATH_MAX];
    json_t *map = json_object();
    size_t bytes = 0;
    DLS_TRY(dls_hf_path(path, directory, "model.safetensors.index.json"));
    for (size_t i = 0; i < n; i++) {
        bytes += tensor_bytes(set, &list[i]);
        json_object_set_new(map, list[i].name,
                            json_string(name_shard(shard[i], of).text));
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size",
                              (json_int_t)bytes, "weight_map", map);
    return dls_hf_write_json(path, index);
}

static dls_status settle_form(const char *directory, int sharded)
{
    char path[PATH_MAX];
    DLS_TRY(dls_hf_path(path, directory, sharded ? "model.safetensors"
                                                 : "model.safetensors.index.json"));
    if (unlink(path) != 0 && errno != ENOENT)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot remove: %s", path, strerror(errno));
    return DLS_OK;
}

/* save the weights */
static dls_status save_list(const char *directory, const dls_params *set,
                            const dls_hf_tensor *list, size_t n, size_t *shard,
                            size_t most)
{
    dls_hf_walk w = {.set = set, .step = save_block};
    size_t of = divide(set, list, n, most, shard);
    dls_status s = dls_hf_walk_begin(&w, list, n);
    for (size_t i = 0, m; i < n && s == DLS_OK; i += m) {
        char path[PATH_MAX];
        for (m = 1; i + m < n && shard[i + m] == shard[i]; m++)
            ;
        shard_name name = name_shard(shard[i], of);
        DLS_TRY_GOTO(s, dls_hf_path(path, directory, name.text), done);
        s = save_shard(&w, path, list + i, m);
    }
    if (s == DLS_OK && of > 1)
        s = save_index(directory, set, list, n, shard, of);
done:
    dls_hf_walk_end(&w);
    DLS_TRY(s);
    return settle_form(directory, of > 1);
}

dls_status dls_hf_save(const char *directory, const dls_hf_config *config,
                       const dls_params *set, size_t shard_bytes)
{
    dls_hf_tensor *list;
    size_t n;
    DLS_TRY(dls_hf_tensors(&config->model, set, &list, &n));
    size_t *shard = calloc(n, sizeof *shard);
    dls_status s = shard ? dls_file_mkdirs(directory)
                         : DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", directory);
    if (s == DLS_OK)
        s = save_list(directory, set, list, n, shard, shard_bytes);
    free(shard);
    free(list);
    DLS_TRY(s);
    return dls_hf_config_save(directory, config, set->dtype);
}
