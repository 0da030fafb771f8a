/*
 * book.c - book.yaml: title, parts, chapters in order, the files and folders of each.
 *
 * The file is turned into a JSON object as it stands (so that a key which only the weave
 * knows passes through `tangle index` untouched), and the chapters are taken out of it
 * with the place of each value kept for messages.
 */
#include "tangle.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

static struct source *yaml_source; /* of the book being read, for messages */
static yaml_document_t doc;

static struct place at_node(const yaml_node_t *n)
{
    int width = n->type == YAML_SCALAR_NODE
                    ? (int)(n->end_mark.column - n->start_mark.column)
                    : 1;
    return at_span(yaml_source, (int)n->start_mark.line + 1,
                   (int)n->start_mark.column + 1, width > 0 ? width : 1);
}

static slice scalar(const yaml_node_t *n)
{
    return (slice){(const char *)n->data.scalar.value, n->data.scalar.length};
}

static void wrong(const yaml_node_t *n, const char *what, const char *expected)
{
    problem(CLASS_SYNTAX, "book-yaml", at_node(n), "%s must be %s", what, expected);
}

static json_t *node_json(int index)
{
    yaml_node_t *n = yaml_document_get_node(&doc, index);
    if (n->type == YAML_SCALAR_NODE)
        return json_stringn((const char *)n->data.scalar.value, n->data.scalar.length);
    if (n->type == YAML_SEQUENCE_NODE) {
        json_t *all = json_array();
        for (yaml_node_item_t *i = n->data.sequence.items.start;
             i < n->data.sequence.items.top; i++)
            json_array_append_new(all, node_json(*i));
        return all;
    }
    json_t *object = json_object();
    if (n->type == YAML_MAPPING_NODE)
        for (yaml_node_pair_t *p = n->data.mapping.pairs.start;
             p < n->data.mapping.pairs.top; p++) {
            yaml_node_t *key = yaml_document_get_node(&doc, p->key);
            if (key->type == YAML_SCALAR_NODE)
                json_object_set_new(object, keep_text(scalar(key)), node_json(p->value));
            else
                wrong(key, "a key", "a plain word");
        }
    return object;
}

/* The value under a key of a mapping, or NULL. */
static yaml_node_t *under(yaml_node_t *map_node, const char *key)
{
    if (map_node->type != YAML_MAPPING_NODE)
        return NULL;
    for (yaml_node_pair_t *p = map_node->data.mapping.pairs.start;
         p < map_node->data.mapping.pairs.top; p++) {
        yaml_node_t *k = yaml_document_get_node(&doc, p->key);
        if (k->type == YAML_SCALAR_NODE && is(scalar(k), key))
            return yaml_document_get_node(&doc, p->value);
    }
    return NULL;
}

/* Keys that a mapping may have; anything else is a slip of the pen. */
static void known_keys(yaml_node_t *n, const char *const *keys)
{
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top;
         p++) {
        yaml_node_t *k = yaml_document_get_node(&doc, p->key);
        if (k->type != YAML_SCALAR_NODE)
            continue;
        guess g = guess_for(scalar(k));
        bool known = false;
        for (const char *const *key = keys; *key; key++) {
            known |= is(scalar(k), *key);
            guess_try(&g, slice_of(*key));
        }
        if (!known) {
            problem(CLASS_SYNTAX, "book-yaml", at_node(k), "unknown key \"%.*s\"",
                    FMT(scalar(k)));
            note_guess(&g);
        }
    }
}

static bool path_letters(slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/",
                    s.p[i]))
            return false;
    return s.n > 0;
}

static bool chapter_path_ok(slice s)
{
    return path_letters(s) && starts(s, "chapters/") && s.n > 12 &&
           memcmp(s.p + s.n - 3, ".md", 3) == 0 && !memmem(s.p, s.n, "/.", 2) &&
           !memmem(s.p, s.n, "//", 2);
}

static void chapter_file(struct book *b, struct chapter *c, yaml_node_t *n)
{
    if (n->type != YAML_SCALAR_NODE || !chapter_path_ok(scalar(n))) {
        wrong(n, "a chapter's file", "a path like chapters/01-name.md");
        return;
    }
    for (size_t i = 0; i < b->sources.n; i++)
        if (is(scalar(n), b->sources.at[i]->path)) {
            problem(CLASS_SYNTAX, "book-yaml", at_node(n), "%.*s is listed twice",
                    FMT(scalar(n)));
            note("first at book.yaml:%d", b->sources.at[i]->yaml_line);
            return;
        }
    struct source *s = keep(sizeof *s);
    *s = (struct source){
        .path = keep_text(scalar(n)), .chapter = c, .order = (int)b->sources.n};
    s->yaml_line = (int)n->start_mark.line + 1;
    s->yaml_column = (int)n->start_mark.column + 1;
    PUSH(c->files, s);
    PUSH(b->sources, s);
}

/* A folder may be owned by several chapters, which then share it. */
static void chapter_owns(struct chapter *c, yaml_node_t *n)
{
    slice folder = n->type == YAML_SCALAR_NODE ? scalar(n) : (slice){"", 0};
    if (!path_letters(folder) || memchr(folder.p, '/', folder.n) || folder.p[0] == '.') {
        wrong(n, "an entry of owns", "a folder's name, such as comm");
        return;
    }
    for (size_t i = 0; i < c->owns.n; i++)
        if (same(c->owns.at[i], folder)) {
            problem(CLASS_SYNTAX, "book-yaml", at_node(n), "folder \"%.*s\" is listed twice",
                    FMT(folder));
            return;
        }
    PUSH(c->owns, slice_of(keep_text(folder)));
}

/* Calls `each` for every item of a list under a key; the list may be absent when
 * optional. */
static bool list_of(yaml_node_t *n, const char *key, yaml_node_item_t **from,
                    yaml_node_item_t **to, bool optional)
{
    yaml_node_t *list = under(n, key);
    if (!list && optional)
        return false;
    if (!list || list->type != YAML_SEQUENCE_NODE) {
        wrong(list ? list : n, key, "a list");
        return false;
    }
    *from = list->data.sequence.items.start;
    *to = list->data.sequence.items.top;
    return true;
}

static void chapter(struct book *b, yaml_node_t *n)
{
    static const char *const keys[] = {"id", "number", "files", "owns", "title", NULL};
    yaml_node_t *id = under(n, "id"), *number = under(n, "number");
    if (n->type != YAML_MAPPING_NODE || !id || id->type != YAML_SCALAR_NODE ||
        !chunk_name_ok(scalar(id))) {
        wrong(id ? id : n, "a chapter", "a mapping with an id such as data-parallelism");
        return;
    }
    known_keys(n, keys);
    struct chapter *c = keep(sizeof *c);
    c->id = keep_text(scalar(id));
    c->number =
        number && number->type == YAML_SCALAR_NODE ? keep_text(scalar(number)) : "";
    for (size_t i = 0; i < b->chapters.n; i++)
        if (is(scalar(id), b->chapters.at[i]->id))
            problem(CLASS_SYNTAX, "book-yaml", at_node(id),
                    "chapter id \"%s\" is used twice", c->id);
    PUSH(b->chapters, c);
    yaml_node_item_t *i, *end;
    if (list_of(n, "files", &i, &end, false))
        for (; i < end; i++)
            chapter_file(b, c, yaml_document_get_node(&doc, *i));
    if (list_of(n, "owns", &i, &end, true))
        for (; i < end; i++)
            chapter_owns(c, yaml_document_get_node(&doc, *i));
}

static void parts(struct book *b, yaml_node_t *root)
{
    static const char *const keys[] = {"title", "chapters", NULL};
    yaml_node_item_t *part, *parts_end;
    if (!list_of(root, "parts", &part, &parts_end, false))
        return;
    for (; part < parts_end; part++) {
        yaml_node_t *p = yaml_document_get_node(&doc, *part);
        if (p->type != YAML_MAPPING_NODE) {
            wrong(p, "a part", "a mapping with title and chapters");
            continue;
        }
        known_keys(p, keys);
        yaml_node_item_t *c, *end;
        if (list_of(p, "chapters", &c, &end, false))
            for (; c < end; c++)
                chapter(b, yaml_document_get_node(&doc, *c));
    }
}

static void parse_error(const yaml_parser_t *parser)
{
    const char *what = parser->problem ? parser->problem : "cannot be read";
    struct place p = {BOOK_YAML, yaml_source, (int)parser->problem_mark.line + 1,
                      (int)parser->problem_mark.column + 1, 1};
    if (parser->error == YAML_READER_ERROR)
        p = at_file(BOOK_YAML, 0);
    problem(CLASS_SYNTAX, "book-yaml", p, "not YAML: %s", what);
    if (parser->context)
        note("%s", parser->context);
}

void book_yaml(struct book *b, slice yaml)
{
    yaml_source = keep(sizeof *yaml_source);
    *yaml_source = (struct source){.path = BOOK_YAML, .order = -1, .all = yaml};
    yaml_source->line = cut_lines(yaml, &yaml_source->lines);
    b->meta = json_object();
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return;
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml.p, yaml.n);
    if (!yaml_parser_load(&parser, &doc)) {
        parse_error(&parser);
        yaml_parser_delete(&parser);
        return;
    }
    yaml_node_t *root = yaml_document_get_root_node(&doc);
    if (!root || root->type != YAML_MAPPING_NODE) {
        problem(CLASS_SYNTAX, "book-yaml", at_file(BOOK_YAML, 0),
                "must be a mapping with title and parts");
    } else {
        json_decref(b->meta);
        b->meta = node_json(1);
        parts(b, root);
    }
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
}

static void load_source(struct book *b, struct source *s, const struct load_options *o)
{
    int err = o->read ? o->read(o->context, s->path, &s->all) : slurp(s->path, &s->all);
    s->missing = err != 0;
    b->missing += err != 0;
    if (err && !o->allow_missing)
        problem(CLASS_IO, "missing-chapter",
                at_span(yaml_source, s->yaml_line, s->yaml_column, (int)strlen(s->path)),
                "%s: %s", s->path, strerror(err));
    s->line = cut_lines(s->all, &s->lines);
    s->kind = keep((size_t)s->lines + 1);
}

struct book *book_load(const struct load_options *o)
{
    struct book *b = keep(sizeof *b);
    slice yaml;
    int err = o->read ? o->read(o->context, BOOK_YAML, &yaml) : slurp(BOOK_YAML, &yaml);
    b->yaml = err ? (slice){"", 0} : yaml;
    if (err) {
        problem(CLASS_IO, "no-book", at_file(BOOK_YAML, 0), "%s", strerror(err));
        note("run tangle in the folder that holds book.yaml, or give it with -C");
        b->meta = json_object();
        return b;
    }
    book_yaml(b, yaml);
    for (size_t i = 0; i < b->sources.n; i++) {
        load_source(b, b->sources.at[i], o);
        if (!b->sources.at[i]->missing)
            source_read(b, b->sources.at[i]);
    }
    resolve(b);
    return b;
}
