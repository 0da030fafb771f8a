/*
 * attr.c - the attributes of a fence: {.class #id key=value key="a value"}, Pandoc's
 * notation.
 */
#include "tangle.h"

#include <string.h>

struct cursor {
    struct source *src;
    int line;
    const char *start, *p, *end; /* start of the line, to count columns */
};

static int column_at(const struct cursor *c, const char *p)
{
    return characters(c->start, (size_t)(p - c->start)) + 1;
}

static bool fail(const struct cursor *c, const char *p, const char *what)
{
    problem(CLASS_SYNTAX, "bad-attributes", at_span(c->src, c->line, column_at(c, p), 1),
            "%s", what);
    return false;
}

static bool word_end(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '=' || ch == '"' || ch == '\'' || ch == '{' ||
           ch == '}';
}

static slice take_word(struct cursor *c)
{
    const char *from = c->p;
    while (c->p < c->end && !word_end(*c->p))
        c->p++;
    return (slice){from, (size_t)(c->p - from)};
}

/* A value: a word, or a quoted text in which a backslash takes the next character as it
 * is. */
static bool take_value(struct cursor *c, slice *value)
{
    if (c->p == c->end || (*c->p != '"' && *c->p != '\'')) {
        const char *from = c->p;
        while (c->p < c->end && *c->p != ' ' && *c->p != '\t' && *c->p != '"')
            c->p++;
        *value = (slice){from, (size_t)(c->p - from)};
        return true;
    }
    const char *open = c->p;
    char quote = *c->p++;
    char *made = keep((size_t)(c->end - c->p) + 1);
    size_t n = 0;
    while (c->p < c->end && *c->p != quote) {
        if (*c->p == '\\' && c->p + 1 < c->end)
            c->p++;
        made[n++] = *c->p++;
    }
    if (c->p == c->end)
        return fail(c, open, "this quotation mark is never closed");
    c->p++;
    *value = (slice){made, n};
    return true;
}

static bool take_attribute(struct cursor *c, attributes *out)
{
    const char *from = c->p;
    struct attribute a = {.kind = '=', .column = column_at(c, from)};
    if (*from == '.' || *from == '#') {
        a.kind = *from;
        c->p++;
        a.name = take_word(c);
        if (!a.name.n)
            return fail(c, from,
                        *from == '.' ? "a class needs a name" : "an id needs a name");
        PUSH(*out, a);
        return true;
    }
    a.name = take_word(c);
    if (!a.name.n || c->p == c->end || *c->p != '=')
        return fail(c, from, "expected .class, #id or key=value");
    c->p++;
    bool quoted = c->p < c->end && (*c->p == '"' || *c->p == '\'');
    a.value_column = column_at(c, c->p) + quoted;
    if (!take_value(c, &a.value))
        return false;
    PUSH(*out, a);
    return true;
}

/* `brace` is what stands between the braces of line `line`. */
bool attributes_parse(struct source *s, int line, slice brace, attributes *out)
{
    struct cursor c = {s, line, s->line[line - 1].p, brace.p, brace.p + brace.n};
    for (;;) {
        while (c.p < c.end && (*c.p == ' ' || *c.p == '\t'))
            c.p++;
        if (c.p == c.end)
            return true;
        if (!take_attribute(&c, out))
            return false;
    }
}

slice attribute_of(const struct block *b, const char *key)
{
    for (size_t i = 0; i < b->attrs.n; i++)
        if (b->attrs.at[i].kind == '=' && is(b->attrs.at[i].name, key))
            return b->attrs.at[i].value;
    return (slice){NULL, 0};
}

bool has_class(const struct block *b, const char *name)
{
    for (size_t i = 0; i < b->attrs.n; i++)
        if (b->attrs.at[i].kind == '.' && is(b->attrs.at[i].name, name))
            return true;
    return false;
}
