/* code/base/config.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Configuration from YAML: typed values under dotted keys, errors that can be acted on.
 *
 *   train:                      train             section
 *     steps: 100                train.steps       "100"
 *     betas: [0.9, 0.95]        train.betas       list of 2
 *                               train.betas.0     "0.9"  ...
 *
 * Usage: load, override from the command line, get everything, check_unused, free.
 * Errors of all functions: DLS_ERR_INPUT "FILE:LINE: KEY: expected ..., got ...";
 * DLS_ERR_IO when the file cannot be read. Not for several threads at once.
 */
#ifndef DLS_BASE_CONFIG_H
#define DLS_BASE_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dls_config dls_config;

/* declare loading a configuration */
dls_status dls_config_load(const char *path, dls_config **out);

/* The same from memory; `name` stands for the file in messages. */
dls_status dls_config_parse(const char *name, const char *text, size_t size,
                            dls_config **out);

/* "train.steps=10": replaces or adds a value. Everything behind the first '=' is the
 * value. Before any getter: strings handed out earlier for this key are freed. */
dls_status dls_config_override(dls_config *cfg, const char *assignment);

void dls_config_free(dls_config *cfg);  // cfg may be NULL

/* declare the typed getters */
/* A decimal integer in [min, max]; INT64_MIN and INT64_MAX leave a side open. */
dls_status dls_config_int(dls_config *cfg, const char *key, int64_t min, int64_t max,
                          int64_t *value);

/* A finite number in [min, max]; -INFINITY and INFINITY leave a side open. */
dls_status dls_config_real(dls_config *cfg, const char *key, double min, double max,
                           double *value);

/* Any scalar as it is written; lives as long as cfg. */
dls_status dls_config_string(dls_config *cfg, const char *key, const char **value);

/* true, yes, on -> 1; false, no, off -> 0. */
dls_status dls_config_bool(dls_config *cfg, const char *key, int *value);

/* One of "first|second|third" -> its position. */
dls_status dls_config_choice(dls_config *cfg, const char *key, const char *choices,
                             int *value);

/* The length of a list, 0 when absent; its items are KEY.0, KEY.1 ... */
dls_status dls_config_count(dls_config *cfg, const char *key, int *count);

/* declare the optional getters */
/* The same, and `fallback` (which is not range-checked) when the key is absent. */
dls_status dls_config_int_or(dls_config *cfg, const char *key, int64_t min, int64_t max,
                             int64_t fallback, int64_t *value);
dls_status dls_config_real_or(dls_config *cfg, const char *key, double min, double max,
                              double fallback, double *value);
dls_status dls_config_string_or(dls_config *cfg, const char *key, const char *fallback,
                                const char **value);
dls_status dls_config_bool_or(dls_config *cfg, const char *key, int fallback, int *value);
dls_status dls_config_choice_or(dls_config *cfg, const char *key, const char *choices,
                                int fallback, int *value);

/* declare checking a configuration */
/* 1 when the key is in the file (or overridden); counts as asking for it. */
int dls_config_has(dls_config *cfg, const char *key);

/* Fails unless every key of the file was asked for; suggests a key that was. */
dls_status dls_config_check_unused(const dls_config *cfg);

/* Records "FILE:LINE: KEY: " and the message; returns DLS_ERR_INPUT. */
dls_status dls_config_fail(const dls_config *cfg, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif
#endif
