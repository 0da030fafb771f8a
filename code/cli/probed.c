/* code/cli/probed.c: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* dls check and dls profile: run the probed form of a program, of a dls command, or of a
 * .cu file that is compiled for the occasion.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "cli/command.h"
#include "cli/toolchain.h"

/* compile for one run */
/* PROGRAM is a .cu file: makes FOLDER/NAME.probed and puts its path into out. */
static dls_status compile_for_a_run(const char *source, const char *folder, char *out)
{
    char output[PATH_MAX];
    const char *slash = strrchr(source, '/');
    build b = {.output = output, .forms = PROBED};
    DLS_TRY(toolchain_look_at(source));
    snprintf(output, sizeof output, "%s/%s", folder, slash ? slash + 1 : source);
    snprintf(out, PATH_MAX, "%.*s.probed", PATH_MAX - 8, output);
    words_add(&b.sources, "%s", source);
    dls_status status = toolchain_build(&b);
    words_free(&b.sources);
    return status;
}
/* find the probed sibling */
/* dls itself when PROGRAM is one of its commands, else PROGRAM.probed. */
static dls_status find_sibling(const char *program, int own, char *out)
{
    char path[PATH_MAX];
    ssize_t n = own ? readlink("/proc/self/exe", path, sizeof path - 1) : 0;
    if (own)
        path[n < 0 ? 0 : n] = 0;
    else
        snprintf(path, sizeof path, "%s%s", strchr(program, '/') ? "" : "./", program);
    size_t length = strlen(path);
    int is_one = length > 7 && !strcmp(path + length - 7, ".probed");
    snprintf(out, PATH_MAX, "%.*s%s", PATH_MAX - 8, path, is_one ? "" : ".probed");
    if (access(out, X_OK) == 0)
        return DLS_OK;
    if (!own && access(path, X_OK) != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: neither a program, a .cu file nor a dls "
                        "command", program);
    return DLS_FAIL(DLS_ERR_INPUT, "%s has no probed form beside it (%s): make it with "
                    "`dls cc`", program, out);
}
/* run with probes */
static dls_status run_probed(char **rest, int *exit_code)
{
    char folder[PATH_MAX] = "", program[PATH_MAX];
    const char *dot = strrchr(rest[0], '.');
    int own = command_find(rest[0]) != NULL && access(rest[0], X_OK) != 0;
    words w = {0};
    dls_status status;
    if (dot && !strcmp(dot, ".cu")) {
        DLS_TRY(toolchain_folder(folder, sizeof folder));
        status = compile_for_a_run(rest[0], folder, program);
    } else {
        status = find_sibling(rest[0], own, program);
    }
    words_add(&w, "%s", program);
    for (int i = own ? 0 : 1; rest[i]; i++)
        words_add(&w, "%s", rest[i]);
    if (status == DLS_OK)
        status = words_run(&w, exit_code);
    words_free(&w);
    if (folder[0])
        toolchain_remove(folder);
    return status;
}
/* check a program */
static dls_status set(const char *name, const char *value)
{
    if (value && setenv(name, value, 1) != 0)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the environment");
    return DLS_OK;
}

dls_status command_check(int argc, char **argv, int *exit_code)
{
    char **rest = NULL;
    const char *json = NULL;
    int helped;
    const dls_arg args[] = {
        {"--json", DLS_ARG_STRING, &json, "FILE", "also write the reports there"},
        {"PROGRAM", DLS_ARG_REST, &rest, NULL, "made by dls cc; or a .cu file; or a dls "
         "command; and its arguments"}};
    const dls_args spec = {"dls check", "Looks for wrong accesses, races and leaks.",
                           "dls check homework.cu", args, sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(set("DLS_CHECK", "1"));
    DLS_TRY(set("DLS_CHECK_JSON", json));
    return run_probed(rest, exit_code);
}
/* profile a program */
dls_status command_profile(int argc, char **argv, int *exit_code)
{
    char **rest = NULL;
    const char *json = NULL, *tsv = NULL;
    int helped, annotate = 0;
    const dls_arg args[] = {
        {"--json", DLS_ARG_STRING, &json, "FILE", "also write all counters there"},
        {"--tsv", DLS_ARG_STRING, &tsv, "FILE", "also write them line by line"},
        {"--annotate", DLS_ARG_FLAG, &annotate, NULL, "print the source beside them"},
        {"PROGRAM", DLS_ARG_REST, &rest, NULL, "made by dls cc; or a .cu file; or a dls "
         "command; and its arguments"}};
    const dls_args spec = {"dls profile", "Counts what kernels do, line by line.",
                           "dls profile --json counts.json homework.cu", args,
                           sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(set("DLS_PROFILE", annotate ? "annotate" : "1"));
    DLS_TRY(set("DLS_PROFILE_JSON", json));
    DLS_TRY(set("DLS_PROFILE_TSV", tsv));
    return run_probed(rest, exit_code);
}
