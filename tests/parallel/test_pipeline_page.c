/* tests/parallel/test_pipeline_page.c: from chapters/05-pipeline-pictures-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The page answers what the program answers. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cli/program.h"
#include "parallel/pipeline/schedule.h"

/* compare page and program */
static const char *const shapes[] = {
    "--stages 1 --microbatches 1", "--stages 3 --microbatches 7 --cost 1,1/3,2.5,0.1",
    "--stages 4 --microbatches 8 --cost 1/7,1/7,1/7", "--stages 5 --microbatches 2",
    "--stages 4 --microbatches 12 --memory 3,1/3"};

/* The output, without the name of the command that stands before a refusal. */
static char *answer_of(const char *command, const char *words)
{
    outcome o = run_program("%s %s", command, words);
    char *text = strncmp(o.output, "error: ", 7) ? o.output : o.output + 7;
    if (strncmp(text, "dls schedule: ", 14) == 0)
        text += 14;
    text[strcspn(text, "\n")] = 0;
    return strdup(text);
}

static void expect_same(const char *words)
{
    char *ours = answer_of("build/bin/page json", words);
    char *theirs = answer_of("build/bin/dls schedule --json", words);
    cr_assert_str_eq(ours, theirs, "%s:\n%s\n%s", words, ours, theirs);
    cr_assert_gt(strlen(ours), 10);
    free(ours);
    free(theirs);
}

Test(pipeline_page, answers_as_the_program_does)
{
    char words[256];
    for (int i = 0; dls_schedule_at(i); i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
            snprintf(words, sizeof words, "%s %s", dls_schedule_at(i)->name, shapes[k]);
            expect_same(words);
        }
    expect_same("interleaved --stages 2 --microbatches 6 --chunks 3 --group 3");
    expect_same("chimera --stages 5 --microbatches 4");
    expect_same("dualpipe --stages 4 --microbatches 8 --overlap-cost 5/2");
    expect_same("dualpipev --stages 3 --microbatches 7 --cost 1/2,1,1/3,1/9");
    expect_same("1f1b --stages 3 --microbatchs 4");
    expect_same("1f1b --stages 0 --microbatches 4");
    expect_same("1f1b --stages 3");
    expect_same("1f1c --stages 3 --microbatches 4");
    expect_same("1f1b --stages 3 --microbatches 4 --cost 1,2");
    expect_same("1f1b --stages 3 --microbatches 4 --cost 1,2,-3");
    expect_same("1f1b --stages 3 --microbatches 99999999999999999999");
    expect_same("1f1b --stages 3 --microbatches 4 --memory 1,2");
    expect_same("1f1b --stages 3 --microbatches 4 --chunks 2");
}

Test(pipeline_page, draws_as_the_program_does)
{
    char *directory = fresh_directory("page");
    static const char *const words[] = {
        "1f1b --stages 4 --microbatches 8", "gpipe --stages 64 --microbatches 256",
        "chimera --stages 4 --microbatches 6 --cost 1,1/3,1/3,1/8",
        "dualpipe --stages 4 --microbatches 8 --overlap-cost 5/2"};
    for (int i = 0; i < 4; i++) {
        outcome o = run_program("build/bin/page svg %s > %s/a.svg && "
                                "build/bin/dls schedule %s --draw %s/b.svg > %s/log && "
                                "cmp %s/a.svg %s/b.svg",
                                words[i], directory, words[i], directory, directory,
                                directory, directory);
        cr_assert_eq(o.exit_code, 0, "%s", o.output);
    }
    free(directory);
}

Test(pipeline_page, has_a_library_that_agrees_with_the_real_one)
{
    outcome o = run_program("build/bin/page library");
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
}

Test(pipeline_page, checks_the_reader_s_own_orders)
{
    outcome o = run_program("build/bin/page json 'own --cost 1,1,1\n0F0,0F1,0B0,0B1\n"
                            "1F0,1B0,1F1,1B1\n'");
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    cr_assert(strstr(o.output, "\"makespan\":9,"), "%s", o.output);
    o = run_program("build/bin/page svg 'own\n0B0,0F0\n1F0,1B0\n'");
    cr_assert_eq(o.exit_code, 1);
    cr_assert(strstr(o.output, "0B0"), "%s", o.output);
    cr_assert_not(strstr(o.output, "<svg"));
    o = run_program("build/bin/page csv 1f1b --stages 2 --microbatches 1");
    cr_assert_str_eq(o.output, "0F0,0B0\n1F0,1B0\n");
    o = run_program("build/bin/page json gpipe --stages 4096 --microbatches 1024");
    cr_assert(strstr(o.output, "in a page"), "%s", o.output);
}

/* compare the module itself */
static int module_is_there(void)
{
    outcome o = run_program("command -v node > /dev/null && test -f %s && "
                            "test -z \"$(find code/parallel/pipeline code/base "
                            "-name '*.[ch]' -newer %s)\"",
                            "build/book/pipeline.wasm", "build/book/pipeline.wasm");
    return o.exit_code == 0;
}

Test(pipeline_page, and_so_does_the_module)
{
    if (!module_is_there())
        cr_skip("no node, or no module of these sources: make html builds it with clang");
    char *directory = fresh_directory("module"), path[256];
    snprintf(path, sizeof path, "%s/requests", directory);
    FILE *f = fopen(path, "w");
    cr_assert(f);
    for (int i = 0; dls_schedule_at(i); i++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
            fprintf(f, "%s %s\n", dls_schedule_at(i)->name, shapes[k]);
    fprintf(f, "1f1b --stages 3 --microbatchs 4\n1f1b --stages 64 --microbatches 1024\n");
    fclose(f);
    outcome o = run_program("cd %s && at=$OLDPWD && "
                            "node $at/tests/parallel/peer_page.js "
                            "$at/build/book/pipeline.wasm requests > ours; "
                            "while read -r line; do $at/build/bin/page json $line; done "
                            "< requests > theirs; cmp ours theirs", directory);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    free(directory);
}

#define LETTERS "build/bin/dls schedule 1f1b --stages 2 --microbatches 3 --terminal"

Test(pipeline_page, colours_only_where_they_are_wanted)
{
    outcome o = run_program("COLUMNS=50 " LETTERS);
    cr_assert(strstr(o.output, "rank 0 FF..BBFBB.BB  peak 2\n"), "%s", o.output);
    o = run_program("COLUMNS=80 " LETTERS);
    cr_assert(strstr(o.output, "rank 0 F0 F1 .. .. B0 == F2"), "%s", o.output);
    o = run_program("COLUMNS=80 script -qec '" LETTERS "' /dev/null");
    cr_assert(strstr(o.output, "rank 0 \x1b[97;44mF0 \x1b[0m"), "%s", o.output);
    o = run_program("NO_COLOR=1 COLUMNS=80 script -qec '" LETTERS "' /dev/null");
    cr_assert(strstr(o.output, "rank 0 F0 F1 .. .. B0 == F2"), "%s", o.output);
}
