/* tests/base/test_table.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Tables: alignment by width and not by bytes, JSON, and misuse. XXH3's known answers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/table.h"
#include "expect.h"

/* print to a string */
static const dls_column columns[] = {
    {"name", NULL}, {"count", NULL}, {"time", "%.2f"}, {"note", NULL}};

static char *printed(const dls_table *t, int json)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    EXPECT_OK(dls_table_print(t, out, json));
    fclose(out);
    return text;
}

static void add_row(dls_table *t, const char *name, int count, double time,
                    const char *note)
{
    dls_table_add_text(t, name);
    dls_table_add_int(t, count);
    dls_table_add_real(t, time);
    dls_table_add_text(t, note);
}

/* test tables */
Test(base, table_aligns_by_width)
{
    dls_table *t;
    EXPECT_OK(dls_table_create(&t, columns, 4));
    add_row(t, "αβ", 7, 1.5, "x");
    add_row(t, "e\u0301", -12345, NAN, NULL);
    add_row(t, "中文", 0, 0.125, "last");
    char *text = printed(t, 0);
    cr_expect_str_eq(text, "name   count  time  note\n"
                           "────  ──────  ────  ────\n"
                           "αβ         7  1.50  x\n"
                           "e\u0301     -12345     -  \n"
                           "中文       0  0.12  last\n");
    free(text);
    dls_table_free(t);
}

Test(base, table_as_json_keeps_digits)
{
    dls_table *t;
    EXPECT_OK(dls_table_create(&t, columns, 4));
    add_row(t, "α \"q\"", 7, 0.1, NULL);
    char *text = printed(t, 1);
    cr_expect_not_null(strstr(text, "\"name\": \"α \\\"q\\\"\""));
    cr_expect_not_null(strstr(text, "\"count\": 7"));
    cr_expect_not_null(strstr(text, "\"time\": 0.1"));
    cr_expect_not_null(strstr(text, "\"note\": null"));
    free(text);
    dls_table_free(t);
}

Test(base, table_reports_misuse)
{
    dls_table *t;
    EXPECT_OK(dls_table_create(&t, columns, 4));
    add_row(t, "a", 1, 1, "b");
    dls_table_add_text(t, "half");
    EXPECT_ERROR(dls_table_print(t, stdout, 0), DLS_ERR_STATE,
                 "table: the last row has 1 of 4 cells");
    dls_table_add_text(t, "\xff\xfe");
    EXPECT_ERROR(dls_table_print(t, stdout, 1), DLS_ERR_INPUT,
                 "table: row 2: a text that is not UTF-8");
    dls_table_free(t);
}

Test(base, table_empty)
{
    dls_table *t;
    EXPECT_OK(dls_table_create(&t, columns, 4));
    char *text = printed(t, 1);
    cr_expect_str_eq(text, "[]\n");
    free(text);
    dls_table_free(t);
}

/* test the hash */
Test(base, hash_known_answers)
{
    cr_expect_eq(dls_hash64("", 0), 0x2d06800538d394c2ull);
    cr_expect_neq(dls_hash64("abc", 3), dls_hash64("abd", 3));
    cr_expect_neq(dls_hash64("abc", 3), dls_hash64("abc\0", 4));
}
