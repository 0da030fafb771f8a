/*
 * emit.c - one value, two notations: JSON for programs, a Lua table for the weave.
 */
#include "tangle.h"

#include <string.h>

/* Any bytes as a JSON string: what is not UTF-8 becomes U+FFFD, NUL too. */
json_t *json_of(slice s)
{
    json_t *v =
        memchr(s.p ? s.p : "", '\0', s.n) ? NULL : json_stringn(s.p ? s.p : "", s.n);
    if (v)
        return v;
    text t = {0};
    for (size_t i = 0; i < s.n;) {
        size_t step = s.p[i] ? utf8_length((const unsigned char *)s.p + i, s.n - i) : 0;
        if (step)
            add(&t, s.p + i, step);
        else
            add(&t, "\xef\xbf\xbd", 3);
        i += step ? step : 1;
    }
    return json_stringn(t.p, t.n);
}

void emit_json(json_t *v, FILE *out)
{
    json_dumpf(v, out, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    fputc('\n', out);
}

static void lua_string(const char *p, size_t n, FILE *out)
{
    fputc('"', out);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", out);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\%03d", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static bool lua_name(const char *key)
{
    static const char *const words[] = {
        "and",      "break",  "do",   "else", "elseif", "end",  "false", "for",
        "function", "goto",   "if",   "in",   "local",  "nil",  "not",   "or",
        "repeat",   "return", "then", "true", "until",  "while"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(key, words[i]))
            return false;
    size_t n =
        strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    return n && key[n] == '\0' && !(key[0] >= '0' && key[0] <= '9');
}

static void lua_value(json_t *v, FILE *out, int depth);

static void lua_newline(FILE *out, int depth)
{
    fputc('\n', out);
    for (int i = 0; i < depth; i++)
        fputs("  ", out);
}

static void lua_table(json_t *v, FILE *out, int depth)
{
    const char *key;
    json_t *item;
    fputc('{', out);
    json_object_foreach(v, key, item)
    {
        lua_newline(out, depth + 1);
        if (lua_name(key)) {
            fprintf(out, "%s = ", key);
        } else {
            fputc('[', out);
            lua_string(key, strlen(key), out);
            fputs("] = ", out);
        }
        lua_value(item, out, depth + 1);
        fputc(',', out);
    }
    if (json_object_size(v))
        lua_newline(out, depth);
    fputc('}', out);
}

static void lua_list(json_t *v, FILE *out, int depth)
{
    fputc('{', out);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (json_is_object(json_array_get(v, i)))
            lua_newline(out, depth + 1);
        lua_value(json_array_get(v, i), out, depth + 1);
        fputs(i + 1 < json_array_size(v) ? ", " : "", out);
    }
    fputc('}', out);
}

static void lua_value(json_t *v, FILE *out, int depth)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: lua_table(v, out, depth); break;
    case JSON_ARRAY: lua_list(v, out, depth); break;
    case JSON_STRING: lua_string(json_string_value(v), json_string_length(v), out); break;
    case JSON_INTEGER: fprintf(out, "%lld", (long long)json_integer_value(v)); break;
    case JSON_REAL: fprintf(out, "%.17g", json_real_value(v)); break;
    case JSON_TRUE: fputs("true", out); break;
    case JSON_FALSE: fputs("false", out); break;
    case JSON_NULL: fputs("nil", out); break;
    }
}

void emit_lua(json_t *v, FILE *out)
{
    fputs("return ", out);
    lua_value(v, out, 0);
    fputc('\n', out);
}
