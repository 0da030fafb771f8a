/* tests/tangle/test_large.c: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle". */
/* A book of ten thousand chunks: all of it right, and no more done than needed. */
#include "small.h"

#include <stdio.h>
#include <stdlib.h>

TestSuite(tangle_large, .init = small_begin, .fini = small_end);

enum { CHAPTERS = 20, FILES = 25, CHUNKS = 20 };

/* write a large book */
static void large_chapter(int c)
{
    char *text = calloc(1, 1 << 20), *p = text, path[64];
    p += sprintf(p, "# Chapter %d\n\n", c);
    for (int f = 0; f < FILES; f++) {
        p += sprintf(p, "```{.c file=code/f%d/x%d.c}\n", c, f);
        for (int k = 0; k < CHUNKS; k++)
            p += sprintf(p, "<<say-%d-%d-%d>>\n", c, f, k);
        p += sprintf(p, "```\n\n");
        for (int k = 0; k < CHUNKS; k++) {
            p += sprintf(p, "Some *words* about chunk %d with `code` in them.\n\n", k);
            p += sprintf(p, "```{.c #say-%d-%d-%d}\n", c, f, k);
            for (int line = 0; line < 5; line++)
                p += sprintf(p, "int v%d_%d_%d_%d;\n", c, f, k, line);
            p += sprintf(p, "```\n\n");
        }
    }
    snprintf(path, sizeof path, "chapters/c%d.md", c);
    small_put(path, text);
    free(text);
}

static void large_book(void)
{
    char *yaml = calloc(1, 1 << 16), *p = yaml;
    p += sprintf(p, "title: Large\nparts:\n  - chapters:\n");
    for (int c = 0; c < CHAPTERS; c++) {
        p += sprintf(p, "      - {id: c%d, files: [chapters/c%d.md], owns: [f%d]}\n", c,
                     c, c);
        large_chapter(c);
    }
    small_put("book.yaml", yaml);
    free(yaml);
}
/* test a large book */

Test(tangle_large, ten_thousand_chunks)
{
    large_book();
    EXPECT_EXIT("write", 0);
    EXPECT_SAID("1000 files written, 0 removed, 0 unchanged");
    EXPECT_EXIT("check", 0);
    EXPECT_SAID("in step: 500 outputs of 10000 chunks from 20 chapter files; 0 runs");
    EXPECT_EXIT("write", 0);
    cr_expect_str_eq(small_said, "");
    small_edit("chapters/c7.md", "int v7_3_4_2;", "long v7_3_4_2;");
    EXPECT_EXIT("write", 0);
    EXPECT_SAID("2 files written, 0 removed, 998 unchanged");
    small_edit("code/f9/x24.c", "int v9_24_19_4;", "long v9_24_19_4;");
    EXPECT_EXIT("untangle", 0);
    EXPECT_SAID("1 block changed in 1 chapter file");
    EXPECT_EXIT("check", 0);
    small_edit("chapters/c0.md", "<<say-0-0-0>>", "<<say-0-0-o>>");
    EXPECT_EXIT("write", 4);
    EXPECT_SAID("no chunk is named \"say-0-0-o\"");
}
