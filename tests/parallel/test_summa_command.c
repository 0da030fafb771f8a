/* tests/parallel/test_summa_command.c: from chapters/06-tensor-2d-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* dls summa as other programs see it. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../cli/program.h"

/* ask dls summa */
static json_t *ask(const char *before, const char *options)
{
    outcome o = run_program("build/bin/dls %ssumma %s --json", before, options);
    cr_assert_eq(o.exit_code, 0, "%s: %s", options, o.output);
    json_t *j = json_loads(o.output, 0, NULL);
    cr_assert(j && json_is_array(j), "%s: %s", options, o.output);
    return j;
}

static double number(const json_t *table, const char *cut, const char *key)
{
    size_t i;
    json_t *row;
    json_array_foreach(table, i, row)
        if (strcmp(json_string_value(json_object_get(row, "cut")), cut) == 0)
            return json_number_value(json_object_get(row, key));
    cr_assert(0, "no row %s", cut);
    return 0;
}

/* test dls summa */
Test(summa_command, what_is_sent_is_the_formula)
{
    static const char *const cuts[] = {"1-D over 4", "1 x 1 x 4", "2 x 2 x 1",
                                       "2 x 2 x 1 turned"};
    setenv("DLS_ALGORITHM", "all_reduce:ring", 1);
    json_t *j = ask("run -n 4 -- ", "--tokens 4096 --channels 256");
    cr_assert_eq(json_array_size(j), 4);
    for (int i = 0; i < 4; i++) {
        double sent = number(j, cuts[i], "MB sent"), law = number(j, cuts[i], "formula");
        cr_assert_float_eq(sent, law, 1e-6 * law, "%s: %g, not %g", cuts[i], sent, law);
    }
    cr_assert_lt(number(j, cuts[3], "wire ms"), number(j, cuts[2], "wire ms"));
    cr_assert_lt(number(j, cuts[3], "MB held"), number(j, cuts[0], "MB held"));
    json_decref(j);
}

Test(summa_command, formulas_need_no_ranks)
{
    json_t *j = ask("", "--formulas --tokens 1024 --channels 1024");
    cr_assert_eq(json_array_size(j), 4 + 6 + 8);
    cr_assert_float_eq(number(j, "1-D over 64", "MB sent"), 2 * 3.9375 * 1.048576, 1e-9);
    cr_assert_float_eq(number(j, "8 x 8 x 1 turned", "kept MB"), 2 * 9 * 1.048576 / 64,
                       1e-9);
    json_decref(j);
}

Test(summa_command, sizes_are_checked)
{
    static const char *const bad[] = {"--tokens 0", "--channels -1", "--hidden 2000000"};
    for (int i = 0; i < 3; i++) {
        outcome o = run_program("build/bin/dls summa %s", bad[i]);
        cr_assert_eq(o.exit_code, 2);
        cr_assert(strstr(o.output, "expected 1 to 1048576, got"), "%s", o.output);
    }
}
