/* code/base/args.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Parsing by table. getopt_long was considered: its messages are its own, it cannot
 * suggest, and the help text would be a second list to keep in step with the first. */
#include "base/args.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"

struct parse {
    const dls_args *spec;
    int argc, next;
    char **argv;
    int positionals;  // how many were taken
};

/* tell options from positionals */
static int is_option(const dls_arg *a)
{
    return a->name[0] == '-';
}

static int is_required(const dls_arg *a)
{
    return !is_option(a) && a->name[0] != '[';
}

/* find an option */
/* 1 when the n bytes at `word` are one of the alternatives "-n|--ranks". */
static int named(const char *alternatives, const char *word, size_t n)
{
    for (const char *a = alternatives;; a++) {
        size_t k = strcspn(a, "|");
        if (k == n && memcmp(a, word, n) == 0)
            return 1;
        a += k;
        if (!*a)
            return 0;
    }
}

static const dls_arg *find_option(const dls_args *spec, const char *word, size_t n)
{
    for (int i = 0; i < spec->count; i++)
        if (is_option(&spec->args[i]) && named(spec->args[i].name, word, n))
            return &spec->args[i];
    return NULL;
}

static dls_status unknown_option(const dls_args *spec, const char *word)
{
    const char *names[128] = {"--help"};
    int count = 1;
    for (int i = 0; i < spec->count && count < 128; i++) {
        const char *name = strstr(spec->args[i].name, "--");
        if (is_option(&spec->args[i]) && name)
            names[count++] = name;
    }
    const char *near = word[1] == '-' ? dls_suggest(word, names, count) : NULL;
    return DLS_FAIL(DLS_ERR_INPUT, "%s: %.60s: unknown option%s%s%s", spec->program, word,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

/* store a value */
static dls_status store_number(const dls_args *spec, const dls_arg *a, const char *text)
{
    char *end;
    errno = 0;
    if (a->kind == DLS_ARG_INT) {
        long long v = strtoll(text, &end, 10);
        if (end == text || *end || errno || isspace((unsigned char)*text))
            return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: expected an integer, got \"%.60s\"",
                            spec->program, a->name, text);
        *(int64_t *)a->value = v;
        return DLS_OK;
    }
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v) || isspace((unsigned char)*text))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: expected a number, got \"%.60s\"",
                        spec->program, a->name, text);
    *(double *)a->value = v;
    return DLS_OK;
}

static dls_status store(const dls_args *spec, const dls_arg *a, const char *text)
{
    dls_arg_list *list = a->value;
    switch (a->kind) {
    case DLS_ARG_INT:
    case DLS_ARG_REAL:
        return store_number(spec, a, text);
    case DLS_ARG_LIST:
        if (list->count == DLS_ARG_LIST_LIMIT)
            return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: given more than %d times",
                            spec->program, a->name, DLS_ARG_LIST_LIMIT);
        list->values[list->count++] = text;
        return DLS_OK;
    case DLS_ARG_STRING:
        *(const char **)a->value = text;
        return DLS_OK;
    default:
        return DLS_FAIL(DLS_ERR_STATE, "%s: %s: takes no value", spec->program, a->name);
    }
}

/* take an option */
static dls_status take_option(struct parse *p)
{
    const char *word = p->argv[p->next++];
    size_t n = strcspn(word, "=");
    const dls_arg *a = find_option(p->spec, word, n);
    if (!a)
        return unknown_option(p->spec, word);
    const char *value = word[n] ? word + n + 1 : NULL;
    if (a->kind == DLS_ARG_FLAG) {
        if (value)
            return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: takes no value, got \"%.60s\"",
                            p->spec->program, a->name, value);
        *(int *)a->value = 1;
        return DLS_OK;
    }
    if (!value && p->next == p->argc)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %s: expected a value (%s) behind it",
                        p->spec->program, a->name, a->placeholder ? a->placeholder : "");
    return store(p->spec, a, value ? value : p->argv[p->next++]);
}

/* take a positional */
static dls_status take_positional(struct parse *p)
{
    char *word = p->argv[p->next];
    int wanted = p->positionals;
    for (int i = 0; i < p->spec->count; i++) {
        const dls_arg *a = &p->spec->args[i];
        if (is_option(a) || wanted-- > 0)
            continue;
        p->positionals++;
        if (a->kind == DLS_ARG_REST) {
            *(char ***)a->value = p->argv + p->next;
            p->next = p->argc;
            return DLS_OK;
        }
        p->next++;
        return store(p->spec, a, word);
    }
    return DLS_FAIL(DLS_ERR_INPUT, "%s: unexpected argument \"%.60s\"", p->spec->program,
                    word);
}

static dls_status check_missing(const struct parse *p)
{
    int taken = p->positionals;
    for (int i = 0; i < p->spec->count; i++) {
        const dls_arg *a = &p->spec->args[i];
        if (!is_option(a) && taken-- <= 0 && is_required(a))
            return DLS_FAIL(DLS_ERR_INPUT,
                            "%s: %s: missing (%s); --help shows an example",
                            p->spec->program, a->name, a->help);
    }
    return DLS_OK;
}

/* print the help text */
static void heading_of(const dls_arg *a, char *buf, size_t n)
{
    const char *bar = strchr(a->name, '|');
    int head = bar ? (int)(bar - a->name) : (int)strlen(a->name);
    snprintf(buf, n, "%.*s%s%s%s%s", head, a->name, bar ? ", " : "", bar ? bar + 1 : "",
             a->placeholder ? " " : "", a->placeholder ? a->placeholder : "");
}

void dls_args_help(const dls_args *spec)
{
    char heading[128];
    int width = (int)strlen("-h, --help");
    printf("Usage: %s [options]", spec->program);
    for (int i = 0; i < spec->count; i++) {
        heading_of(&spec->args[i], heading, sizeof heading);
        if ((int)strlen(heading) > width)
            width = (int)strlen(heading);
        if (!is_option(&spec->args[i]))
            printf(" %s%s", spec->args[i].name,
                   spec->args[i].kind == DLS_ARG_REST ? " ..." : "");
    }
    printf("\n%s\n\n", spec->summary);
    for (int i = 0; i < spec->count; i++) {
        heading_of(&spec->args[i], heading, sizeof heading);
        printf("  %-*s  %s\n", width, heading, spec->args[i].help);
    }
    printf("  %-*s  show this text\n\nExample:\n  %s\n", width, "-h, --help",
           spec->example);
}

/* parse the command line */
dls_status dls_args_parse(const dls_args *spec, int argc, char **argv, int *helped)
{
    struct parse p = {.spec = spec, .argc = argc, .argv = argv, .next = 1};
    int options_end = 0;
    *helped = 0;
    while (p.next < argc) {
        const char *word = argv[p.next];
        if (!options_end && strcmp(word, "--") == 0) {
            options_end = 1;
            p.next++;
        } else if (options_end || word[0] != '-' || !word[1]) {
            DLS_TRY(take_positional(&p));
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            dls_args_help(spec);
            *helped = 1;
            return DLS_OK;
        } else {
            DLS_TRY(take_option(&p));
        }
    }
    return check_missing(&p);
}

dls_status dls_args_in(const char *option, int64_t value, int64_t least, int64_t most)
{
    return value >= least && value <= most ? DLS_OK
         : DLS_FAIL(DLS_ERR_INPUT, "%s: expected %lld to %lld, got %lld", option,
                    (long long)least, (long long)most, (long long)value);
}

dls_status dls_args_real_in(const char *option, double value, double least, double most)
{
    return value >= least && value <= most ? DLS_OK
         : DLS_FAIL(DLS_ERR_INPUT, "%s: expected %g to %g, got %g", option, least, most,
                    value);
}
