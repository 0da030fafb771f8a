/* tests/parallel/test_pipeline_command.c: from chapters/05-pipeline-command-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* dls schedule as other programs see it. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cli/program.h"

#include "base/file.h"

/* ask dls schedule */
/* The JSON that the command prints; the caller drops it. */
static json_t *ask(const char *options)
{
    outcome o = run_program("build/bin/dls schedule %s --json", options);
    json_error_t error;
    cr_assert_eq(o.exit_code, 0, "%s: %s", options, o.output);
    json_t *j = json_loads(o.output, 0, &error);
    cr_assert(j, "%s: %s in %s", options, error.text, o.output);
    return j;
}

/* One field, as compact JSON. */
static void expect_field(const json_t *j, const char *key, const char *expected)
{
    json_t *value = json_object_get(j, key);
    cr_assert(value, "no %s", key);
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    cr_assert_str_eq(text, expected, "%s is %s", key, text);
    free(text);
}

static double real(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

/* test the contract */
Test(pipeline_command, the_contract_field_by_field)
{
    json_t *j = ask("1f1b --stages 2 --microbatches 2 --cost 1,2,1/2,0.25");
    expect_field(j, "schedule", "\"1f1b\"");
    expect_field(j, "stages", "2");
    expect_field(j, "microbatches", "2");
    expect_field(j, "chunks", "1");
    expect_field(j, "makespan", "11");
    expect_field(j, "span", "11");
    expect_field(j, "ideal", "7");
    expect_field(j, "idle", "[4,4]");
    cr_assert_eq(real(j, "bubble_over_ideal"), 4.0 / 7);
    cr_assert_eq(real(j, "bubble_over_total"), 4.0 / 11);
    cr_assert_eq(real(j, "bubble_over_span"), 4.0 / 11);
    expect_field(j, "peak", "[2,1]");
    expect_field(j, "order", "[[\"0F0\",\"0F1\",\"0B0\",\"0B1\"],"
                 "[\"1F0\",\"1B0\",\"1F1\",\"1B1\"]]");
    expect_field(j, "parameters", "1");
    expect_field(j, "peak_of", "\"stage\"");
    cr_assert_eq(json_object_size(j), 15);
    json_decref(j);
}
Test(pipeline_command, numbers_are_exact)
{
    json_t *j = ask("gpipe --stages 3 --microbatches 1 --cost 1/3,1/3,1/3");
    expect_field(j, "makespan", "3");  // nine times a third
    expect_field(j, "ideal", "1");
    expect_field(j, "idle", "[2,2,2]");
    expect_field(j, "bubble_over_ideal", "2");
    json_decref(j);
    j = ask("gpipe --stages 3 --microbatches 1 --cost 1/3,1/8,1/8");
    cr_assert_eq(real(j, "makespan"), 1.75);
    cr_assert_eq(real(j, "ideal"), 7.0 / 12);
    json_decref(j);
    j = ask("interleaved --stages 8 --microbatches 16 --chunks 2");
    expect_field(j, "peak", "[11.5,10.5,9.5,8.5,7.5,6.5,5.5,4.5]");
    expect_field(j, "makespan", "117");
    expect_field(j, "ideal", "96");
    expect_field(j, "idle", "[21,21,21,21,21,21,21,21]");
    json_decref(j);
}

Test(pipeline_command, memory_is_of_a_stage)
{
    json_t *j = ask("interleaved --stages 8 --microbatches 16 --chunks 2 --memory 3");
    expect_field(j, "peak", "[34.5,31.5,28.5,25.5,22.5,19.5,16.5,13.5]");
    json_decref(j);
    j = ask("zb-h1 --stages 4 --microbatches 8 --memory 1,0");
    expect_field(j, "peak", "[4,3,2,1]");
    json_decref(j);
    j = ask("zb-h1 --stages 4 --microbatches 8");
    expect_field(j, "peak", "[4,4,4,4]");
    json_decref(j);
}

/* test the defaults */
Test(pipeline_command, defaults_are_one_each)
{
    json_t *j = ask("gpipe --stages 4 --microbatches 8");
    expect_field(j, "makespan", "33");
    expect_field(j, "idle", "[9,9,9,9]");
    expect_field(j, "peak", "[8,8,8,8]");
    cr_assert_eq(real(j, "bubble_over_ideal"), 3.0 / 8);
    cr_assert_eq(real(j, "bubble_over_total"), 3.0 / 11);
    json_decref(j);
    j = ask("interleaved --stages 2 --microbatches 4");
    expect_field(j, "chunks", "2");
    json_decref(j);
}

/* The span is shorter than the makespan where steps abut as parallelograms. */
Test(pipeline_command, three_conventions_of_the_bubble)
{
    json_t *j = ask("zb-h2 --stages 4 --microbatches 8");
    expect_field(j, "makespan", "27");
    expect_field(j, "span", "24");
    expect_field(j, "ideal", "24");
    expect_field(j, "bubble_over_ideal", "0.125");
    cr_assert_eq(real(j, "bubble_over_total"), 3.0 / 27);
    expect_field(j, "bubble_over_span", "0");
    json_decref(j);
}

Test(pipeline_command, nothing_to_do_has_no_bubble)
{
    json_t *j = ask("gpipe --stages 2 --microbatches 1 --cost 0,0,0");
    expect_field(j, "makespan", "0");
    expect_field(j, "bubble_over_ideal", "null");
    json_decref(j);
}
Test(pipeline_command, one_stage_may_cost_more)
{
    json_t *j = ask("gpipe --stages 2 --microbatches 2 --stage-cost 1:3,3,3");
    expect_field(j, "makespan", "21");
    expect_field(j, "ideal", "18");
    expect_field(j, "idle", "[15,3]");
    json_decref(j);
    outcome o = run_program("build/bin/dls schedule gpipe --stages 2 --microbatches 2 "
                            "--stage-cost 2:3,3,3");
    cr_assert(o.exit_code == 2 && strstr(o.output, "expected a stage from 0 to 1, got 2"),
              "%s", o.output);
}

Test(pipeline_command, comparing)
{
    json_t *j = ask("--compare gpipe,1f1b,bfs --stages 4 --microbatches 8");
    cr_assert_eq(json_array_size(j), 3);
    expect_field(json_array_get(j, 1), "schedule", "\"1f1b\"");
    expect_field(json_array_get(j, 0), "peak", "[8,8,8,8]");
    expect_field(json_array_get(j, 1), "peak", "[4,3,2,1]");
    cr_assert_eq(real(json_array_get(j, 2), "makespan"), 57);
    json_decref(j);
}

/* test the command with files */
static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

Test(pipeline_command, export_and_import)
{
    char *folder = fresh_directory("schedule"), options[512];
    snprintf(options, sizeof options,
             "zb-h1 --stages 4 --microbatches 8 --cost 3,2,1,1 --csv %s/own.csv", folder);
    json_t *made = ask(options);
    snprintf(options, sizeof options, "%s/own.csv --cost 3,2,1,1", folder);
    json_t *read = ask(options);
    static const char *const same[] = {"stages", "microbatches", "chunks", "makespan",
                                       "span", "ideal", "idle", "peak", "order"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        cr_assert(json_equal(json_object_get(made, same[i]),
                             json_object_get(read, same[i])), "%s", same[i]);
    json_decref(made);
    json_decref(read);
    free(folder);
}

Test(pipeline_command, two_drawings_at_once)
{
    char *folder = fresh_directory("drawings"), path[512];
    outcome o = run_program("build/bin/dls schedule 1f1b --stages 2 --microbatches 1 "
                            "--terminal --draw %s/own.svg", folder);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    cr_assert(strstr(o.output, "rank 1 .. F0 B0 == .. .."), "%s", o.output);
    snprintf(path, sizeof path, "%s/own.svg", folder);
    char *svg = NULL;
    size_t size;
    cr_assert_eq(dls_file_read(path, &svg, &size), DLS_OK, "%s", dls_status_message());
    cr_assert(strncmp(svg, "<svg", 4) == 0, "%.60s", svg);
    free(svg);
    free(folder);
}
Test(pipeline_command, a_wrong_file_is_named_with_its_line)
{
    char *folder = fresh_directory("schedule"), path[512];
    snprintf(path, sizeof path, "%s/own.csv", folder);
    write_text(path, "0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n");
    outcome o = run_program("build/bin/dls schedule %s --json", path);
    cr_assert_eq(o.exit_code, 2);
    cr_assert(strstr(o.output, "own.csv:1: ranks wait for each other: rank 0 waits at "
                     "0B0 for 1B0, which rank 1 has behind 1F1; rank 1 waits at 1F1 for "
                     "0F1, "
                     "which rank 0 has behind 0B0\n"), "%s", o.output);
    write_text(path, "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1F1,1B1\n");
    o = run_program("build/bin/dls schedule %s --csv %s/other.csv", path, folder);
    cr_assert(o.exit_code == 2 && strstr(o.output, "own.csv:2: rank 1: 1F1 stands there "
                                         "twice: as action 3 and as action 4"), "%s",
              o.output);
    o = run_program("ls %s", folder);
    cr_assert_str_eq(o.output, "own.csv\n");  // nothing was written
    o = run_program("build/bin/dls schedule gpipe --stages 2 --microbatches 2 --csv "
                    "%s/missing/x.csv", folder);
    cr_assert(o.exit_code == 1 && strstr(o.output, "missing/x.csv"), "%s", o.output);
    free(folder);
}

/* test what the command refuses */
static const char *const nonsense[][2] = {
    {"", "expected a schedule's NAME or --compare"},
    {"gpipe --compare 1f1b --stages 2 --microbatches 2", "expected a schedule's NAME or"},
    {"gpipe", "--stages"},
    {"gpipe --stages 4", "--microbatches"},
    {"gpipe --stages 0 --microbatches 4", "--stages: expected a number from 1 to 4096"},
    {"gpipe --stages -4 --microbatches 4",
     "--stages: expected a number from 1 to 4096, got -4"},
    {"gpipe --stages 4097 --microbatches 4", "expected a number from 1 to 4096"},
    {"gpipe --stages 4 --microbatches 99999999999", "--microbatches: expected"},
    {"gpipe --stages 4096 --microbatches 4096", "16777216 passes"},
    {"gpipe --stages 4 --microbatches 4 --chunks 2", "gpipe: expected 1 chunk, got 2"},
    {"interleaved --stages 4 --microbatches 4 --chunks 9000", "chunks: expected"},
    {"gpipe --stages 4 --microbatches 4 --cost 1,2", "--cost: expected 3 to 4 numbers"},
    {"gpipe --stages 4 --microbatches 4 --cost 1,-2,3", "--cost: expected 3 to 4 num"},
    {"gpipe --stages 4 --microbatches 4 --overlap-cost 0", "--overlap-cost: expected"},
    {"gpipe --stages 4 --microbatches 4 --memory 1,2", "--memory: expected to keep no"},
    {"gpipe --stages 64 --microbatches 60000 --cost 1000000000000000,1,1",
     "cost of F: expected 0 to"},
    {"gpipe --stages 4 --microbatches 4 --limit 3",
     "gpipe: rank 0: 0F3 raises the memory to 4"},
    {"1f1p --stages 4 --microbatches 4", "no schedule '1f1p', did you mean '1f1b'?"},
    {"none.csv", "none.csv"},
    {"--compare gpipe,,1f1b --stages 4 --microbatches 4", "no schedule ''"},
};

Test(pipeline_command, nonsense_gets_one_line)
{
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        outcome o = run_program("build/bin/dls schedule %s --json", nonsense[i][0]);
        int missing = strcmp(nonsense[i][0], "none.csv") == 0;
        cr_assert_eq(o.exit_code, missing ? 1 : 2, "%s: %s", nonsense[i][0], o.output);
        cr_assert(strstr(o.output, nonsense[i][1]), "%s: %s", nonsense[i][0], o.output);
        cr_assert_eq(strchr(o.output, '\n'), o.output + strlen(o.output) - 1, "%s",
                     o.output);
    }
}
