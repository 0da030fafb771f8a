/* code/base/table.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Tables: cells as text and as JSON values, side by side. */
#include "base/table.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct cell {
    char *text;
    json_t *value;
    int right;  // aligned to the right: a number
};

struct dls_table {
    const dls_column *columns;
    int column_count;
    struct cell *cells;  // row after row
    int count, room;
    dls_status status;   // the first failure
};

/* create and free a table */
dls_status dls_table_create(dls_table **out, const dls_column *columns, int count)
{
    dls_table *t = calloc(1, sizeof *t);
    if (!t)
        return DLS_FAIL(DLS_ERR_MEMORY, "table: no memory");
    t->columns = columns;
    t->column_count = count;
    *out = t;
    return DLS_OK;
}

void dls_table_free(dls_table *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->count; i++) {
        free(t->cells[i].text);
        json_decref(t->cells[i].value);
    }
    free(t->cells);
    free(t);
}

/* add a cell */
static void add_cell(dls_table *t, const char *text, json_t *value, int right)
{
    if (t->status == DLS_OK && t->count == t->room) {
        int room = t->room ? 2 * t->room : 64;
        struct cell *larger = realloc(t->cells, (size_t)room * sizeof *larger);
        if (larger) {
            t->cells = larger;
            t->room = room;
        } else {
            t->status = DLS_ERR_MEMORY;
        }
    }
    char *copy = t->status == DLS_OK ? strdup(text) : NULL;
    if (t->status == DLS_OK && (!copy || !value))
        t->status = copy ? DLS_ERR_INPUT : DLS_ERR_MEMORY;
    if (t->status != DLS_OK) {
        free(copy);
        json_decref(value);
        return;
    }
    t->cells[t->count++] = (struct cell){copy, value, right};
}

void dls_table_add_text(dls_table *t, const char *text)
{
    add_cell(t, text ? text : "", text ? json_string(text) : json_null(), 0);
}

void dls_table_add_int(dls_table *t, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    add_cell(t, text, json_integer(value), 1);
}

void dls_table_add_real(dls_table *t, double value)
{
    char text[64];
    const char *format = t->columns[t->count % t->column_count].format;
    snprintf(text, sizeof text, format ? format : "%g", value);
    if (isfinite(value))
        add_cell(t, text, json_real(value), 1);
    else
        add_cell(t, isnan(value) ? "-" : text, json_null(), 1);
}

/* measure a text */
static int width_of(const char *text)
{
    int width = 0;
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
    while (*p) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate(p, -1, &c);
        if (n <= 0)
            return width + (int)strlen((const char *)p);  // not UTF-8: count the bytes
        width += utf8proc_charwidth(c);
        p += n;
    }
    return width;
}

/* print aligned */
static int column_width(const dls_table *t, int column)
{
    int width = width_of(t->columns[column].name);
    for (int i = column; i < t->count; i += t->column_count) {
        int w = width_of(t->cells[i].text);
        width = w > width ? w : width;
    }
    return width;
}

static void print_cell(FILE *out, const char *text, int width, int right, int last)
{
    int blanks = width - width_of(text);
    if (right)
        fprintf(out, "%*s", blanks, "");
    fputs(text, out);
    if (!right && !last)
        fprintf(out, "%*s", blanks, "");
    fputs(last ? "\n" : "  ", out);
}

static void print_aligned(const dls_table *t, FILE *out)
{
    int columns = t->column_count;
    for (int j = 0; j < columns; j++)
        print_cell(out, t->columns[j].name, column_width(t, j),
                   j < t->count && t->cells[j].right, j == columns - 1);
    for (int j = 0; j < columns; j++) {
        for (int k = column_width(t, j); k > 0; k--)
            fputs("─", out);
        fputs(j == columns - 1 ? "\n" : "  ", out);
    }
    for (int i = 0; i < t->count; i++)
        print_cell(out, t->cells[i].text, column_width(t, i % columns),
                   t->cells[i].right, (i + 1) % columns == 0);
}

/* print as json */
static dls_status print_json(const dls_table *t, FILE *out)
{
    json_t *rows = json_array(), *row = NULL;
    int failed = !rows;
    for (int i = 0; i < t->count; i++) {
        int column = i % t->column_count;
        if (column == 0) {
            row = json_object();
            failed |= json_array_append_new(rows, row);
        }
        failed |= json_object_set(row, t->columns[column].name, t->cells[i].value);
    }
    failed = failed || json_dumpf(rows, out, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    json_decref(rows);
    if (failed)
        return DLS_FAIL(DLS_ERR_MEMORY, "table: cannot write it as JSON");
    fputc('\n', out);
    return DLS_OK;
}

/* print a table */
dls_status dls_table_print(const dls_table *t, FILE *out, int json)
{
    if (t->status == DLS_ERR_INPUT)
        return DLS_FAIL(DLS_ERR_INPUT, "table: row %d: a text that is not UTF-8",
                        t->count / t->column_count + 1);
    if (t->status != DLS_OK)
        return DLS_FAIL(t->status, "table: no memory");
    if (t->count % t->column_count)
        return DLS_FAIL(DLS_ERR_STATE, "table: the last row has %d of %d cells",
                        t->count % t->column_count, t->column_count);
    if (json)
        DLS_TRY(print_json(t, out));
    else
        print_aligned(t, out);
    if (fflush(out) != 0 || ferror(out))
        return DLS_FAIL(DLS_ERR_IO, "table: cannot write it");
    return DLS_OK;
}
