/* tests/parallel/test_context_command.c: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* dls context: what it prints is what the formulas say. */
#include <criterion/criterion.h>
#include <jansson.h>

#include "../cli/program.h"

/* read a table of the context */
static double number(const json_t *line, const char *key)
{
    json_t *value = json_object_get(line, key);
    cr_assert(json_is_number(value), "no number %s", key);
    return json_number_value(value);
}

static json_t *ask(int ranks, const char *options)
{
    outcome o = run_program("build/bin/dls run -n %d -- context --json %s", ranks,
                            options);
    json_error_t error;
    cr_assert_eq(o.exit_code, 0, "%s: %s", options, o.output);
    json_t *table = json_loads(o.output, 0, &error);
    cr_assert(json_is_array(table), "%s: %s", error.text, o.output);
    return table;
}

/* expect the efficiencies */
Test(context_command, efficiency_is_what_the_formula_says)
{
    json_t *table = ask(4, "--way ring --heads 2 --kv-heads 1 --tokens 65536");
    cr_assert_eq(json_array_size(table), 3);
    for (int i = 0; i < 3; i++) {
        const json_t *line = json_array_get(table, (size_t)i);
        double forward = number(line, "efficiency");
        double backward = number(line, "its efficiency"), law = number(line, "formula");
        const char *order = json_string_value(json_object_get(line, "tokens"));
        double least = strcmp(order, "striped") ? 0.99 * law : 0.98;
        cr_assert_float_eq(law, strcmp(order, "contiguous") ? 1 : 4. / 7, 1e-12);
        cr_assert(forward >= least && forward <= law, "%s: %g", order, forward);
        cr_assert(backward >= least && backward <= law, "%s: %g", order, backward);
        cr_assert_eq(number(line, "sent MB"), number(line, "by formula"));
    }
    json_decref(table);
}

// 989.4 TFLOP/s of which attention reaches 0.655; launches come on top.
Test(context_command, charges_for_tensor_cores)
{
    double T = 16384, pairs = T * (T + 1) / 2, rate = 989.4e12 * 0.655;
    json_t *table = ask(1, "--way ring --order zigzag --heads 2 --kv-heads 1 "
                           "--tokens 16384 --tensor-cores");
    const json_t *line = json_array_get(table, 0);
    double least = 4 * pairs * 2 * 128 / rate * 1e3, got = number(line, "forward ms");
    cr_assert(got >= least && got <= 1.1 * least, "%g instead of %g", got, least);
    got = number(line, "backward ms");
    cr_assert(got >= 2.5 * least && got <= 2.6 * least, "%g: %g", got, 2.5 * least);
    json_decref(table);
    outcome o = run_program("build/bin/dls context --dtype f32 --tensor-cores");
    cr_assert(o.exit_code != 0 && strstr(o.output, "expected --dtype bf16, got f32"));
}

Test(context_command, refuses_with_one_line)
{
    outcome o = run_program("build/bin/dls run -n 3 -- context --way ulysses");
    cr_assert_neq(o.exit_code, 0);
    cr_assert(strstr(o.output, "3 ranks can not share 8 heads with 2 of keys; the "
                               "nearest that works is 1"), "%s", o.output);
    o = run_program("build/bin/dls context --order random");
    cr_assert(o.exit_code != 0 && strstr(o.output, "--order zigzag, contiguous"));
    o = run_program("build/bin/dls context --help");
    cr_assert(o.exit_code == 0 && strstr(o.output, "dls run -n 4 -- context"));
}
