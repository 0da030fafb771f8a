/* code/base/table.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* A table of texts, integers and reals, printed aligned or as a JSON array of objects.
 *
 *   dls_table_create(&t, columns, 2);
 *   for each row: dls_table_add_int(t, rank); dls_table_add_real(t, seconds);
 *   dls_table_print(t, stdout, json); dls_table_free(t);
 *
 * Cells are added from left to right; a row begins by itself when the last is full.
 */
#ifndef DLS_BASE_TABLE_H
#define DLS_BASE_TABLE_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a column */
typedef struct dls_column {
    const char *name;    // the heading, and the key in JSON
    const char *format;  // of reals in text: "%.3f"; NULL means "%g"
} dls_column;

typedef struct dls_table dls_table;

/* declare the table */
/* `columns` must outlive the table. */
dls_status dls_table_create(dls_table **out, const dls_column *columns, int count);

/* A failure (memory, text that is not UTF-8) is kept and returned by dls_table_print.
 * A NULL text is an empty cell, null in JSON; so is a NaN, printed "-". */
void dls_table_add_text(dls_table *t, const char *text);
void dls_table_add_int(dls_table *t, int64_t value);
void dls_table_add_real(dls_table *t, double value);

/* json = 0: aligned columns, numbers to the right, a rule under the headings.
 * json = 1: [{"column": value, ...}, ...] with reals at full precision. */
dls_status dls_table_print(const dls_table *t, FILE *out, int json);

void dls_table_free(dls_table *t);  // t may be NULL

#ifdef __cplusplus
}
#endif
#endif
