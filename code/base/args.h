/* code/base/args.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* A command line described by a table of options and positional arguments.
 *
 *   int64_t ranks = 1; int json = 0; const char *path = NULL;
 *   const dls_arg args[] = {
 *       {"-n|--ranks", DLS_ARG_INT, &ranks, "N", "how many processes"},
 *       {"--json", DLS_ARG_FLAG, &json, NULL, "print JSON"},
 *       {"FILE", DLS_ARG_STRING, &path, NULL, "what to read"},       required, in order
 *       {"[OTHER]", DLS_ARG_STRING, &other, NULL, "if given"}};      optional
 */
#ifndef DLS_BASE_ARGS_H
#define DLS_BASE_ARGS_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define an argument */
typedef enum dls_arg_kind {
    DLS_ARG_FLAG,    // int: set to 1
    DLS_ARG_INT,     // int64_t
    DLS_ARG_REAL,    // double
    DLS_ARG_STRING,  // const char *: points into argv
    DLS_ARG_LIST,    // dls_arg_list: an option that may be repeated
    DLS_ARG_REST     // char **: all that follows from the first positional on
} dls_arg_kind;

enum { DLS_ARG_LIST_LIMIT = 64 };

typedef struct dls_arg_list {
    int count;
    const char *values[DLS_ARG_LIST_LIMIT];
} dls_arg_list;

typedef struct dls_arg {
    const char *name;         // "--steps", "-n|--ranks"; "FILE", "[FILE]" is positional
    dls_arg_kind kind;
    void *value;              // where to store it; keeps what it has when not given
    const char *placeholder;  // "N" in the help text; NULL for flags and positionals
    const char *help;
} dls_arg;

/* declare argument parsing */
typedef struct dls_args {
    const char *program;  // "dls run"
    const char *summary;  // one sentence
    const char *example;  // one line that works
    const dls_arg *args;
    int count;
} dls_args;

/* Reads argv[1 ..]; "--" ends the options; "--name value" equals "--name=value".
 * On --help or -h prints the help text to stdout and sets *helped to 1, else to 0.
 * Errors: DLS_ERR_INPUT "PROGRAM: OPTION: ...", with a suggestion for a misspelt one. */
dls_status dls_args_parse(const dls_args *spec, int argc, char **argv, int *helped);

/* DLS_ERR_INPUT "OPTION: expected LEAST to MOST, got VALUE" if it is not between them. */
dls_status dls_args_in(const char *option, int64_t value, int64_t least, int64_t most);
dls_status dls_args_real_in(const char *option, double value, double least, double most);

/* The help text, as --help prints it. */
void dls_args_help(const dls_args *spec);

#ifdef __cplusplus
}
#endif
#endif
