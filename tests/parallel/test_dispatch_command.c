/* tests/parallel/test_dispatch_command.c: from chapters/08-dispatch-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* dls dispatch: what it prints is what the formulas say. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>

#include "../cli/program.h"

/* ask for a dispatch */
enum { PIPELINE_LINE, COUNTS_LINE, DISPATCH_LINE, COMBINE_LINE };

static json_t *ask(int ranks, const char *options)
{
    outcome o = run_program("build/bin/dls run -n %d -- dispatch --json %s", ranks,
                            options);
    json_error_t error;
    cr_assert_eq(o.exit_code, 0, "%s: %s", options, o.output);
    json_t *table = json_loads(o.output, 0, &error);
    cr_assert(json_is_array(table), "%s: %s", error.text, o.output);
    return table;
}

static double number(const json_t *table, int line, const char *key)
{
    json_t *value = json_object_get(json_array_get(table, (size_t)line), key);
    cr_assert(json_is_number(value), "no number %s", key);
    return json_number_value(value);
}

/* expect bytes and times */
Test(dispatch_command, sends_the_bytes_of_the_formula_in_its_time)
{
    json_t *t = ask(8, "--tokens 64 --wire fp8");
    cr_assert_float_eq(number(t, PIPELINE_LINE, "near MB"), 64 * 4096e-6, 1e-9);
    cr_assert_float_eq(number(t, DISPATCH_LINE, "near MB"), 448 * 2112e-6, 1e-9);
    cr_assert_float_eq(number(t, COMBINE_LINE, "near MB"), 448 * 4096e-6, 1e-9);
    cr_assert_eq(number(t, DISPATCH_LINE, "rows in"), 512);
    json_decref(t);
    t = ask(8, "--tokens 64");
    double least = number(t, DISPATCH_LINE, "bound");
    double took = number(t, DISPATCH_LINE, "µs");
    cr_assert(fabs(took - least - 6 * 3.4) < 0.5, "%g µs, bound %g", took, least);
    cr_assert_gt(number(t, COUNTS_LINE, "µs"), 3 * 3.4);
    json_decref(t);
}

Test(dispatch_command, lets_nobody_receive_faster_than_its_port)
{
    json_t *t = ask(8, "--tokens 64 --pattern one");
    cr_assert_eq(number(t, DISPATCH_LINE, "rows in"), 8 * 512);
    for (int line = DISPATCH_LINE; line <= COMBINE_LINE; line++) {
        double took = number(t, line, "µs"), bound = number(t, line, "bound");
        cr_assert(took >= bound && took < bound + 35, "%g µs, bound %g", took, bound);
    }
    json_decref(t);
}

Test(dispatch_command, compares_the_ways, .timeout = 60)
{
    static const char *const ways[] = {"flat", "nodes", "one-sided"};
    const char *all = "--tokens 32 --channels 512 --pattern random "
                      "--cluster two-dgx-h100";
    double far[3], near[3], counts[3];
    for (int i = 0; i < 3; i++) {
        char options[200];
        snprintf(options, sizeof options, "%s --way %s", all, ways[i]);
        json_t *t = ask(16, options);
        far[i] = number(t, DISPATCH_LINE, "far MB");
        near[i] = number(t, DISPATCH_LINE, "near MB");
        counts[i] = number(t, COUNTS_LINE, "µs");
        json_decref(t);
    }
    cr_assert(far[1] <= 32 * 1056e-6 && far[1] > 30 * 1056e-6, "%g", far[1]);
    cr_assert(far[0] > 3.5 * far[1], "%g %g", far[0], far[1]);
    cr_assert_float_eq(far[2] - far[0], 8 * 16e-6, 1e-9);   // and their numbers
    cr_assert_float_eq(near[2] - near[0], 7 * 16e-6, 1e-9);
    cr_assert(counts[2] < 0.2 * counts[0], "%g, %g", counts[2], counts[0]);
}

/* refuse in one line */
Test(dispatch_command, refuses_with_one_line)
{
    static const struct { const char *command, *words; } wrong[] = {
        {"run -n 4 -- dispatch --experts 6 --chosen 2",
         "4 ranks (ep) can not share 6 experts"},
        {"dispatch", "one rank has nobody to send to"},
        {"dispatch --pattern some", "expected even, random or one, got \"some\""},
        {"dispatch --chosen 0", "--chosen: expected 1 to 64, got 0"},
        {"dispatch --tokens 3000000", "--tokens: expected 1 to 2097152, got 3000000"},
        {"ways", "one rank has nobody to send to"},
        {"run -n 3 -- ways --experts 8", "3 ranks (ep) can not share 8 experts"},
        {"run -n 2 -- ways --limit -1", "--limit: expected 0 to 2, got -1"},
        {"grouped --skew -1", "dls grouped: --skew: expected 0 to 10, got -1"},
        {"dispatch --wire int8", "--wire: expected same, bf16 or fp8, got \"int8\""},
        {"run -n 3 -- dispatch --wire int4", "expected same, bf16 or fp8, got \"int4\""}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        outcome o = run_program("build/bin/dls %s", wrong[i].command);
        const char *found = strstr(o.output, wrong[i].words);
        cr_assert_eq(o.exit_code, 2, "%s: %s", wrong[i].command, o.output);
        cr_assert(found, "%s: %s", wrong[i].command, o.output);
        cr_assert(!strstr(found + 1, wrong[i].words), "twice: %s", o.output);
    }
}
