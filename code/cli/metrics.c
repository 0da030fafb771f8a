/* code/cli/metrics.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls metrics: columns of a file with one JSON object per line. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/file.h"
#include "base/table.h"
#include "cli/command.h"

enum { COLUMN_LIMIT = 16 };

/* describe the options of metrics */
typedef struct metrics_options {
    const char *path, *columns;
    int64_t every;
    int json;
    char names[512];  // the text of `columns`, cut at the commas
    dls_column column[COLUMN_LIMIT];
    int count;
} metrics_options;

static dls_status parse_metrics(int argc, char **argv, metrics_options *o, int *helped)
{
    const dls_arg args[] = {
        {"FILE", DLS_ARG_STRING, &o->path, NULL, "a metrics.jsonl"},
        {"--columns", DLS_ARG_STRING, &o->columns, "A,B", "which fields"},
        {"--every", DLS_ARG_INT, &o->every, "N", "only steps divisible by N"},
        {"--json", DLS_ARG_FLAG, &o->json, NULL, "print JSON"},
    };
    const dls_args spec = {"dls metrics", "Prints columns of a metrics.jsonl.",
                           "dls metrics build/tour/metrics.jsonl --columns step,loss",
                           args, sizeof args / sizeof args[0]};
    return dls_args_parse(&spec, argc, argv, helped);
}

/* split the column names */
static dls_status split_columns(metrics_options *o)
{
    if (strlen(o->columns) >= sizeof o->names)
        return DLS_FAIL(DLS_ERR_INPUT, "--columns: longer than %zu bytes",
                        sizeof o->names - 1);
    strcpy(o->names, o->columns);
    for (char *name = strtok(o->names, ","); name; name = strtok(NULL, ",")) {
        if (o->count == COLUMN_LIMIT)
            return DLS_FAIL(DLS_ERR_INPUT, "--columns: more than %d", COLUMN_LIMIT);
        o->column[o->count++] = (dls_column){name, "%.6g"};
    }
    if (o->count == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "--columns: expected names, got none");
    return DLS_OK;
}

/* add a line of metrics */
static void add_cell(dls_table *table, const json_t *value)
{
    if (json_is_integer(value))
        dls_table_add_int(table, json_integer_value(value));
    else if (json_is_number(value))
        dls_table_add_real(table, json_number_value(value));
    else
        dls_table_add_text(table, json_string_value(value));
}

static dls_status add_line(const metrics_options *o, dls_table *table, const char *line,
                           size_t size, int number, int last)
{
    json_error_t error;
    json_t *object = json_loadb(line, size, 0, &error);
    if (!object && last)
        return DLS_OK;
    if (!json_is_object(object)) {
        json_decref(object);
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: expected a JSON object", o->path, number);
    }
    int complete = 1;
    for (int i = 0; i < o->count; i++)
        complete &= json_object_get(object, o->column[i].name) != NULL;
    json_t *step = json_object_get(object, "step");
    if (o->every > 1 && json_integer_value(step) % o->every != 0)
        complete = 0;
    for (int i = 0; complete && i < o->count; i++)
        add_cell(table, json_object_get(object, o->column[i].name));
    json_decref(object);
    return DLS_OK;
}

/* print the metrics */
static dls_status add_lines(const metrics_options *o, const char *text, size_t size,
                            dls_table *table)
{
    int number = 0;
    for (const char *line = text, *end = text + size; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        DLS_TRY(add_line(o, table, line, (size_t)((stop ? stop : end) - line), ++number,
                         !stop));
        line = stop ? stop + 1 : end;
    }
    return DLS_OK;
}

dls_status command_metrics(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    metrics_options o = {.columns = "step,loss", .every = 1};
    int helped;
    DLS_TRY(parse_metrics(argc, argv, &o, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(split_columns(&o));
    char *text;
    size_t size;
    DLS_TRY(dls_file_read(o.path, &text, &size));
    dls_table *table = NULL;
    dls_status status;
    DLS_TRY_GOTO(status, dls_table_create(&table, o.column, o.count), done);
    DLS_TRY_GOTO(status, add_lines(&o, text, size, table), done);
    DLS_TRY_GOTO(status, dls_table_print(table, stdout, o.json), done);
done:
    dls_table_free(table);
    free(text);
    return status;
}
