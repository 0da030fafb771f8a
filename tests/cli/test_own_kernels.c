/* tests/cli/test_own_kernels.c: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* dls cc, dls check and dls profile on a beginner's files, called as a reader would. */
#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "program.h"

#ifndef DLS_BACKEND_cuda  // there, nvcc compiles a reader's files
/* name the homework */
static const struct homework {
    const char *name, *output;
} homework[] = {
    {"vector_add", "2 1998\n"}, {"reduction", "499500\n"}, {"transpose", "100 1\n"},
    {"matmul", "4 0\n"}, {"histogram", "counting 43 letters\no: 4, time known\n"}};

static char here[PATH_MAX];

/* A fresh folder to work in, and `dls` as it is called from there. */
static const char *enter(const char *label)
{
    static char dls[PATH_MAX + 64];
    cr_assert(getcwd(here, sizeof here));
    cr_assert_eq(chdir(fresh_directory(label)), 0);
    snprintf(dls, sizeof dls, "%s/build/bin/dls", here);
    return dls;
}
/* compile run and check homework */
Test(cli, own_kernels)
{
    const char *dls = enter("own");
    for (size_t i = 0; i < sizeof homework / sizeof homework[0]; i++) {
        const struct homework *h = &homework[i];
        outcome cc = run_program("%s cc %s/tests/cli/homework/%s.cu -o my", dls, here,
                                 h->name);
        cr_assert_eq(cc.exit_code, 0, "%s: %s", h->name, cc.output);
        cr_assert_str_eq(cc.output, "");
        outcome plain = run_program("./my");
        cr_assert_eq(plain.exit_code, 0);
        cr_assert_str_eq(plain.output, h->output, "%s: %s", h->name, plain.output);
        outcome checked = run_program("%s check my", dls);
        cr_assert_eq(checked.exit_code, 0, "%s: %s", h->name, checked.output);
        cr_assert(strstr(checked.output, "0 errors, 0 warnings"), "%s: %s", h->name,
                  checked.output);
        cr_assert(strstr(checked.output, h->output), "%s", checked.output);
    }
}
/* profile homework */

Test(cli, own_profile)
{
    const char *dls = enter("profile");
    size_t size;
    outcome p = run_program("%s profile --annotate --json p.json --tsv p.tsv "
                            "%s/tests/cli/homework/vector_add.cu", dls, here);
    cr_assert_eq(p.exit_code, 0, "%s", p.output);
    cr_assert(strstr(p.output, "vector_add.cu:8"), "%s", p.output);
    cr_assert(strstr(p.output, "|    8          c[i] = a[i] + b[i];"), "%s", p.output);
    cr_assert(strstr(p.output, "\n    3.91           31.25        1000 |    8  "), "%s",
              p.output);
    char *json = read_whole("p.json", &size), *tsv = read_whole("p.tsv", &size);
    cr_assert(json && tsv);
    cr_assert(strstr(json, "\"kernel\": \"add\""));
    cr_assert(strstr(json, "\"requests\": 96,"), "%s", json);
    cr_assert(strstr(json, "\"sectors\": 375,"), "%s", json);
    cr_assert(strstr(json, "\"flops\": 1000,"), "%s", json);
    cr_assert(strstr(tsv, "vector_add.cu:8\t96\t375\t375\t12000"), "%s", tsv);
}
/* refuse bad input of the toolchain */

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

Test(cli, own_mistakes)
{
    const char *dls = enter("mistakes");
    write_file("wrong.cu", "__global__ void k(int *p)\n{\n    p[0] = missing;\n}\n");
    write_file("past.cu", "#include <stdio.h>\n__global__ void k(int *p)\n{\n"
               "    p[32] = 1;\n}\nint main() { int *p; cudaMalloc(&p, 128);\n"
               "    k<<<1, 1>>>(p); cudaDeviceSynchronize(); cudaFree(p); }\n");
    write_file("dies.cu", "#include <stdlib.h>\n__global__ void k(int *p)\n{\n"
               "    p[32] = 1;\n}\nint main() { int *p; cudaMalloc(&p, 128);\n"
               "    k<<<1, 1>>>(p); cudaDeviceSynchronize(); abort(); }\n");
    cr_assert_eq(system("head -c 100 /dev/zero > picture.cu"), 0);
    const struct { const char *words, *said; int exit_code; } calls[] = {
        {"cc wrong.cu -o w", "wrong.cu:3:12: error: ", 2},
        {"cc", "no file to compile", 2},
        {"cc absent.cu", "absent.cu: no such file", 2},
        {"cc notes.txt", "expected a .cu file", 2},
        {"check absent", "absent: neither a program, a .cu file nor a dls command", 2},
        {"check absent.cu", "absent.cu: no such file", 2},
        {"profile", "PROGRAM", 2},
        {"check /bin/true", "has no probed form", 2},
        {"check past.cu", "past.cu:4", 86},
        {"check dies.cu", "by signal 6 (SIGABRT); found so far:\nerror[global", 134},
        {"check /dev/zero.cu", "no such file", 2},
        {"cc picture.cu", "picture.cu: not a text file", 2},
        {"cc --help", "example: dls cc homework.cu", 0}};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        outcome o = run_program("%s %s", dls, calls[i].words);
        cr_assert_eq(o.exit_code, calls[i].exit_code, "%s: %d %s", calls[i].words,
                     o.exit_code, o.output);
        cr_assert(strstr(o.output, calls[i].said), "%s: %s", calls[i].words, o.output);
    }
}
#endif
