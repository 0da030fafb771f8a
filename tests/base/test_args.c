/* tests/base/test_args.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* The command line: values, help text, and every message. */
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "expect.h"

#include <criterion/redirect.h>  // only works behind criterion.h

/* describe a command */
static int64_t ranks = 1;
static double rate = 0.5;
static int json;
static const char *path, *other;
static dls_arg_list sets;
static char **rest;
static int helped;

static const dls_arg args[] = {
    {"-n|--ranks", DLS_ARG_INT, &ranks, "N", "how many processes"},
    {"--rate", DLS_ARG_REAL, &rate, "R", "the rate"},
    {"--json", DLS_ARG_FLAG, &json, NULL, "print JSON"},
    {"--set", DLS_ARG_LIST, &sets, "KEY=VALUE", "override a value"},
    {"FILE", DLS_ARG_STRING, &path, NULL, "what to read"},
    {"[OTHER]", DLS_ARG_STRING, &other, NULL, "and this"},
};
static const dls_args spec = {"dls test", "Tests the parser.", "dls test -n 4 x", args,
                              6};

static const dls_arg run_args[] = {
    {"-n", DLS_ARG_INT, &ranks, "N", "how many processes"},
    {"COMMAND", DLS_ARG_REST, &rest, NULL, "what to run"},
};
static const dls_args run_spec = {"dls run", "Runs.", "dls run -n 4 -- x", run_args, 2};

#define PARSE(spec, ...)                                                      \
    dls_args_parse(&(spec), sizeof((char *[]){"x", __VA_ARGS__}) / sizeof(char *), \
                   (char *[]){"x", __VA_ARGS__}, &helped)

/* test arguments */
Test(base, args_values)
{
    EXPECT_OK(PARSE(spec, "-n", "4", "in", "--rate=-2.5", "--set", "a=1", "--json",
                    "--set=b=2", "--", "--json"));
    cr_expect(ranks == 4 && rate == -2.5 && json == 1 && !helped);
    cr_expect_str_eq(path, "in");
    cr_expect_str_eq(other, "--json");
    cr_expect_eq(sets.count, 2);
    cr_expect_str_eq(sets.values[1], "b=2");
}

Test(base, args_rest_belongs_to_the_other_command)
{
    char *argv[] = {"run", "-n", "3", "--", "train", "-n", "8", "--help"};
    EXPECT_OK(dls_args_parse(&run_spec, 8, argv, &helped));
    cr_expect(ranks == 3 && rest == argv + 4 && !helped);
    char *plain[] = {"run", "train", "--config", "x"};
    EXPECT_OK(dls_args_parse(&run_spec, 4, plain, &helped));
    cr_expect(rest == plain + 1);
}

Test(base, args_help, .init = cr_redirect_stdout)
{
    EXPECT_OK(PARSE(spec, "--help"));
    cr_expect(helped);
    fflush(stdout);
    cr_assert_stdout_eq_str("Usage: dls test [options] FILE [OTHER]\n"
                            "Tests the parser.\n\n"
                            "  -n, --ranks N    how many processes\n"
                            "  --rate R         the rate\n"
                            "  --json           print JSON\n"
                            "  --set KEY=VALUE  override a value\n"
                            "  FILE             what to read\n"
                            "  [OTHER]          and this\n"
                            "  -h, --help       show this text\n\n"
                            "Example:\n  dls test -n 4 x\n");
}

/* test argument errors */
Test(base, args_errors)
{
    EXPECT_ERROR(PARSE(spec, "--rnaks", "4"), DLS_ERR_INPUT,
                 "dls test: --rnaks: unknown option; did you mean --ranks?");
    EXPECT_ERROR(PARSE(spec, "-q"), DLS_ERR_INPUT, "dls test: -q: unknown option");
    EXPECT_ERROR(PARSE(spec, "-n", "four"), DLS_ERR_INPUT,
                 "dls test: -n|--ranks: expected an integer, got \"four\"");
    EXPECT_ERROR(PARSE(spec, "--rate", "inf"), DLS_ERR_INPUT,
                 "dls test: --rate: expected a number, got \"inf\"");
    EXPECT_ERROR(PARSE(spec, "in", "-n"), DLS_ERR_INPUT,
                 "dls test: -n|--ranks: expected a value (N) behind it");
    EXPECT_ERROR(PARSE(spec, "--json=yes"), DLS_ERR_INPUT,
                 "dls test: --json: takes no value, got \"yes\"");
    EXPECT_ERROR(PARSE(spec, "a", "b", "c"), DLS_ERR_INPUT,
                 "dls test: unexpected argument \"c\"");
    EXPECT_ERROR(PARSE(spec, "--json"), DLS_ERR_INPUT,
                 "dls test: FILE: missing (what to read); --help shows an example");
    EXPECT_ERROR(PARSE(run_spec, "-n", "2"), DLS_ERR_INPUT,
                 "dls run: COMMAND: missing (what to run); --help shows an example");
}
