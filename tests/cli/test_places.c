/* tests/cli/test_places.c: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* Errors lead to the text: gcc, Criterion and gdb name the line of the chapter. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "program.h"

/* write a book with a mistake */
static const char book[] =
    "title: One mistake\nlanguage: en\nparts:\n  - title: \"\"\n    chapters:\n"
    "      - {id: one, number: \"1\", files: [chapters/one.md], owns: [one]}\n";

static const char chapter[] =
    "# One\n\nA file.\n\n```{.c file=code/one/one.c}\n%s\nint main(void)\n{\n"
    "    <<make-the-mistake>>\n    return 0;\n}\n```\n\nThe mistake itself.\n\n"
    "```{.c #make-the-mistake}\nint answer = 42;\n%s /* here */\n```\n";

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
}

/* Tangles the book into a fresh directory; *line is where the mistake stands. */
static char *write_book(const char *includes, const char *mistake, int *line)
{
    char *dir = fresh_directory("places"), path[512], text[4096];
    snprintf(path, sizeof path, "%s/chapters", dir);
    cr_assert_eq(mkdir(path, 0777), 0);
    snprintf(text, sizeof text, chapter, includes, mistake);
    *line = 1;
    for (const char *at = text, *end = strstr(text, "/* here */"); at < end; at++)
        *line += *at == '\n';
    write_file(dir, "book.yaml", book);
    write_file(dir, "chapters/one.md", text);
    outcome o = run_program("build/bin/tangle write -C %s", dir);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    return dir;
}

static void expect_place(const outcome *o, int line)
{
    char place[64];
    snprintf(place, sizeof place, "chapters/one.md:%d", line);
    cr_expect(strstr(o->output, place), "no %s in:\n%s", place, o->output);
}

/* test the places of errors */
Test(places, a_compile_error_names_the_chapter)
{
    int line;
    char *dir = write_book("#include <stdio.h>", "answer = unknown;", &line);
    outcome o = run_program("cd %s && gcc -c build/src/code/one/one.c", dir);
    cr_expect_neq(o.exit_code, 0);
    expect_place(&o, line);
    free(dir);
}

Test(places, a_failing_assertion_names_the_chapter)
{
    int line;
    char *dir = write_book("#include <assert.h>", "assert(answer == 6 * 9);", &line);
    outcome o = run_program("cd %s && gcc -o one build/src/code/one/one.c && ./one", dir);
    cr_expect_neq(o.exit_code, 0);
    expect_place(&o, line);
    free(dir);
}

Test(places, a_crash_in_the_debugger_names_the_chapter, .timeout = 60)
{
    int line;
    char *dir = write_book("", "*(volatile int *)0 = answer;", &line);
    outcome o = run_program("cd %s && gcc -g -o one build/src/code/one/one.c && gdb "
                            "-batch -nx -ex run -ex backtrace ./one < /dev/null", dir);
    cr_expect(strstr(o.output, "SIGSEGV"), "%s", o.output);
    expect_place(&o, line);
    free(dir);
}
