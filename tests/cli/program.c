/* tests/cli/program.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* Running a program from a test. */
#include "program.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* run a program from a test */
outcome run_program(const char *format, ...)
{
    char command[4096] = "exec 2>&1; ", *at = command + strlen(command);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(at, sizeof command - (size_t)(at - command), format, args);
    va_end(args);
    cr_assert(n > 0 && (size_t)n < sizeof command - 16, "command too long");
    outcome o = {0};
    FILE *pipe = popen(command, "r");
    cr_assert(pipe, "popen failed");
    size_t used = 0, got;
    while (used < sizeof o.output - 1 &&
           (got = fread(o.output + used, 1, sizeof o.output - 1 - used, pipe)) > 0)
        used += got;
    int status = pclose(pipe);
    o.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return o;
}

void program_says(const char *command, const char *options, int exit_code,
                  const char *words)
{
    outcome o = run_program("%s %s", command, options);
    cr_assert_eq(o.exit_code, exit_code, "%s: %s", options, o.output);
    cr_assert(strstr(o.output, words), "%s: no \"%s\" in %s", options, words, o.output);
}

/* make a fresh directory */
char *fresh_directory(const char *label)
{
    mkdir("build", 0777);
    mkdir("build/test", 0777);
    char path[256];
    snprintf(path, sizeof path, "build/test/%s-XXXXXX", label);
    char *made = mkdtemp(path);
    cr_assert(made, "no directory for the test");
    return strdup(made);
}

char *read_whole(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    size_t room = 1 << 24;
    char *text = malloc(room + 1);
    cr_assert(text);
    *size = fread(text, 1, room, f);
    text[*size] = 0;
    fclose(f);
    return text;
}
