/* tests/cli/test_commands.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* dls: its help, its refusals, and the commands that need no model. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

#define DLS "build/bin/dls"

/* test the dispatch */
Test(cli, help_lists_every_command)
{
    outcome o = run_program(DLS " --help");
    cr_expect_eq(o.exit_code, 0);
    const char *names[] = {"run", "train", "sample", "metrics", "memory", "ladder",
                           "cluster", "flight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_expect(strstr(o.output, names[i]), "no %s in:\n%s", names[i], o.output);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        outcome h = run_program(DLS " %s --help", names[i]);
        cr_expect_eq(h.exit_code, 0, "%s --help", names[i]);
        cr_expect(strstr(h.output, "xample"), "no example in:\n%s", h.output);
    }
}

Test(cli, no_command_and_unknown_command)
{
    cr_expect_eq(run_program(DLS).exit_code, 2);
    outcome o = run_program(DLS " trian");
    cr_expect_eq(o.exit_code, 2);
    cr_expect_str_eq(o.output, "dls: no command 'trian', did you mean 'train'?; "
                               "`dls --help` lists them\n");
    cr_expect(strstr(run_program(DLS " xyzzy").output, "no command 'xyzzy';"));
}

Test(cli, a_full_disk_is_not_success)
{
    outcome o = run_program(DLS " --help > /dev/full");
    cr_expect_eq(o.exit_code, 1);
}

/* test the metrics command */
static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

Test(cli, metrics_prints_columns_and_passes_over_a_torn_last_line)
{
    char *dir = fresh_directory("metrics"), path[300];
    snprintf(path, sizeof path, "%s/m.jsonl", dir);
    write_text(path, "{\"step\": 1, \"loss\": 5.5}\n"
                     "{\"step\": 2, \"loss\": 5.25, \"v\": 1}\n"
                     "{\"step\": 3, \"lo");
    outcome o = run_program(DLS " metrics %s --columns step,loss --json", path);
    cr_expect_eq(o.exit_code, 0);
    cr_expect(strstr(o.output, "5.5") && strstr(o.output, "5.25"), "%s", o.output);
    outcome v = run_program(DLS " metrics %s --columns step,v", path);
    cr_expect(!strstr(v.output, "5.5"), "%s", v.output);
    outcome e = run_program(DLS " metrics %s --columns step,loss --every 2", path);
    cr_expect(strstr(e.output, "5.25") && !strstr(e.output, "5.5\n"), "%s", e.output);
    free(dir);
}

Test(cli, metrics_names_the_bad_line)
{
    char *dir = fresh_directory("metrics"), path[300], expected[400];
    snprintf(path, sizeof path, "%s/m.jsonl", dir);
    write_text(path, "{\"step\": 1}\nnot json\n{\"step\": 3}\n");
    outcome o = run_program(DLS " metrics %s", path);
    snprintf(expected, sizeof expected, "%s:2: expected a JSON object", path);
    cr_expect_eq(o.exit_code, 2);
    cr_expect(strstr(o.output, expected), "%s", o.output);
    outcome missing = run_program(DLS " metrics %s/none", dir);
    cr_expect_eq(missing.exit_code, 1);
    cr_expect(strstr(missing.output, "none"), "%s", missing.output);
    free(dir);
}

/* test the run command */
Test(cli, run_gives_every_rank_its_number)
{
    outcome o = run_program(DLS " run -n 3 -- sh -c 'echo rank $DLS_RANK of "
                                "$DLS_WORLD_SIZE' | sort");
    cr_expect_str_eq(o.output, "rank 0 of 3\nrank 1 of 3\nrank 2 of 3\n");
}

Test(cli, run_passes_on_the_first_failure)
{
    outcome o = run_program(DLS " run -n 3 -- sh -c 'test $DLS_RANK != 1 && sleep 9; "
                                "exit 7'");
    cr_expect_eq(o.exit_code, 7);
    cr_expect(strstr(o.output, "rank 1"), "%s", o.output);
}

Test(cli, run_refuses_nonsense)
{
    cr_expect_eq(run_program(DLS " run -n 0 -- true").exit_code, 2);
    cr_expect_eq(run_program(DLS " run -n 2").exit_code, 2);
    cr_expect_eq(run_program(DLS " run -n 2 -- ./no-such-program").exit_code, 127);
}

Test(cli, cluster_prints_a_path)
{
    outcome o = run_program(DLS " cluster a100-pcie-pairs --from 1 --to 2 --bytes 1e6");
    cr_expect_eq(o.exit_code, 0);
    cr_expect(strstr(o.output, "CPU 0     CPU 1         2.85  21.76"), "%s", o.output);
    cr_expect(strstr(o.output, "14.25  21.76  60.21"), "%s", o.output);
    o = run_program(DLS " cluster dgx-h100");
    cr_expect(strstr(o.output, "gemm_fp8") && !strstr(o.output, "gemm_fp4"), "%s",
              o.output);
    cr_expect_eq(run_program(DLS " cluster dgx-h100 --from 0").exit_code, 2);
    cr_expect_eq(run_program(DLS " cluster dgx-h100 --from 0 --to 8").exit_code, 2);
    cr_expect_eq(run_program(DLS " cluster dgx-h1000").exit_code, 2);
}
