/* code/cli/cc.c: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* dls cc: compiles a reader's own CUDA files, with and without probes. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/toolchain.h"

/* explain dls cc */
static void print_help(void)
{
    fputs("usage: dls cc FILE.cu [FILE ...] [-o PROGRAM] [OPTION ...]\n\n"
          "Compiles CUDA files for the virtual GPU: PROGRAM, and PROGRAM.probed for\n"
          "dls check and dls profile.\n\n"
          "  -o PROGRAM   what to make (default a.out)\n"
          "  OPTION       for g++: -O0, -DN=64, -Iinclude, -lm, ...; what only nvcc has\n"
          "               (-arch, -gencode, -lineinfo, -lcudart, ...) is left out\n\n"
          "example: dls cc homework.cu -o homework && dls profile homework\n", stdout);
}
/* leave out what only nvcc knows */
/* How many words the option takes if only nvcc knows it, else 0. */
static int nvcc_only(const char *option)
{
    static const char *const one[] = {"-arch=", "--gpu-architecture=", "-code=", "-rdc=",
                                      "-lineinfo", "-G", "-lcuda", "-lcublas", "-lcurand",
                                      "--expt-", "--extended-lambda", "-gencode=",
                                      "--generate-code=", "-use_fast_math",
                                      "--use_fast_math", "-maxrregcount="};
    static const char *const two[] = {"-arch", "-code", "-gencode", "-ccbin", "-Xptxas",
                                      "-maxrregcount"};
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
        if (!strcmp(option, two[i]))
            return 2;
    for (size_t i = 0; i < sizeof one / sizeof one[0]; i++)
        if (!strncmp(option, one[i], strlen(one[i])))
            return 1;
    return 0;
}
/* sort the words of dls cc */
static dls_status add_source(build *b, const char *path)
{
    const char *dot = strrchr(path, '.');
    if (!dot || !strstr(".cu.c.cpp.cc.o.a", dot))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a .cu file (or .c, .cpp, .o, .a)",
                        path);
    DLS_TRY(toolchain_look_at(path));
    words_add(&b->sources, "%s", path);
    return DLS_OK;
}

static dls_status parse(int argc, char **argv, build *b)
{
    for (int i = 1; i < argc; i++) {
        int skip = nvcc_only(argv[i]);
        if (!strcmp(argv[i], "-o")) {
            if (++i == argc)
                return DLS_FAIL(DLS_ERR_INPUT, "-o: expected a name behind it");
            b->output = argv[i];
        } else if (!strcmp(argv[i], "-Xcompiler") && i + 1 < argc) {
            words_add(&b->options, "%s", argv[++i]);
        } else if (skip) {
            i += skip - 1;
        } else if (argv[i][0] == '-') {
            words_add(&b->options, "%s", argv[i]);
        } else {
            DLS_TRY(add_source(b, argv[i]));
        }
    }
    if (b->sources.count == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "no file to compile; example: "
                        "dls cc homework.cu -o homework");
    return DLS_OK;
}
/* compile a readers files */
dls_status command_cc(int argc, char **argv, int *exit_code)
{
    build b = {.output = "a.out", .forms = PLAIN | PROBED};
    (void)exit_code;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help();
            return DLS_OK;
        }
    dls_status status = parse(argc, argv, &b);
    if (status == DLS_OK)
        status = toolchain_build(&b);
    words_free(&b.sources);
    words_free(&b.options);
    return status;
}
