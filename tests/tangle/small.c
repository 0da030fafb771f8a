/* tests/tangle/small.c: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle". */
/* Helpers of the literate tool's tests: see small.h. */
#include "small.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

char small_said[1 << 20];
static char tool[PATH_MAX], folder[PATH_MAX];

/* begin and end a small book */
void small_begin(void)
{
    const char *tmp = getenv("TMPDIR");
    cr_assert(realpath("build/bin/tangle", tool), "build/bin/tangle is missing");
    snprintf(folder, sizeof folder, "%s/small-book-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
    setenv("GIT_CEILING_DIRECTORIES", tmp ? tmp : "/tmp", 1);
    setenv("LC_ALL", "C", 1);
}

void small_end(void)
{
    cr_assert_eq(chdir("/"), 0);
    char command[PATH_MAX + 20];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_expect_eq(system(command), 0);
}
/* put and get files */
void small_put_bytes(const char *path, const char *bytes, size_t n)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    for (char *p = parent; (p = strchr(p, '/')); *p++ = '/') {
        *p = '\0';
        mkdir(parent, 0777);
    }
    FILE *f = fopen(path, "w");
    cr_assert(f, "%s cannot be written", path);
    cr_assert_eq(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

void small_put(const char *path, const char *text)
{
    small_put_bytes(path, text, strlen(text));
}

char *small_get(const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return NULL;
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

void small_edit(const char *path, const char *from, const char *to)
{
    char *text = small_get(path), *at = text ? strstr(text, from) : NULL;
    cr_assert(at, "%s does not contain %s", path, from);
    char *made = calloc(1, strlen(text) + strlen(to) + 1);
    sprintf(made, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    small_put(path, made);
    free(made);
    free(text);
}

void small_book(const char *chapter)
{
    small_put("book.yaml",
              "title: Small\nparts:\n  - title: P\n    chapters:\n      - id: one\n"
              "        files: [chapters/01-one.md]\n        owns: [x]\n");
    small_put("chapters/01-one.md", chapter);
}
/* run the tool */
int small_shell(const char *command)
{
    char line[2 * PATH_MAX + 8192];
    snprintf(line, sizeof line, "( %s ) > .said 2>&1", command);
    int status = system(line);
    char *said = small_get(".said");
    snprintf(small_said, sizeof small_said, "%s", said ? said : "");
    free(said);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int small_tangle(const char *arguments)
{
    char command[PATH_MAX + 4096];
    snprintf(command, sizeof command, "%s %s", tool, arguments);
    return small_shell(command);
}

int small_tangle_twice(const char *arguments)
{
    char command[2 * PATH_MAX + 4096];
    snprintf(command, sizeof command, "%s %s & a=$!; %s %s; b=$?; wait $a && exit $b",
             tool, arguments, tool, arguments);
    return small_shell(command);
}
/* age files */
void small_age(const char *path)
{
    struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
    cr_assert_eq(utimensat(AT_FDCWD, path, old, 0), 0, "%s is missing", path);
}

int small_is_old(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && st.st_mtim.tv_sec == 1000000000;
}

int small_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}
