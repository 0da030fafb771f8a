/* tests/cli/test_router.c: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* dls router, and what dls train says of experts. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

#define DLS "build/bin/dls"

/* test the router command */
static json_t *route(const char *scores, const char *options)
{
    char *dir = fresh_directory("router"), path[300];
    snprintf(path, sizeof path, "%s/scores.txt", dir);
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(scores, f) >= 0 && fclose(f) == 0);
    outcome o = run_program(DLS " router --scores %s %s --json", path, options);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    json_t *root = json_loads(o.output, 0, NULL);
    cr_assert(root, "no JSON: %s", o.output);
    free(dir);
    return root;
}

static double number(const json_t *root, const char *table, int row, const char *key)
{
    json_t *at = json_object_get(root, table);
    json_t *from = row < 0 ? at : json_array_get(at, row);
    return json_number_value(json_object_get(from, key));
}

Test(cli, router_routes_given_scores)
{
    /* two tokens, three experts, weights that are the scores */
    json_t *r = route("# who\n 3 1 2\n\n 5 1 4  # last\n",
                      "--chosen 2 --gate identity --plain --capacity 0.75");
    static const int expert[] = {0, 2, 0, 2}, load[] = {2, 0, 2}, lost[] = {1, 0, 1};
    static const double weight[] = {3, 2, 5, 4};
    for (int i = 0; i < 4; i++) {
        cr_expect_eq(number(r, "tokens", i, "expert"), expert[i]);
        cr_expect_eq(number(r, "tokens", i, "weight"), weight[i]);
    }
    for (int e = 0; e < 3; e++) {
        cr_expect_eq(number(r, "experts", e, "chosen"), load[e]);
        cr_expect_eq(number(r, "experts", e, "dropped"), lost[e]);
    }
    cr_expect_eq(number(r, "sums", -1, "dropped"), 0.5);
    cr_expect_eq(number(r, "sums", -1, "violation"), 0.5);
    json_decref(r);
}
Test(cli, router_steps_the_bias)
{
    json_t *r = route("4 3 0\n4 3 0\n4 3 0\n",
                      "--chosen 1 --gate identity --bias-rate 0.75 --steps 3");
    /* to expert 0; with -0.75, 0.75, 0.75 to expert 1; with 0, 0, 1.5 back to 0 */
    static const double bias[] = {0, 0, 1.5}, chosen[] = {3, 0, 0};
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(number(r, "steps", i, "most"), 3);
        cr_expect_eq(number(r, "experts", i, "bias"), bias[i]);
        cr_expect_eq(number(r, "experts", i, "chosen"), chosen[i]);
    }
    json_decref(r);
}
/* test what the router command refuses */
Test(cli, router_refuses_in_one_line)
{
    program_says(DLS " router", "--help", 0, "dls router --tokens 64");
    program_says(DLS " router", "--chosen 9", 2,
                 "error: dls router: --chosen: expected 1 to 8, got 9");
    program_says(DLS " router", "--gate tanh", 2, "--gate: expected softmax, sigmoid or "
                 "identity, got \"tanh\"");
    program_says(DLS " router", "--padded", 2, "--padded: expected a --capacity");
    program_says(DLS " router", "--steps 0", 2, "--steps: expected 1 to 10000, got 0");
    program_says(DLS " router", "--capacity -1", 2, "--capacity: expected 0 to 1000");
    program_says(DLS " router", "--experts 4294967297", 2, "--experts: expected 1 to");
    program_says(DLS " router", "--groups 4", 2, "group_limit: expected 1 to 4, since");
    program_says(DLS " router", "--scores /nowhere", 1, "/nowhere");
    program_says("printf '1 2\n1 2 3\n' | " DLS " router", "--scores /dev/stdin", 2,
                 "/dev/stdin:2: expected 2 numbers");
    program_says("printf '1 2\n1 nan\n' | " DLS " router", "--scores /dev/stdin", 2,
                 "/dev/stdin:2: expected finite scores, got nan");
    program_says("echo 1 x 2 | " DLS " router", "--scores /dev/stdin", 2,
                 "/dev/stdin:1: expected 1 to 1024 numbers");
}
/* test the log of experts */
static double chosen_in_last_step(const char *dir)
{
    char path[300], *text, *last = NULL;
    size_t size;
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    text = read_whole(path, &size);
    cr_assert(text, "no %s", path);
    for (char *at = text; (at = strstr(at, "\"chosen\":[")); at++)
        last = at + strlen("\"chosen\":[");
    cr_assert(last, "no loads in %s", path);
    double sum = 0;
    for (char *at = last; at[-1] != ']'; at++)
        sum += strtod(at, &at);
    free(text);
    return sum;
}

static void log_of(int ranks)
{
    char *dir = fresh_directory("moe");
    outcome o = run_program(DLS " run -n %d -- train --config tests/cli/small.yaml "
                            "--set model.moe.experts=4 --set model.moe.chosen=2 "
                            "--set model.moe.bias_rate=0.001 --set train.steps=3 "
                            "--output %s", ranks, dir);
    cr_expect_eq(o.exit_code, 0, "%s", o.output);
    cr_expect(strstr(o.output, "  experts "), "%s", o.output);
    cr_expect(strstr(o.output, " of their mean, 0.0 % dropped"), "%s", o.output);
    cr_expect_eq(chosen_in_last_step(dir), 12 * 16 * 2, "%d ranks", ranks);
    free(dir);
}

Test(cli, training_tells_how_full_experts_are)
{
    log_of(1);
    log_of(2);
}
