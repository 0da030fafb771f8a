/* tests/parallel/test_pipeline_exact.c: from chapters/05-pipeline-command-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Exact numbers: what is read, what is refused, and the text of a quotient. */
#include <criterion/criterion.h>
#include <string.h>

#include "parallel/pipeline/exact.h"

/* test reading fractions */
static void expect_ticks(const char *text, int64_t a, int64_t b, int64_t c, int64_t unit)
{
    dls_fraction f[3];
    int count;
    int64_t common;
    cr_assert_eq(dls_fractions_read("--cost", text, 3, 3, f, &count), DLS_OK, "%s",
                 dls_status_message());
    cr_assert_eq(dls_fractions_align("--cost", f, 3, &common), DLS_OK);
    cr_assert(common == unit && f[0].over == a && f[1].over == b && f[2].over == c, "%s",
              text);
}

Test(pipeline_exact, costs_become_ticks)
{
    expect_ticks("1,1,1", 1, 1, 1, 1);
    expect_ticks("1,2.5,1/3", 6, 15, 2, 6);
    expect_ticks("0,0.125,4/8", 0, 1, 4, 8);
    expect_ticks("1.50,3/2,6/4", 3, 3, 3, 2);
    expect_ticks("18522,18086,9337", 18522, 18086, 9337, 1);
    expect_ticks("0.1,0.2,0.3", 1, 2, 3, 10);
    expect_ticks("1000000000000000,0,1", 1000000000000000, 0, 1, 1);
}
static void expect_refused(const char *text, const char *words)
{
    dls_fraction f[4];
    int count;
    int64_t unit;
    dls_status status = dls_fractions_read("--cost", text, 3, 4, f, &count);
    if (status == DLS_OK)
        status = dls_fractions_align("--cost", f, count, &unit);
    cr_assert_eq(status, DLS_ERR_INPUT, "%s", text);
    cr_assert(strstr(dls_status_message(), words), "%s: %s", text, dls_status_message());
}

Test(pipeline_exact, what_is_no_number)
{
    static const char *const bad[] = {
        "", "1", "1,2", "1,2,3,4,5", "1,,2", "1,2,3,", ",1,2,3", "1,2,x", "1,2,-3",
        "1,2,+3", "1,2,3 ", " 1,2,3", "1,2,1e3", "1,2,.5", "1,2,5.", "1,2,1/", "1,2,1/0",
        "1,2,/3", "1,2,1/2/3", "1,2,0x10", "1,2,inf", "1,2,nan", "1;2;3",
        "1,2,1000000000000001", "1,2,99999999999999999999999",
        "1,2,0.00000000000000000000000001", "1,2,1/99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i], "--cost: expected 3 to 4 numbers like 1, 2.5 or 1/3");
    expect_refused("1/999983,1/999979,1/999961", "common denominator up to 10^15");
    expect_refused("1000000000000000,1/2,1", "--cost: expected numbers up to 10^15 over "
                   "their common denominator 2");
}

/* test writing fractions */
static void expect_quotient(int64_t over, int64_t under, const char *text)
{
    char out[DLS_EXACT_TEXT];
    int n = dls_fraction_text(over, under, out);
    cr_assert_str_eq(out, text);
    cr_assert_eq((size_t)n, strlen(text));
}

Test(pipeline_exact, quotients)
{
    expect_quotient(33, 1, "33");
    expect_quotient(0, 7, "0");
    expect_quotient(23, 2, "11.5");
    expect_quotient(9, 24, "0.375");
    expect_quotient(1, 8, "0.125");
    expect_quotient(1, 1000000000000000, "0.000000000000001");
    expect_quotient(6, 3, "2");
    expect_quotient(-3, 2, "-1.5");
    expect_quotient(9007199254740993, 1, "9007199254740993");
    expect_quotient(1, 3, "0.33333333333333333");
    expect_quotient(7, 3, "2.3333333333333333");
    expect_quotient(2, 3, "0.66666666666666667");
}
