/* code/cli/memory.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls memory: the memory-rank-*.json of a run as one table. */
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "base/args.h"
#include "base/table.h"
#include "cli/command.h"

/* name the columns of memory */
static const dls_column columns[] = {
    {"rank", NULL},   {"purpose", NULL}, {"predicted", NULL},
    {"in use", NULL}, {"peak", NULL},
};

static void add_row(dls_table *table, int rank, const char *purpose, const json_t *o)
{
    dls_table_add_int(table, rank);
    dls_table_add_text(table, purpose);
    const char *keys[] = {"predicted", "current", "peak"};
    for (int i = 0; i < 3; i++)
        dls_table_add_int(table, json_integer_value(json_object_get(o, keys[i])));
}

/* add the memory of a rank */
static dls_status add_rank(dls_table *table, const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    json_t *purposes = json_object_get(root, "purposes");
    if (!json_is_object(purposes)) {
        json_decref(root);
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected the memory of a rank as JSON", path);
    }
    int rank = (int)json_integer_value(json_object_get(root, "rank"));
    const char *purpose;
    json_t *value;
    json_object_foreach(purposes, purpose, value)
        if (json_integer_value(json_object_get(value, "peak")) > 0)
            add_row(table, rank, purpose, value);
    json_decref(root);
    return DLS_OK;
}

/* print the memory */
static dls_status add_ranks(dls_table *table, const char *directory)
{
    for (int rank = 0;; rank++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/memory-rank-%d.json", directory, rank);
        if (rank > 0 && access(path, F_OK) != 0)
            return DLS_OK;
        DLS_TRY(add_rank(table, path));
    }
}

dls_status command_memory(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    const char *directory = NULL;
    int json = 0, helped;
    const dls_arg args[] = {
        {"DIR", DLS_ARG_STRING, &directory, NULL, "the output directory of a run"},
        {"--json", DLS_ARG_FLAG, &json, NULL, "print JSON"},
    };
    const dls_args spec = {"dls memory", "Prints the bytes of each rank by purpose.",
                           "dls memory build/tour", args, sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    dls_table *table;
    DLS_TRY(dls_table_create(&table, columns, sizeof columns / sizeof columns[0]));
    dls_status status = add_ranks(table, directory);
    if (status == DLS_OK)
        status = dls_table_print(table, stdout, json);
    dls_table_free(table);
    return status;
}
