/* tests/base/test_config.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Configuration: values, and every message with its line. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/suggest.h"
#include "expect.h"

/* parse the example */
static dls_config *parsed(const char *text)
{
    dls_config *cfg = NULL;
    EXPECT_OK(dls_config_parse("t.yaml", text, strlen(text), &cfg));
    cr_assert_not_null(cfg);
    return cfg;
}

static const char *const example =
    "train:\n"               // line 1
    "  steps: many\n"
    "  rate: 3e-4\n"
    "  betas: [0.9, 0.95]\n"
    "  clip: nan\n"          // 5
    "  seed: 99999999999999999999\n"
    "  warm:\n"
    "name: \"a b\"\n"
    "flash: on\n"
    "kind: adam\n";          // 10

/* test the values */
Test(base, config_values)
{
    dls_config *cfg = parsed(example);
    double rate, beta;
    int flash, count, kind;
    const char *name;
    int64_t batch;
    EXPECT_OK(dls_config_real(cfg, "train.rate", 0, 1, &rate));
    EXPECT_OK(dls_config_count(cfg, "train.betas", &count));
    EXPECT_OK(dls_config_real(cfg, "train.betas.1", 0, 1, &beta));
    EXPECT_OK(dls_config_string(cfg, "name", &name));
    EXPECT_OK(dls_config_bool(cfg, "flash", &flash));
    EXPECT_OK(dls_config_choice(cfg, "kind", "sgd|adam", &kind));
    EXPECT_OK(dls_config_int_or(cfg, "train.batch", 1, 64, 8, &batch));
    cr_expect(rate == 3e-4 && beta == 0.95 && flash == 1 && count == 2 && kind == 1);
    cr_expect_str_eq(name, "a b");
    cr_expect_eq(batch, 8);
    cr_expect(dls_config_has(cfg, "train.rate") && !dls_config_has(cfg, "rate"));
    dls_config_free(cfg);
}

/* test refused values */
Test(base, config_refuses_integers)
{
    dls_config *cfg = parsed(example);
    int64_t v;
    EXPECT_ERROR(dls_config_int(cfg, "train.steps", 1, 1000000, &v), DLS_ERR_INPUT,
                 "t.yaml:2: train.steps: expected an integer between 1 and 1000000, "
                 "got \"many\"");
    EXPECT_ERROR(dls_config_int(cfg, "train.rate", 1, INT64_MAX, &v), DLS_ERR_INPUT,
                 "t.yaml:3: train.rate: expected an integer of at least 1, got \"3e-4\"");
    EXPECT_ERROR(dls_config_int(cfg, "train.seed", INT64_MIN, INT64_MAX, &v),
                 DLS_ERR_INPUT, "t.yaml:6: train.seed: expected an integer, "
                                "got \"99999999999999999999\"");
    EXPECT_ERROR(dls_config_int_or(cfg, "train.warm", INT64_MIN, 5, 1, &v), DLS_ERR_INPUT,
                 "t.yaml:7: train.warm: expected an integer of at most 5, got nothing");
    EXPECT_ERROR(dls_config_int(cfg, "train.batch", 1, 8, &v), DLS_ERR_INPUT,
                 "t.yaml: train.batch: missing; expected an integer between 1 and 8");
    dls_config_free(cfg);
}

Test(base, config_refuses_other_values)
{
    dls_config *cfg = parsed(example);
    double r;
    int b;
    const char *s;
    EXPECT_ERROR(dls_config_real(cfg, "train.clip", 0, INFINITY, &r), DLS_ERR_INPUT,
                 "t.yaml:5: train.clip: expected a number of at least 0, got \"nan\"");
    EXPECT_ERROR(dls_config_real(cfg, "train.rate", 0.5, 1, &r), DLS_ERR_INPUT,
                 "t.yaml:3: train.rate: expected a number between 0.5 and 1, "
                 "got \"3e-4\"");
    EXPECT_ERROR(dls_config_string(cfg, "train", &s), DLS_ERR_INPUT,
                 "t.yaml:2: train: expected a text, got a section");
    EXPECT_ERROR(dls_config_bool(cfg, "train.betas", &b), DLS_ERR_INPUT,
                 "t.yaml:4: train.betas: expected true or false, got a list");
    EXPECT_ERROR(dls_config_choice(cfg, "kind", "sgd|adamw", &b), DLS_ERR_INPUT,
                 "t.yaml:10: kind: expected one of sgd|adamw, got \"adam\"");
    EXPECT_ERROR(dls_config_count(cfg, "kind", &b), DLS_ERR_INPUT,
                 "t.yaml:10: kind: expected a list, got \"adam\"");
    EXPECT_ERROR(dls_config_fail(cfg, "kind", "must divide %d", 3), DLS_ERR_INPUT,
                 "t.yaml:10: kind: must divide 3");
    dls_config_free(cfg);
}

/* test refused files */
static void expect_refused(const char *text, const char *words)
{
    dls_config *cfg = NULL;
    EXPECT_ERROR(dls_config_parse("t.yaml", text, strlen(text), &cfg), DLS_ERR_INPUT,
                 words);
    cr_expect_null(cfg);
}

Test(base, config_refuses_files)
{
    expect_refused("a: 1\nb: 2\na: 3\n", "t.yaml:3: a: given twice, first in line 1");
    expect_refused("- 1\n", "t.yaml:1: expected lines of the form \"name: value\"");
    expect_refused("a: 1\n---\nb: 2\n",
                   "t.yaml:3: expected one YAML document, got a second");
    expect_refused("a: 1\nb: \xff\n",
                   "t.yaml:2: not valid YAML: invalid leading UTF-8 octet");
    expect_refused("a: 1\n  b: 2\n",
                   "t.yaml:2: not valid YAML: mapping values are not allowed in this "
                   "context");
    expect_refused("? [1, 2]\n: x\n", "t.yaml:1: expected a name before the colon");
}

Test(base, config_refuses_endless_files)
{
    expect_refused("a: &x\n  b: *x\n", "t.yaml:1: a.b.b.b.b.b.b.b.b.b.b.b.b.b.b.b.b...: "
                                        "nested too deeply");
    char bomb[1024] = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
    for (int i = 1; i < 10; i++)
        sprintf(bomb + strlen(bomb),
                "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1,
                i - 1, i - 1, i - 1, i - 1, i - 1);
    expect_refused(bomb, "t.yaml:1: more than 10000 values");
}

Test(base, config_file_must_be_readable)
{
    dls_config *cfg;
    EXPECT_ERROR(dls_config_load("/nowhere/t.yaml", &cfg), DLS_ERR_IO,
                 "/nowhere/t.yaml: cannot open: No such file or directory");
    EXPECT_ERROR(dls_config_load("/tmp", &cfg), DLS_ERR_IO,
                 "/tmp: cannot read: Is a directory");
}

/* test overrides */
Test(base, config_overrides)
{
    dls_config *cfg = parsed(example);
    int64_t v;
    EXPECT_OK(dls_config_override(cfg, "train.steps=10"));
    EXPECT_OK(dls_config_override(cfg, "train.batch=x=y"));
    EXPECT_OK(dls_config_int(cfg, "train.steps", 1, 100, &v));
    cr_expect_eq(v, 10);
    EXPECT_ERROR(dls_config_int(cfg, "train.batch", 1, 100, &v), DLS_ERR_INPUT,
                 "override: train.batch: expected an integer between 1 and 100, "
                 "got \"x=y\"");
    EXPECT_ERROR(dls_config_override(cfg, "train=3"), DLS_ERR_INPUT,
                 "override: train: is a section; override its parts, as in "
                 "train.NAME=...");
    EXPECT_ERROR(dls_config_override(cfg, "train.betas=3"), DLS_ERR_INPUT,
                 "override: train.betas: is a list; override its parts, as in "
                 "train.betas.0=...");
    EXPECT_ERROR(dls_config_override(cfg, "=3"), DLS_ERR_INPUT,
                 "override: expected KEY=VALUE, got \"=3\"");
    EXPECT_ERROR(dls_config_override(cfg, "steps"), DLS_ERR_INPUT,
                 "override: expected KEY=VALUE, got \"steps\"");
    dls_config_free(cfg);
}

/* test unknown keys */
static void ask_for_steps_and_rate(dls_config *cfg)
{
    int64_t steps;
    double rate;
    EXPECT_OK(dls_config_int_or(cfg, "train.steps", 1, 10, 1, &steps));
    EXPECT_OK(dls_config_real_or(cfg, "train.learning_rate", 0, 1, 0, &rate));
}

static void expect_unknown(const char *text, const char *words)
{
    dls_config *cfg = parsed(text);
    ask_for_steps_and_rate(cfg);
    EXPECT_ERROR(dls_config_check_unused(cfg), DLS_ERR_INPUT, words);
    dls_config_free(cfg);
}

Test(base, config_unknown_keys)
{
    expect_unknown("train:\n  steps: 1\n  learning_rat: 1\n",
                   "t.yaml:3: train.learning_rat: unknown key; did you mean "
                   "train.learning_rate?");
    expect_unknown("trian:\n  steps: 1\n  x: 2\n",
                   "t.yaml:2: trian: unknown key; did you mean train?");
    expect_unknown("colour: red\ntrain: 3\n",
                   "t.yaml:1: colour: unknown key (and 1 more unknown)");
    dls_config *cfg = parsed("train:\n  steps: 1\n");
    ask_for_steps_and_rate(cfg);
    EXPECT_OK(dls_config_check_unused(cfg));
    dls_config_free(cfg);
}

Test(base, suggest_the_nearest)
{
    const char *const words[] = {"--steps", "--seed", "--json"};
    cr_expect_str_eq(dls_suggest("--setps", words, 3), "--steps");
    cr_expect_str_eq(dls_suggest("--sed", words, 3), "--seed");
    cr_expect_null(dls_suggest("--verbose", words, 3));
    cr_expect_null(dls_suggest("x", words, 0));
}
