/*
 * scan.c - the identifiers of the book: a light reading of the C and CUDA blocks.
 *
 * No parser: our habits make one unnecessary. A definition starts in column 0; a
 * function's name is the word before the first parenthesis; a type's name is the word
 * before the semicolon that ends its typedef. Public are names that begin with dls_ (DLS_
 * for macros), whatever else has external linkage, and every kernel; uses are all other
 * places in code where such a name stands.
 */
#include "tangle.h"

#include <ctype.h>
#include <string.h>

enum what { WHAT_NONE, WHAT_FUNCTION, WHAT_TYPE, WHAT_MACRO, WHAT_KERNEL };
static const char *const what_names[] = {"none", "function", "type", "macro", "kernel"};

struct use {
    struct block *block;
    int row;
};

struct identifier {
    slice name;
    enum what what;
    struct block *block;
    int row;
    bool body; /* a definition, not only a declaration */
    VEC(struct use) uses;
};

struct identifiers {
    VEC(struct identifier *) all;
    map by_name;
};

/* A block's text with comments, strings and characters blanked, so that words are code.
 */
static char *blank(slice whole)
{
    char *t = keep_text(whole);
    char in = 0; /* '*' block comment, '/' line comment, '"' or '\'' literal */
    for (size_t i = 0; i < whole.n; i++) {
        char c = t[i], next = i + 1 < whole.n ? whole.p[i + 1] : 0;
        if (in == 0) {
            if (c == '/' && (next == '*' || next == '/'))
                in = next;
            else if (c == '"' || c == '\'')
                in = c;
            else
                continue;
            t[i] = ' ';
            if (in == '*')
                t[++i] = ' ';
            continue;
        }
        if ((in == '*' && c == '*' && next == '/') ||
            ((in == '"' || in == '\'') && c == '\\')) {
            t[i] = ' ';
            if (next && next != '\n')
                t[++i] = ' ';
            in = in == '*' ? 0 : in;
        } else if (c == '\n') {
            in = in == '*' ? in : 0; /* no literal crosses a line */
        } else {
            in = c == in && in != '/' && in != '*' ? 0 : in;
            t[i] = ' ';
        }
    }
    return t;
}

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static slice word_at(const char *p)
{
    size_t n = 0;
    while (word_char(p[n]))
        n++;
    return (slice){p, n};
}

static bool contains_word(slice s, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = s.p; (p = memmem(p, s.n - (size_t)(p - s.p), word, n)); p += n) {
        bool left = p == s.p || !word_char(p[-1]);
        if (left && (p + n == s.p + s.n || !word_char(p[n])))
            return true;
    }
    return false;
}

/* Is a name unlike a word? The weave links names in backticks; `run` or `model` in a sentence
 * must not lead to some file's internal type. */
static bool telling(slice name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] == '_' || isupper((unsigned char)name.p[i]))
            return true;
    return false;
}

static void define(struct identifiers *ids, slice name, enum what what, struct block *b,
                   int row, bool body)
{
    struct identifier *id = map_get(&ids->by_name, name);
    if (!telling(name) || (id && (id->body || !body)))
        return;
    if (!id) {
        id = keep(sizeof *id);
        id->name = slice_of(keep_text(name));
        PUSH(ids->all, id);
        map_put(&ids->by_name, id->name, id);
    }
    id->what = what;
    id->block = b;
    id->row = row;
    id->body = body;
}

/* The word that ends just before p, skipping spaces. */
static slice word_before(const char *start, const char *p)
{
    while (p > start && isspace((unsigned char)p[-1]))
        p--;
    const char *end = p;
    while (p > start && word_char(p[-1]))
        p--;
    return (slice){p, (size_t)(end - p)};
}

static bool upper(slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (islower((unsigned char)s.p[i]))
            return false;
    return true;
}

static int rows_between(const char *from, const char *to)
{
    int rows = 0;
    for (; from < to; from++)
        rows += *from == '\n';
    return rows;
}

static const char *past_parentheses(const char *p)
{
    int depth = 0;
    for (; *p; p++) {
        depth += (*p == '(') - (*p == ')');
        if (depth == 0)
            return p + 1;
    }
    return p;
}

/* A function at `p`, column 0: words up to a parenthesis, then `{` or `;`. */
static void scan_function(struct identifiers *ids, struct block *b, const char *p,
                          int row)
{
    const char *open = p + strcspn(p, "(;={}#");
    if (*open != '(')
        return;
    slice head = {p, (size_t)(open - p)};
    if (memmem(head.p, head.n, "\n\n", 2))
        return;
    slice name = word_before(p, open);
    if (is(name, "__launch_bounds__") || is(name, "__attribute__")) {
        const char *after = past_parentheses(open);
        open = after + strcspn(after, "(;={}#");
        name = word_before(after, open);
        if (*open != '(')
            return;
    }
    bool kernel = contains_word(head, "__global__");
    bool internal = contains_word(head, "static") && !starts(name, "dls_");
    bool one_word = name.p == p; /* Test(suite, name) {: a macro, not a function */
    if (!name.n || isdigit((unsigned char)name.p[0]) || upper(name) || one_word ||
        (internal && !kernel) || is(name, "main") || contains_word(head, "typedef"))
        return;
    const char *end = past_parentheses(open);
    end += strcspn(end, ";{");
    define(ids, name, kernel ? WHAT_KERNEL : WHAT_FUNCTION, b,
           row + rows_between(p, name.p), *end == '{');
}

/* typedef ... name; or typedef ... (*name)(...); */
static void scan_typedef(struct identifiers *ids, struct block *b, const char *p, int row)
{
    int depth = 0;
    const char *end = p;
    for (; *end && !(*end == ';' && depth == 0); end++)
        depth += (*end == '{') - (*end == '}');
    slice whole = {p, (size_t)(end - p)}, name = {NULL, 0};
    const char *pointer = memmem(whole.p, whole.n, "(*", 2);
    if (*end != ';') { /* the fields are in other chunks: typedef struct name { */
        const char *tag = p + strcspn(p, "{");
        name = *tag ? word_before(p, tag) : name;
    } else if (pointer && !memchr(whole.p, '{', whole.n)) {
        name = word_at(pointer + 2);
    } else {
        const char *stop = end;
        while (stop > p && isspace((unsigned char)stop[-1]))
            stop--;
        while (stop > p && stop[-1] == ']') /* typedef float dls_vec[8]; */
            while (stop > p && *--stop != '[')
                ;
        name = word_before(p, stop);
    }
    if (name.n && name.p != p && !is(name, "struct") && !is(name, "enum") &&
        !is(name, "union"))
        define(ids, name, WHAT_TYPE, b, row,
               memchr(whole.p, '{', whole.n) || pointer);
}

static void scan_line(struct identifiers *ids, struct block *b, const char *p, int row)
{
    if (!strncmp(p, "#define ", 8)) {
        slice name = word_at(p + 8);
        if (starts(name, "DLS_"))
            define(ids, name, WHAT_MACRO, b, row, true);
    } else if (!strncmp(p, "typedef ", 8)) {
        scan_typedef(ids, b, p, row);
    } else if (!strncmp(p, "struct dls_", 11) || !strncmp(p, "enum dls_", 9)) {
        slice name = word_at(strchr(p, ' ') + 1);
        const char *after = name.p + name.n + strspn(name.p + name.n, " \n");
        if (*after == '{' || *after == ';')
            define(ids, name, WHAT_TYPE, b, row, *after == '{');
        else
            scan_function(ids, b, p, row);
    } else if (isalpha((unsigned char)*p) || *p == '_') {
        scan_function(ids, b, p, row);
    }
}

struct scanned {
    struct block *block;
    char *code; /* blanked and terminated */
};

static void scan_definitions(struct identifiers *ids, struct scanned *s)
{
    int row = 0;
    for (const char *p = s->code; *p; row++) {
        scan_line(ids, s->block, p, row);
        p += strcspn(p, "\n");
        p += *p == '\n';
    }
}

static void scan_uses(struct identifiers *ids, struct scanned *s)
{
    int row = 0;
    for (const char *p = s->code; *p;) {
        if (!word_char(*p)) {
            row += *p++ == '\n';
            continue;
        }
        slice w = word_at(p);
        p += w.n;
        struct identifier *id = map_get(&ids->by_name, w);
        if (!id || (id->block == s->block && id->row == row))
            continue;
        struct use *last = id->uses.n ? &id->uses.at[id->uses.n - 1] : NULL;
        if (!last || last->block != s->block || last->row != row)
            PUSH(id->uses, (struct use){s->block, row});
    }
}

static json_t *place_json(struct block *b, int row)
{
    return json_pack("{s:s, s:i, s:s}", "file", b->src->path, "line", b->first + row,
                     "anchor", anchor_of(b));
}

static bool code_block(const struct block *b)
{
    return b->chunk && (b->lang == LANG_C || b->lang == LANG_CUDA || b->lang == LANG_CPP);
}

json_t *identifiers_json(struct book *b)
{
    struct identifiers ids = {0};
    VEC(struct scanned) blocks = {0};
    for (size_t i = 0; i < b->blocks.n; i++) {
        struct block *block = b->blocks.at[i];
        if (!code_block(block) || !block->lines)
            continue;
        slice first = block_line(block, 0), last = block_line(block, block->lines - 1);
        slice whole = {first.p, (size_t)(last.p + last.n - first.p)};
        PUSH(blocks, (struct scanned){block, blank(whole)});
        scan_definitions(&ids, &blocks.at[blocks.n - 1]);
    }
    for (size_t i = 0; i < blocks.n; i++)
        scan_uses(&ids, &blocks.at[i]);
    json_t *all = json_object();
    for (size_t i = 0; i < ids.all.n; i++) {
        struct identifier *id = ids.all.at[i];
        json_t *uses = json_array();
        for (size_t k = 0; k < id->uses.n; k++)
            json_array_append_new(uses,
                                  place_json(id->uses.at[k].block, id->uses.at[k].row));
        json_object_set_new(all, id->name.p,
                            json_pack("{s:s, s:o, s:o}", "kind", what_names[id->what],
                                      "defined", place_json(id->block, id->row), "uses",
                                      uses));
    }
    return all;
}
