/* code/base/config_load.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* From YAML to the flat list, by libyaml's document interface: it keeps each node's line,
 * resolves aliases, and reports syntax errors with their place. Its event interface was
 * considered; it saves memory we do not need saved, and leaves the aliases to us.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/config_internal.h"
#include "base/file.h"

enum { DEPTH_LIMIT = 16, ENTRY_LIMIT = 10000, KEY_BYTES = 256 };

/* add an entry */
static dls_status make_room(dls_config *cfg)
{
    if (cfg->count < cfg->room)
        return DLS_OK;
    int room = cfg->room ? 2 * cfg->room : 64;
    struct entry *larger = realloc(cfg->entries, (size_t)room * sizeof *larger);
    if (!larger)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", cfg->name);
    cfg->entries = larger;
    cfg->room = room;
    return DLS_OK;
}

static dls_status add_entry(dls_config *cfg, struct entry e)
{
    struct entry *before = dls_config_find(cfg, e.key);
    if (before)
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: %s: given twice, first in line %d",
                        cfg->name, e.line, e.key, before->line);
    if (cfg->count == ENTRY_LIMIT)
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: more than %d values", cfg->name, e.line,
                        ENTRY_LIMIT);
    DLS_TRY(make_room(cfg));
    e.key = strdup(e.key);
    e.text = e.text ? strdup(e.text) : NULL;
    if (!e.key || (e.kind == SCALAR && !e.text)) {
        free(e.key);
        free(e.text);
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", cfg->name);
    }
    cfg->entries[cfg->count++] = e;
    return DLS_OK;
}

/* flatten a node */
static dls_status flatten(dls_config *cfg, yaml_document_t *doc, int id, const char *key,
                          int depth);

static dls_status flatten_child(dls_config *cfg, yaml_document_t *doc, int id,
                                const char *parent, const char *name, int depth)
{
    char key[KEY_BYTES];
    int line = (int)yaml_document_get_node(doc, id)->start_mark.line + 1;
    int n = snprintf(key, sizeof key, "%s%s%s", parent, *parent ? "." : "", name);
    if (n >= KEY_BYTES || depth >= DEPTH_LIMIT)
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: %.40s...: nested too deeply", cfg->name,
                        line, key);
    return flatten(cfg, doc, id, key, depth + 1);
}

static dls_status flatten_section(dls_config *cfg, yaml_document_t *doc,
                                  yaml_node_t *node, const char *key, int depth)
{
    yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        yaml_node_t *name = yaml_document_get_node(doc, pair->key);
        const char *text = (const char *)name->data.scalar.value;
        if (name->type != YAML_SCALAR_NODE || !*text)
            return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: expected a name before the colon",
                            cfg->name, (int)name->start_mark.line + 1);
        DLS_TRY(flatten_child(cfg, doc, pair->value, key, text, depth));
    }
    return DLS_OK;
}

static dls_status flatten_list(dls_config *cfg, yaml_document_t *doc, yaml_node_t *node,
                               const char *key, int depth)
{
    yaml_node_item_t *item = node->data.sequence.items.start;
    for (int i = 0; item < node->data.sequence.items.top; item++, i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        DLS_TRY(flatten_child(cfg, doc, *item, key, name, depth));
    }
    return DLS_OK;
}

static dls_status flatten(dls_config *cfg, yaml_document_t *doc, int id, const char *key,
                          int depth)
{
    yaml_node_t *node = yaml_document_get_node(doc, id);
    struct entry e = {.key = (char *)key, .line = (int)node->start_mark.line + 1};
    if (node->type == YAML_SCALAR_NODE) {
        e.kind = SCALAR;
        e.text = (char *)node->data.scalar.value;
        e.plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        return add_entry(cfg, e);
    }
    if (node->type == YAML_SEQUENCE_NODE) {
        e.kind = LIST;
        e.items = (int)(node->data.sequence.items.top - node->data.sequence.items.start);
        DLS_TRY(add_entry(cfg, e));
        return flatten_list(cfg, doc, node, key, depth);
    }
    e.kind = SECTION;
    if (*key)
        DLS_TRY(add_entry(cfg, e));
    return flatten_section(cfg, doc, node, key, depth);
}

/* report a syntax error */
static dls_status syntax_error(const char *name, const yaml_parser_t *parser,
                               const char *text, size_t size)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", name);
    size_t line = parser->problem_mark.line + 1;
    if (parser->error == YAML_READER_ERROR) {
        line = 1;
        for (size_t i = 0; i < size && i < parser->problem_offset; i++)
            line += text[i] == '\n';
    }
    return DLS_FAIL(DLS_ERR_INPUT, "%s:%zu: not valid YAML: %s", name, line,
                    parser->problem ? parser->problem : "unknown problem");
}

/* parse the document */
static dls_status take_document(dls_config *cfg, yaml_document_t *doc)
{
    yaml_node_t *root = yaml_document_get_root_node(doc);
    if (!root)
        return DLS_OK;  // an empty file: every key is absent
    if (root->type != YAML_MAPPING_NODE)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "%s:%d: expected lines of the form \"name: value\"", cfg->name,
                        (int)root->start_mark.line + 1);
    return flatten(cfg, doc, 1, "", 0);
}

static dls_status take_end(dls_config *cfg, yaml_document_t *doc)
{
    yaml_node_t *root = yaml_document_get_root_node(doc);
    if (root)
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: expected one YAML document, got a second",
                        cfg->name, (int)root->start_mark.line + 1);
    return DLS_OK;
}

static dls_status parse(dls_config *cfg, const char *text, size_t size)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    if (!yaml_parser_initialize(&parser))
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", cfg->name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    dls_status status = DLS_OK;
    for (int i = 0; i < 2 && status == DLS_OK; i++) {
        if (!yaml_parser_load(&parser, &doc)) {
            status = syntax_error(cfg->name, &parser, text, size);
            break;
        }
        status = i == 0 ? take_document(cfg, &doc) : take_end(cfg, &doc);
        yaml_document_delete(&doc);
    }
    yaml_parser_delete(&parser);
    return status;
}

/* load a configuration */
dls_status dls_config_parse(const char *name, const char *text, size_t size,
                            dls_config **out)
{
    dls_config *cfg = calloc(1, sizeof *cfg);
    if (!cfg || !(cfg->name = strdup(name))) {
        free(cfg);
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", name);
    }
    dls_status status = parse(cfg, text, size);
    if (status != DLS_OK) {
        dls_config_free(cfg);
        return status;
    }
    *out = cfg;
    return DLS_OK;
}

dls_status dls_config_load(const char *path, dls_config **out)
{
    char *text;
    size_t size;
    DLS_TRY(dls_file_read(path, &text, &size));
    dls_status status = dls_config_parse(path, text, size, out);
    free(text);
    return status;
}

/* override a value */
dls_status dls_config_override(dls_config *cfg, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    size_t n = equals ? (size_t)(equals - assignment) : 0;
    if (n == 0 || n >= KEY_BYTES)
        return DLS_FAIL(DLS_ERR_INPUT, "override: expected KEY=VALUE, got \"%.60s\"",
                        assignment);
    char key[KEY_BYTES];
    memcpy(key, assignment, n);
    key[n] = 0;
    struct entry *e = dls_config_find(cfg, key);
    if (!e)
        return add_entry(cfg, (struct entry){.key = key, .text = (char *)equals + 1,
                                             .kind = SCALAR, .plain = 1});
    if (e->kind != SCALAR)
        return DLS_FAIL(DLS_ERR_INPUT, "override: %s: is a %s; override its parts, "
                        "as in %s.%s=...", key, e->kind == LIST ? "list" : "section", key,
                        e->kind == LIST ? "0" : "NAME");
    char *text = strdup(equals + 1);
    if (!text)
        return DLS_FAIL(DLS_ERR_MEMORY, "override: no memory");
    free(e->text);
    *e = (struct entry){.key = e->key, .text = text, .kind = SCALAR, .plain = 1};
    return DLS_OK;
}
