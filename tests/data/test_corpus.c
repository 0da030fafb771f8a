/* tests/data/test_corpus.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Opening and splitting corpora. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/corpus.h"

/* test the corpus */
static const char *file_of(const char *text, size_t size)
{
    static char path[] = "/tmp/dls-corpus-XXXXXX";
    strcpy(path + sizeof path - 7, "XXXXXX");
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, text, size) == (ssize_t)size);
    close(fd);
    return path;
}

Test(data, corpus_is_split_once_at_the_end)
{
    dls_corpus *c;
    uint64_t begin, end, whole;
    const char *path = file_of("0123456789abcdefghij", 20);
    cr_assert_eq(dls_corpus_open(path, &c), DLS_OK);
    unlink(path);
    cr_assert(dls_corpus_size(c) == 20 && dls_corpus_bytes(c)[19] == 'j');
    for (int percent = 0; percent < 100; percent += 7) {
        cr_assert_eq(dls_corpus_split(c, percent / 100.0), DLS_OK);
        dls_corpus_part(c, DLS_PART_TRAINING, &begin, &end);
        cr_assert_eq(begin, 0);
        dls_corpus_part(c, DLS_PART_VALIDATION, &begin, &whole);
        cr_assert(begin == end && whole == 20 &&
                  whole - begin == 20u * (unsigned)percent / 100);
    }
    cr_assert_eq(dls_corpus_split(c, 1.0), DLS_ERR_INPUT);
    cr_assert_eq(dls_corpus_split(c, -0.1), DLS_ERR_INPUT);
    dls_corpus_close(c);
}

Test(data, corpora_that_are_none_are_refused_in_one_line)
{
    dls_corpus *c = NULL;
    cr_assert_eq(dls_corpus_open("/no/such/file", &c), DLS_ERR_IO);
    cr_assert_str_eq(dls_status_message(), "/no/such/file: No such file or directory");
    cr_assert_eq(dls_corpus_open("/tmp", &c), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "/tmp: expected a text file");
    cr_assert_eq(dls_corpus_open(file_of("", 0), &c), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "the corpus is empty"));
    cr_assert_null(c);
}
