/* tests/base/test_file.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Files: round trips, refusals, and writers that are killed at any moment. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "expect.h"
#include "folder.h"

/* expect what a reader sees */
static void expect_content(const char *path, const char *content)
{
    char *data = NULL;
    size_t size = 0;
    EXPECT_OK(dls_file_read(path, &data, &size));
    cr_assert_not_null(data);
    cr_expect_eq(size, strlen(content));
    cr_expect_str_eq(data, content);
    free(data);
}

/* test round trips */
Test(base, file_round_trip, .init = enter, .fini = leave)
{
    EXPECT_OK(dls_file_write("a", "first", 5));
    expect_content("a", "first");
    EXPECT_OK(dls_file_write("a", "", 0));
    expect_content("a", "");
    cr_expect_eq(access("a.part", F_OK), -1);
}

Test(base, file_abort_keeps_the_old, .init = enter, .fini = leave)
{
    dls_file_writer *w;
    EXPECT_OK(dls_file_write("a", "old", 3));
    EXPECT_OK(dls_file_begin("a", &w));
    EXPECT_OK(dls_file_append(w, "new", 3));
    expect_content("a", "old");
    dls_file_abort(w);
    expect_content("a", "old");
    cr_expect_eq(access("a.part", F_OK), -1);
    dls_file_abort(NULL);
}

Test(base, file_reads_what_has_no_size)
{
    char *data;
    size_t size;
    EXPECT_OK(dls_file_read("/proc/self/status", &data, &size));
    cr_expect(size > 0 && strlen(data) == size);
    free(data);
}

Test(base, file_mkdirs, .init = enter, .fini = leave)
{
    EXPECT_OK(dls_file_mkdirs("x/y/z/"));
    EXPECT_OK(dls_file_mkdirs("x/y/z"));
    EXPECT_OK(dls_file_write("x/y/z/f", "1", 1));
    EXPECT_ERROR(dls_file_mkdirs("x/y/z/f/g"), DLS_ERR_IO,
                 "x/y/z/f: cannot make this directory: Not a directory");
}

/* test file errors */
Test(base, file_errors_name_path_and_reason, .init = enter, .fini = leave)
{
    char *data;
    size_t size;
    EXPECT_ERROR(dls_file_read("none", &data, &size), DLS_ERR_IO,
                 "none: cannot open: No such file or directory");
    EXPECT_ERROR(dls_file_read(".", &data, &size), DLS_ERR_IO,
                 ".: cannot read: Is a directory");
    EXPECT_ERROR(dls_file_write("no/where", "x", 1), DLS_ERR_IO,
                 "no/where.part: cannot create: No such file or directory");
    EXPECT_OK(dls_file_mkdirs("d/e"));
    EXPECT_ERROR(dls_file_write("d", "x", 1), DLS_ERR_IO,
                 "d: cannot replace: Is a directory");
    cr_expect_eq(access("d.part", F_OK), -1);
}

Test(base, file_failed_write_keeps_the_old, .init = enter, .fini = leave)
{
    char block[8192] = {0};
    struct rlimit limit = {4096, 4096};
    EXPECT_OK(dls_file_write("a", "old", 3));
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_ERROR(dls_file_write("a", block, sizeof block), DLS_ERR_IO,
                 "a.part: cannot write: File too large");
    expect_content("a", "old");
    cr_expect_eq(access("a.part", F_OK), -1);
}

/* test a killed writer */
enum { CONTENT = 300000, ROUNDS = 25 };

static void write_by_turns(void)
{
    char *block = malloc(CONTENT);
    for (int turn = 0;; turn++) {
        memset(block, 'a' + turn % 2, CONTENT);
        if (dls_file_write("a", block, CONTENT) != DLS_OK)
            _exit(1);
    }
}

static void expect_whole(void)
{
    char *data = NULL;
    size_t size = 0;
    EXPECT_OK(dls_file_read("a", &data, &size));
    cr_assert_eq(size, CONTENT);
    cr_expect(data[0] == 'a' || data[0] == 'b');
    cr_expect_eq(memcmp(data, data + 1, CONTENT - 1), 0);
    free(data);
}

Test(base, file_survives_a_killed_writer, .init = enter, .fini = leave)
{
    for (int round = 0; round < ROUNDS; round++) {
        pid_t child = fork();
        if (child == 0)
            write_by_turns();
        while (access("a", F_OK) != 0)
            usleep(100);
        usleep((useconds_t)(round * 331 % 4000));
        kill(child, SIGKILL);
        int how;
        waitpid(child, &how, 0);
        cr_assert(WIFSIGNALED(how), "the writer ended by itself");
        expect_whole();
    }
    EXPECT_OK(dls_file_write("a", "after", 5));  // a leftover is no obstacle
    expect_content("a", "after");
    cr_expect_eq(access("a.part", F_OK), -1);
}

/* test two writers */
Test(base, file_refuses_a_second_writer, .init = enter, .fini = leave)
{
    dls_file_writer *first, *second;
    EXPECT_OK(dls_file_begin("a", &first));
    EXPECT_OK(dls_file_append(first, "1", 1));
    EXPECT_ERROR(dls_file_begin("a", &second), DLS_ERR_IO,
                 "a: another writer is at work on it");
    EXPECT_OK(dls_file_append(first, "2", 1));
    EXPECT_OK(dls_file_commit(first));
    expect_content("a", "12");
}
