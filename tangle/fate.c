/*
 * fate.c - what becomes of a block: root, chunk, run, expectation, failure, solution,
 * quotation.
 *
 * The table below is the source form. A block has exactly one fate; a class or key that
 * its fate does not know is an error, since a misspelt attribute would otherwise change
 * the fate silently.
 */
#include "tangle.h"

#include <stdlib.h>
#include <string.h>

static const char *const lang_names[] = {"c",    "cuda", "cpp", "yaml", "sh",
                                         "make", "lua",  "js",  "text", "json"};

static const struct rule {
    const char *name;    /* also the class that asks for it, except for root and chunk */
    const char *keys[4]; /* keys it may have */
    const char *classes[2]; /* further classes it may have */
    const char *name_key;   /* the key that holds block.name, required */
} rules[] = {
    [FATE_NONE] = {"none", {0}, {0}, NULL},
    [FATE_ROOT] = {"root", {"file", "caption"}, {0}, "file"},
    [FATE_CHUNK] = {"chunk", {"caption"}, {0}, NULL},
    [FATE_RUN] = {"run", {"timeout", "needs", "exit", "caption"}, {"slow"}, NULL},
    [FATE_EXPECT] = {"expect", {"of", "tolerance"}, {"device"}, "of"},
    [FATE_FAILS] = {"fails", {"match", "caption"}, {0}, "match"},
    [FATE_SOLUTION] = {"solution", {"of", "caption"}, {0}, "of"},
    [FATE_QUOTE] = {"quote", {"caption"}, {0}, NULL},
};

const char *fate_name(enum fate f)
{
    return rules[f].name;
}

/* Small letters, digits, hyphens and dots; starts with a letter or digit. */
bool chunk_name_ok(slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool word = (s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9');
        if (!word && (i == 0 || !strchr("-.", s.p[i])))
            return false;
    }
    return s.n > 0;
}

static struct place at_attribute(const struct block *b, const struct attribute *a)
{
    int width = characters(a->name.p, a->name.n) + (a->kind != '=');
    return at_span(b->src, b->fence, a->column, width);
}

static struct attribute *find(struct block *b, char kind, const char *name)
{
    for (size_t i = 0; i < b->attrs.n; i++)
        if (b->attrs.at[i].kind == kind && (!name || is(b->attrs.at[i].name, name)))
            return &b->attrs.at[i];
    return NULL;
}

/* Collects the fates that the attributes ask for; two are one too many. */
static void choose(struct block *b, int info_column)
{
    struct attribute *asked[FATE_QUOTE + 1] = {0}, *id = find(b, '#', NULL);
    int count = 0;
    for (int f = FATE_RUN; f <= FATE_QUOTE; f++)
        asked[f] = find(b, '.', rules[f].name);
    asked[FATE_ROOT] = find(b, '=', "file");
    if (id && !memchr(id->name.p, ':', id->name.n) && !asked[FATE_RUN])
        asked[FATE_CHUNK] = id;
    text names = {0};
    struct attribute *second = NULL;
    for (int f = FATE_ROOT; f <= FATE_QUOTE; f++) {
        if (!asked[f])
            continue;
        addf(&names, "%s%s", count ? " and " : "", rules[f].name);
        b->fate = (enum fate)f;
        if (count++ && (!second || asked[f]->column > second->column))
            second = asked[f];
    }
    if (count > 1) {
        problem(CLASS_SYNTAX, "two-fates", at_attribute(b, second),
                "a block has one fate, this one has %d: %.*s", count,
                FMT(text_slice(&names)));
        b->fate = FATE_NONE;
    } else if (!count) {
        problem(CLASS_SYNTAX, "no-fate", at_span(b->src, b->fence, info_column, 1),
                "a block without a fate");
        note("give it file=…, #name, .run, .expect, .fails, .solution or .quote");
        for (size_t i = 0; i < b->attrs.n; i++) {
            guess g = guess_for(b->attrs.at[i].name);
            for (int f = FATE_RUN; f <= FATE_QUOTE; f++)
                guess_try(&g, slice_of(rules[f].name));
            guess_try(&g, SLICE("file"));
            note_guess(&g);
        }
    }
}

static void decide_language(struct block *b, int info_column)
{
    guess g = {0};
    b->lang = LANG_OTHER;
    struct attribute *first = find(b, '.', NULL);
    if (!first || is(first->name, rules[b->fate].name)) {
        problem(CLASS_SYNTAX, "no-language", at_span(b->src, b->fence, info_column, 1),
                "the first class of a block is its language, as in {.c …}");
        return;
    }
    b->lang_name = first->name;
    g = guess_for(first->name);
    for (int l = 0; l < LANG_OTHER; l++) {
        if (is(first->name, lang_names[l]))
            b->lang = (enum lang)l;
        guess_try(&g, slice_of(lang_names[l]));
    }
    if (b->lang != LANG_OTHER || b->fate == FATE_QUOTE)
        return;
    problem(CLASS_SYNTAX, "unknown-language", at_attribute(b, first),
            "unknown language \"%.*s\"", FMT(first->name));
    note_guess(&g);
    note("known are c, cuda, cpp, yaml, sh, make, lua, js, text and json");
}

static bool listed(const char *const *words, size_t n, slice word, guess *g)
{
    for (size_t i = 0; i < n && words[i]; i++) {
        if (is(word, words[i]))
            return true;
        guess_try(g, slice_of(words[i]));
    }
    return false;
}

/* Every attribute must be one that the fate knows. */
static void check_known(struct block *b)
{
    const struct rule *r = &rules[b->fate];
    bool language = true;
    for (size_t i = 0; i < b->attrs.n; i++) {
        struct attribute *a = &b->attrs.at[i];
        guess g = guess_for(a->name);
        if (a->kind == '#')
            continue;
        if (a->kind == '.' && language) {
            language = false;
            continue;
        }
        bool known = a->kind == '.'
                         ? is(a->name, r->name) || listed(r->classes, 2, a->name, &g)
                         : listed(r->keys, 4, a->name, &g);
        if (known || (a->kind == '.' && b->fate == FATE_QUOTE))
            continue;
        problem(CLASS_SYNTAX, "unknown-attribute", at_attribute(b, a),
                "a %s block has no %s \"%.*s\"", r->name,
                a->kind == '.' ? "class" : "key", FMT(a->name));
        note_guess(&g);
    }
}

static bool number_ok(slice s, double low, double high)
{
    char *end;
    char copy[64];
    if (s.n == 0 || s.n >= sizeof copy)
        return false;
    memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    double x = strtod(copy, &end);
    return *end == '\0' && x >= low && x <= high;
}

static void check_number(struct block *b, const char *key, double low, double high,
                         const char *expected)
{
    struct attribute *a = find(b, '=', key);
    if (a && !number_ok(a->value, low, high))
        problem(CLASS_SYNTAX, "bad-value", at_attribute(b, a), "%s=%.*s: expected %s",
                key, FMT(a->value), expected);
}

static void take_name(struct block *b, int info_column)
{
    const char *key = rules[b->fate].name_key;
    bool by_id = b->fate == FATE_CHUNK || b->fate == FATE_RUN;
    struct attribute *a = key ? find(b, '=', key) : by_id ? find(b, '#', NULL) : NULL;
    if (!key && !by_id)
        return;
    b->name_column = !a ? info_column : key ? a->value_column : a->column;
    if (a)
        b->name = key ? a->value : a->name;
    if (!a || !b->name.n)
        problem(CLASS_SYNTAX, "missing-attribute",
                at_span(b->src, b->fence, info_column, 1), "this %s block needs %s%s",
                fate_name(b->fate), key ? key : "an id, as #name", key ? "=…" : "");
    else if (by_id && !chunk_name_ok(b->name))
        problem(CLASS_SYNTAX, "bad-name", at_attribute(b, a),
                "a name is made of small letters, digits and hyphens");
    else
        return;
    b->name = (slice){NULL, 0};
}

/* Sets language, fate and name of a block from the info string of its fence. */
void fate_decide(struct block *b, slice info, int info_column)
{
    if (info.n < 2 || info.p[0] != '{' || info.p[info.n - 1] != '}') {
        problem(CLASS_SYNTAX, "no-fate", at_span(b->src, b->fence, info_column, 1),
                "a block without attributes has no fate");
        note("write {.%.*s …} with file=…, #name, .run, .expect, .fails, .solution or "
             ".quote",
             FMT(info.n && info.n < 10 && info.p[0] != '{' ? info : SLICE("c")));
        return;
    }
    if (!attributes_parse(b->src, b->fence, (slice){info.p + 1, info.n - 2}, &b->attrs))
        return;
    choose(b, info_column);
    if (b->fate == FATE_NONE)
        return;
    decide_language(b, info_column);
    check_known(b);
    take_name(b, info_column);
    check_number(b, "timeout", 1, 3600, "seconds, 1 to 3600");
    check_number(b, "exit", 0, 255, "an exit status, 0 to 255");
    check_number(b, "tolerance", 0, 1, "a relative difference between 0 and 1");
    struct attribute *device = find(b, '.', "device");
    if (device && b->fate == FATE_EXPECT && find(b, '=', "tolerance"))
        problem(CLASS_SYNTAX, "two-expectations", at_attribute(b, device),
                "an expectation has a tolerance or is .device, not both");
    if (!b->name.n && b->fate != FATE_QUOTE)
        b->fate = FATE_NONE;
}
