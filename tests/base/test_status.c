/* tests/base/test_status.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Messages stay on one line, survive being wrapped, and carry the places they passed. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expect.h"

/* fail three calls deep */
static dls_status inner(const char *word)
{
    return DLS_FAIL(DLS_ERR_IO, "%s: no such file", word);
}

static dls_status middle(const char *word)
{
    DLS_TRY(inner(word));
    return DLS_OK;
}

static dls_status outer(const char *word, int *cleaned)
{
    dls_status status = DLS_OK;
    DLS_TRY_GOTO(status, middle(word), done);
done:
    *cleaned = 1;
    return status;
}

/* test messages */
Test(base, status_message_is_one_line)
{
    EXPECT_ERROR(inner("a\nb\x1b[2J\tα"), DLS_ERR_IO, "a b [2J α: no such file");
}

Test(base, status_message_can_be_wrapped)
{
    inner("x");
    EXPECT_ERROR(DLS_FAIL(DLS_ERR_COMM, "rank %d: %s", 3, dls_status_message()),
                 DLS_ERR_COMM, "rank 3: x: no such file");
}

Test(base, status_message_is_cut_not_overrun)
{
    char *word = malloc(5001);
    memset(word, 'w', 5000);
    word[5000] = 0;
    inner(word);
    cr_expect_eq(strlen(dls_status_message()), 2047);
    free(word);
}

/* test traces */
Test(base, status_trace_names_each_place)
{
    int cleaned = 0, places = 0;
    cr_expect_eq(outer("x", &cleaned), DLS_ERR_IO);
    cr_expect(cleaned);
    for (const char *c = dls_status_trace(); *c; c++)
        places += *c == '\n';
    cr_expect_eq(places, 3);
    cr_expect(strstr(dls_status_trace(), __FILE__), "%s", dls_status_trace());
    dls_status_clear();
    cr_expect_str_empty(dls_status_message());
    cr_expect_str_empty(dls_status_trace());
}

Test(base, status_trace_keeps_whole_lines_when_full)
{
    inner("x");
    for (int i = 0; i < 1000; i++)
        dls_status_pass(DLS_ERR_IO, "chapters/some-chapter.md", i);
    const char *trace = dls_status_trace();
    cr_expect_lt(strlen(trace), 2048);
    cr_expect_eq(trace[strlen(trace) - 1], '\n');
}

/* test threads */
static void *fail_elsewhere(void *unused)
{
    inner("elsewhere");
    return unused;
}

Test(base, status_belongs_to_its_thread)
{
    pthread_t thread;
    inner("here");
    pthread_create(&thread, NULL, fail_elsewhere, NULL);
    pthread_join(thread, NULL);
    cr_expect_str_eq(dls_status_message(), "here: no such file");
}

Test(base, status_names_are_known)
{
    for (int i = DLS_OK; i <= DLS_ERR_STATE; i++)
        cr_expect_str_neq(dls_status_name((dls_status)i), "unknown status");
    cr_expect_str_eq(dls_status_name((dls_status)99), "unknown status");
}
