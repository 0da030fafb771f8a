/* code/model/hf.h: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Models in the Hugging Face layout: a directory with config.json and safetensors, of
 * model_type gpt2 and llama. Loading maps the files and converts block by block;
 * saving writes aside and renames.
 */
#ifndef DLS_MODEL_HF_H
#define DLS_MODEL_HF_H

#include "layers/param.h"
#include "model/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the hf configuration */
enum { DLS_HF_STOPS = 8 };

/* What config.json says: the model, and the tokens that begin and end a text. */
typedef struct dls_hf_config {
    dls_transformer_config model;
    int bos;                    /* -1: none */
    int eos[DLS_HF_STOPS], n_eos;
} dls_hf_config;

/* declare the hf calls */
/* Reads and checks DIRECTORY/config.json. Errors: DLS_ERR_INPUT with path, field, what
 * was expected and what was found; a field that changes the arithmetic in a way this
 * library does not know is one. DLS_ERR_IO. */
dls_status dls_hf_config_load(const char *directory, dls_hf_config *out);
dls_status dls_hf_config_save(const char *directory, const dls_hf_config *c,
                              dls_dtype dtype);

/* Fills the values of a model's parameters, converted to their type. DLS_ERR_INPUT comes
 * with every missing, unexpected, misshapen or mistyped tensor (each is also logged); the
 * values are then untouched. */
dls_status dls_hf_load(const char *directory, const dls_transformer_config *config,
                       const dls_params *set);

/* Writes weights, in shards of at most shard_bytes (0: one file), and config.json. The
 * directory is made if need be. Wait for the device before (dls_ctx_sync). */
dls_status dls_hf_save(const char *directory, const dls_hf_config *config,
                       const dls_params *set, size_t shard_bytes);

#ifdef __cplusplus
}
#endif
#endif
