/* code/base/config.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Typed questions to a configuration, and the complaint about what nobody asked for. */
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_internal.h"
#include "base/suggest.h"

enum { WORDS = 256 };

/* find an entry */
struct entry *dls_config_find(const dls_config *cfg, const char *key)
{
    for (int i = 0; i < cfg->count; i++)
        if (strcmp(cfg->entries[i].key, key) == 0)
            return &cfg->entries[i];
    return NULL;
}

void dls_config_place(const dls_config *cfg, const struct entry *e, char *buf, size_t n)
{
    if (!e)
        snprintf(buf, n, "%s", cfg->name);
    else if (e->line == 0)
        snprintf(buf, n, "override");
    else
        snprintf(buf, n, "%s:%d", cfg->name, e->line);
}

/* remember a question */
static struct entry *ask(dls_config *cfg, const char *key)
{
    for (int i = 0; i < cfg->asked_count; i++)
        if (strcmp(cfg->asked[i], key) == 0)
            return dls_config_find(cfg, key);
    if (cfg->asked_count == cfg->asked_room) {
        int room = cfg->asked_room ? 2 * cfg->asked_room : 64;
        char **larger = realloc(cfg->asked, (size_t)room * sizeof *larger);
        if (!larger)
            return dls_config_find(cfg, key);
        cfg->asked = larger;
        cfg->asked_room = room;
    }
    char *copy = strdup(key);
    if (copy)
        cfg->asked[cfg->asked_count++] = copy;
    return dls_config_find(cfg, key);
}

int dls_config_has(dls_config *cfg, const char *key)
{
    return ask(cfg, key) != NULL;
}

/* refuse a value */
static dls_status refuse(const dls_config *cfg, const char *key, const char *expected)
{
    const struct entry *e = dls_config_find(cfg, key);
    char place[WORDS];
    dls_config_place(cfg, e, place, sizeof place);
    if (!e)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: missing; expected %s", place, key,
                        expected);
    if (e->kind != SCALAR)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: expected %s, got a %s", place, key,
                        expected, e->kind == LIST ? "list" : "section");
    if (e->plain && !*e->text)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: expected %s, got nothing", place, key,
                        expected);
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: expected %s, got \"%.60s\"", place, key,
                    expected, e->text);
}

dls_status dls_config_fail(const dls_config *cfg, const char *key, const char *fmt, ...)
{
    char place[WORDS], text[512];
    dls_config_place(cfg, dls_config_find(cfg, key), place, sizeof place);
    va_list arguments;
    va_start(arguments, fmt);
    vsnprintf(text, sizeof text, fmt, arguments);
    va_end(arguments);
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: %s", place, key, text);
}

/* get a scalar */
/* The text of a scalar that is there; NULL when `key` has none to offer. */
static const char *scalar(dls_config *cfg, const char *key)
{
    const struct entry *e = ask(cfg, key);
    if (!e || e->kind != SCALAR)
        return NULL;
    if (e->plain && (!*e->text || !strcmp(e->text, "~") || !strcmp(e->text, "null")))
        return NULL;
    return e->text;
}

/* get an integer */
static void say_integer(char *buf, int64_t min, int64_t max)
{
    if (min == INT64_MIN && max == INT64_MAX)
        snprintf(buf, WORDS, "an integer");
    else if (max == INT64_MAX)
        snprintf(buf, WORDS, "an integer of at least %" PRId64, min);
    else if (min == INT64_MIN)
        snprintf(buf, WORDS, "an integer of at most %" PRId64, max);
    else
        snprintf(buf, WORDS, "an integer between %" PRId64 " and %" PRId64, min, max);
}

dls_status dls_config_int(dls_config *cfg, const char *key, int64_t min, int64_t max,
                          int64_t *value)
{
    char expected[WORDS], *end = NULL;
    const char *text = scalar(cfg, key);
    errno = 0;
    long long v = text ? strtoll(text, &end, 10) : 0;
    if (!text || end == text || *end || isspace((unsigned char)*text) || errno ||
        v < min || v > max) {
        say_integer(expected, min, max);
        return refuse(cfg, key, expected);
    }
    *value = v;
    return DLS_OK;
}

/* get a real number */
static void say_real(char *buf, double min, double max)
{
    if (isinf(min) && isinf(max))
        snprintf(buf, WORDS, "a number");
    else if (isinf(max))
        snprintf(buf, WORDS, "a number of at least %g", min);
    else if (isinf(min))
        snprintf(buf, WORDS, "a number of at most %g", max);
    else
        snprintf(buf, WORDS, "a number between %g and %g", min, max);
}

dls_status dls_config_real(dls_config *cfg, const char *key, double min, double max,
                           double *value)
{
    char expected[WORDS], *end = NULL;
    const char *text = scalar(cfg, key);
    double v = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end || isspace((unsigned char)*text) || !isfinite(v) ||
        v < min || v > max) {
        say_real(expected, min, max);
        return refuse(cfg, key, expected);
    }
    *value = v;
    return DLS_OK;
}

/* get a word */
dls_status dls_config_string(dls_config *cfg, const char *key, const char **value)
{
    const char *text = scalar(cfg, key);
    if (!text)
        return refuse(cfg, key, "a text");
    *value = text;
    return DLS_OK;
}

/* The position of `word` in "a|b|c", or -1. */
static int position(const char *choices, const char *word)
{
    size_t n = strlen(word);
    for (int i = 0;; i++) {
        size_t k = strcspn(choices, "|");
        if (k == n && memcmp(choices, word, n) == 0)
            return i;
        if (!choices[k])
            return -1;
        choices += k + 1;
    }
}

dls_status dls_config_bool(dls_config *cfg, const char *key, int *value)
{
    const char *text = scalar(cfg, key);
    int i = text ? position("false|true|no|yes|off|on", text) : -1;
    if (i < 0)
        return refuse(cfg, key, "true or false");
    *value = i & 1;
    return DLS_OK;
}

dls_status dls_config_choice(dls_config *cfg, const char *key, const char *choices,
                             int *value)
{
    const char *text = scalar(cfg, key);
    int i = text ? position(choices, text) : -1;
    if (i < 0) {
        char expected[WORDS];
        snprintf(expected, sizeof expected, "one of %s", choices);
        return refuse(cfg, key, expected);
    }
    *value = i;
    return DLS_OK;
}

/* count a list */
dls_status dls_config_count(dls_config *cfg, const char *key, int *count)
{
    const struct entry *e = ask(cfg, key);
    if (e && e->kind != LIST)
        return refuse(cfg, key, "a list");
    *count = e ? e->items : 0;
    return DLS_OK;
}

/* fall back when absent */
dls_status dls_config_int_or(dls_config *cfg, const char *key, int64_t min, int64_t max,
                             int64_t fallback, int64_t *value)
{
    *value = fallback;
    return ask(cfg, key) ? dls_config_int(cfg, key, min, max, value) : DLS_OK;
}

dls_status dls_config_real_or(dls_config *cfg, const char *key, double min, double max,
                              double fallback, double *value)
{
    *value = fallback;
    return ask(cfg, key) ? dls_config_real(cfg, key, min, max, value) : DLS_OK;
}

dls_status dls_config_string_or(dls_config *cfg, const char *key, const char *fallback,
                                const char **value)
{
    *value = fallback;
    return ask(cfg, key) ? dls_config_string(cfg, key, value) : DLS_OK;
}

dls_status dls_config_bool_or(dls_config *cfg, const char *key, int fallback, int *value)
{
    *value = fallback;
    return ask(cfg, key) ? dls_config_bool(cfg, key, value) : DLS_OK;
}

dls_status dls_config_choice_or(dls_config *cfg, const char *key, const char *choices,
                                int fallback, int *value)
{
    *value = fallback;
    return ask(cfg, key) ? dls_config_choice(cfg, key, choices, value) : DLS_OK;
}

/* complain about unknown keys */
/* 1 when `below` is `key` or "key.something". */
static int within(const char *key, const char *below)
{
    size_t n = strlen(key);
    return strncmp(key, below, n) == 0 && (below[n] == 0 || below[n] == '.');
}

static int is_known(const dls_config *cfg, const struct entry *e)
{
    for (int i = 0; i < cfg->asked_count; i++)
        if (e->kind == SCALAR ? !strcmp(e->key, cfg->asked[i])
                              : within(e->key, cfg->asked[i]))
            return 1;
    return 0;
}

static int parts(const char *key)
{
    int n = 1;
    for (; *key; key++)
        n += *key == '.';
    return n;
}

static void cut_to_parts(char *key, int n)
{
    for (; *key; key++)
        if (*key == '.' && --n == 0) {
            *key = 0;
            return;
        }
}

/* Writes "; did you mean X?" or "". */
static void say_suggestion(const dls_config *cfg, const char *key, char *buf, size_t n)
{
    buf[0] = 0;
    size_t bytes = (size_t)cfg->asked_count * sizeof(char *);
    char **candidates = malloc(bytes ? bytes : 1);
    int count = 0;
    for (int i = 0; candidates && i < cfg->asked_count; i++)
        if (parts(cfg->asked[i]) >= parts(key) &&
            (candidates[count] = strdup(cfg->asked[i])))
            cut_to_parts(candidates[count++], parts(key));
    const char *near = dls_suggest(key, (const char *const *)candidates, count);
    if (near)
        snprintf(buf, n, "; did you mean %s?", near);
    for (int i = 0; i < count; i++)
        free(candidates[i]);
    free(candidates);
}

dls_status dls_config_check_unused(const dls_config *cfg)
{
    const struct entry *first = NULL, *last = NULL;
    int others = 0;
    for (int i = 0; i < cfg->count; i++) {
        const struct entry *e = &cfg->entries[i];
        if (is_known(cfg, e) || (last && within(last->key, e->key)))
            continue;
        if (!first)
            first = e;
        else
            others++;
        last = e;
    }
    if (!first)
        return DLS_OK;
    char place[WORDS], meant[WORDS + 32], more[64] = "";
    dls_config_place(cfg, first, place, sizeof place);
    say_suggestion(cfg, first->key, meant, sizeof meant);
    if (others)
        snprintf(more, sizeof more, " (and %d more unknown)", others);
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: unknown key%s%s", place, first->key, meant,
                    more);
}

/* free a configuration */
void dls_config_free(dls_config *cfg)
{
    if (!cfg)
        return;
    for (int i = 0; i < cfg->count; i++) {
        free(cfg->entries[i].key);
        free(cfg->entries[i].text);
    }
    for (int i = 0; i < cfg->asked_count; i++)
        free(cfg->asked[i]);
    free(cfg->entries);
    free(cfg->asked);
    free(cfg->name);
    free(cfg);
}
