/* code/base/config_internal.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to config.c and config_load.c: the flat list of entries. */
#ifndef DLS_BASE_CONFIG_INTERNAL_H
#define DLS_BASE_CONFIG_INTERNAL_H

#include "base/config.h"

/* define the configuration */
enum entry_kind { SCALAR, SECTION, LIST };

struct entry {
    char *key;
    char *text;  // a scalar's text, else NULL
    enum entry_kind kind;
    int plain;   // a scalar without quotes: empty, ~ and null mean nothing
    int items;   // of a list
    int line;    // 0: from an override
};

struct dls_config {
    char *name;
    struct entry *entries;
    int count, room;
    char **asked;  // keys that a getter was called with
    int asked_count, asked_room;
};

/* The entry of `key`, or NULL. */
struct entry *dls_config_find(const dls_config *cfg, const char *key);

/* Where an entry came from, for messages: "tour.yaml:12" or "override". */
void dls_config_place(const dls_config *cfg, const struct entry *e, char *buf, size_t n);

#endif
