/* tests/tangle/test_bad.c: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle". */
/* Bad input of every kind: each has its message, its place and its exit status. */
#include "small.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(tangle_bad, .init = small_begin, .fini = small_end);

/* check a table of bad chapters */
struct bad {
    const char *chapter;
    int status;
    const char *says, *also;
};

static void check_bad(const struct bad *bad, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        small_book(bad[i].chapter);
        EXPECT_EXIT("check", bad[i].status);
        EXPECT_SAID(bad[i].says);
        if (bad[i].also)
            EXPECT_SAID(bad[i].also);
        EXPECT_EXIT("write", bad[i].status);
        cr_expect(!small_exists("code") && !small_exists("tests"), "%s", bad[i].chapter);
    }
}

#define CHECK_BAD(table) check_bad(table, sizeof table / sizeof *table)
#define HERE "chapters/01-one.md:"
#define GOOD ROOT("code/x/a.c", "int a;\n") // four lines
/* test bad fences */
Test(tangle_bad, fences)
{
    const struct bad table[] = {
        {GOOD "```{.c #open}\nint b;\n", 3, HERE "5:1: error: this block is never closed",
         "[unclosed-fence]"},
        {"```{.c file=code/x/a.c}\nint a;\n\nWords.\n\n```{.c #b}\nint b;\n```\n", 3,
         HERE "1:1: error: this block is not closed before the next one opens",
         "the next one opens at chapters/01-one.md:6"},
        {GOOD "```\nint b;\n```\n", 3, HERE "5:1: error: a block without attributes",
         "[no-fate]"},
        {GOOD "```c\nint b;\n```\n", 3, HERE "5:4: error: a block without attributes",
         "write {.c …} with file=…"},
        {GOOD "```{.c}\nint b;\n```\n", 3, HERE "5:4: error: a block without a fate",
         NULL},
        {GOOD "- item\n\n  ```{.c #b}\n  int b;\n  ```\n", 3,
         HERE "7:3: error: a chunk block must start in column 1", "[indented-block]"},
        {GOOD "<div>\n```{.c #b}\nint b;\n```\n</div>\n", 3,
         HERE "6:1: error: not a fence", "[not-a-fence]"},
        {GOOD "```{.c .fails match=\"`\"}\nint b;\n", 3, HERE "5:1: error: not a fence",
         "[not-a-fence]"},
    };
    CHECK_BAD(table);
}

Test(tangle_bad, what_only_looks_like_a_fence)
{
    small_book(GOOD "<!--\n```\nint b;\n```\n-->\n\n"
               "`````{.text .quote}\n```{.c}\n<<none>>\n```\n`````\n\n"
               "    ```\n    indented: no fence\n\n"
               "- item\n\n  ```{.text .quote}\n  in a list\n  ```\n");
    EXPECT_EXIT("write", 0);
    EXPECT_EXIT("check", 0);
}
/* test bad attributes */

Test(tangle_bad, attributes)
{
    const struct bad table[] = {
        {GOOD "```{.c #b .quote}\nint b;\n```\n", 3,
         HERE "5:11: error: a block has one fate, this one has 2: chunk and quote",
         "[two-fates]"},
        {GOOD "```{.c #b file=code/x/b.c}\nint b;\n```\n", 3, "has 2: root and chunk",
         NULL},
        {GOOD "```{.c flie=code/x/b.c}\nint b;\n```\n", 3, "[no-fate]",
         "did you mean \"file\"?"},
        {GOOD "```{.text .quot}\nint b;\n```\n", 3, "[no-fate]",
         "did you mean \"quote\"?"},
        {GOOD "```{.sh .run #r timout=3}\ntrue\n```\n", 3,
         HERE "5:17: error: a run block has no key \"timout\" [unknown-attribute]",
         "did you mean \"timeout\"?"},
        {GOOD "```{.sh .run #r .slw}\ntrue\n```\n", 3, "a run block has no class \"slw\"",
         "did you mean \"slow\"?"},
        {GOOD "```{.cude #b}\nint b;\n```\n", 3,
         HERE "5:5: error: unknown language \"cude\"", "did you mean \"cuda\"?"},
        {GOOD "```{#b}\nint b;\n```\n", 3, "[no-language]", NULL},
        {GOOD "```{.c file=}\nint b;\n```\n", 3, "this root block needs file=…", NULL},
        {GOOD "```{.sh .run}\ntrue\n```\n", 3, "this run block needs an id, as #name",
         NULL},
        {GOOD "```{.c .fails}\ntrue\n```\n", 3, "this fails block needs match=…", NULL},
        {GOOD "```{.c #Bad_Name}\nint b;\n```\n", 3,
         HERE "5:8: error: a name is made of small letters, digits and hyphens", NULL},
        {GOOD "```{.c .fails match=\"open}\nint b;\n```\n", 3,
         HERE "5:21: error: this quotation mark is never closed", "[bad-attributes]"},
        {GOOD "```{.c b}\nint b;\n```\n", 3, "expected .class, #id or key=value", NULL},
        {GOOD "```{.sh .run #r timeout=0}\ntrue\n```\n", 3,
         "timeout=0: expected seconds, 1 to 3600", "[bad-value]"},
    };
    CHECK_BAD(table);
}
/* test bad references */

Test(tangle_bad, references)
{
    const struct bad table[] = {
        {ROOT("code/x/a.c", "int a;\n  <<wait-for-lft>>\n") CHUNK("wait-for-left", "b\n"),
         4,
         HERE "3:3: error: no chunk is named \"wait-for-lft\" [undefined-chunk]\n"
              "    3 |   <<wait-for-lft>>\n      |   ^~~~~~~~~~~~~~~~",
         "did you mean \"wait-for-left\"?"},
        {GOOD CHUNK("lonely", "int b;\n"), 4,
         HERE "5:8: error: chunk \"lonely\" is never used [unused-chunk]", NULL},
        {ROOT("code/x/a.c", "<<one>>\n") CHUNK("one", "<<two>>\n")
             CHUNK("two", "<<one>>\n"),
         4, HERE "10:1: error: chunk \"one\" contains itself: one -> two -> one",
         "[cyclic-chunk]"},
        {ROOT("code/x/a.c", "<<self>>\n") CHUNK("self", "<<self>>\n"), 4,
         "chunk \"self\" contains itself: self -> self", NULL},
        {GOOD ROOT("code/x/a.c", "int b;\n"), 4,
         HERE "5:13: error: \"code/x/a.c\" is the root of a second block [twice-rooted]",
         "the first is at chapters/01-one.md:1"},
        {ROOT("code/x/a.c", "<<one>>\n") BLOCK(".yaml #one", "a: 1\n"), 4,
         HERE "2:1: error: chunk \"one\" is yaml, and this block is c",
         "[mixed-languages]"},
        {ROOT("code/x/a.c", "<<Not a name>>\n"), 3,
         HERE "2:1: error: a reference names a chunk in small letters", "[bad-name]"},
        {GOOD
         "```{.c .solution of=ex-a}\nint b;\n```\n\n::: {.exercise #ex-b}\nDo.\n:::\n",
         4, HERE "5:21: error: a solution of \"ex-a\", but no exercise has that id",
         "did you mean \"ex-b\"?"},
        {GOOD "::: {.exercise #ex-b}\n:::\n\n::: {.exercise #ex-b}\n:::\n", 3,
         HERE "8:1: error: a second exercise with the id \"ex-b\"", "[duplicate-id]"},
    };
    CHECK_BAD(table);
}

Test(tangle_bad, a_name_in_two_chapters)
{
    const char *yaml = "title: T\nparts:\n- title: P\n  chapters:\n"
                       "  - {id: one, files: [chapters/01-one.md%s], owns: [x]}\n"
                       "  - {id: two, files: [%s], owns: [x]}\n";
    char text[512];
    small_put("chapters/01-one.md",
              ROOT("code/x/a.c", "<<one>>\n") CHUNK("one", "int a;\n"));
    small_put("chapters/02-two.md", CHUNK("one", "int b;\n"));
    snprintf(text, sizeof text, yaml, "", "chapters/02-two.md");
    small_put("book.yaml", text);
    EXPECT_EXIT("check", 4);
    EXPECT_SAID("chapters/02-two.md:1:8: error: chunk \"one\" belongs to another chapter "
                "[duplicate-chunk]");
    EXPECT_SAID("it is defined at chapters/01-one.md:5; names are unique over chapters");
    snprintf(text, sizeof text, yaml, ", chapters/02-two.md", "");
    small_put("book.yaml", text);
    EXPECT_EXIT("write", 0);
    EXPECT_FILE("code/x/a.c", HEADER("code/x/a.c", "chapters/01-one.md")
                "/* one */\nint a;\nint b;\n");
}

Test(tangle_bad, explosions_and_endless_chains)
{
    char *chapter = calloc(1, 1 << 20), *p = chapter;
    p += sprintf(p, "%s", ROOT("code/x/a.c", "<<c0>>\n"));
    for (int i = 0; i < 40; i++)
        p += sprintf(p, "```{.c #c%d}\n<<c%d>>\n<<c%d>>\n```\n\n", i, i + 1, i + 1);
    sprintf(p, "```{.c #c40}\nint a;\n```\n");
    small_book(chapter);
    EXPECT_EXIT("write", 4);
    EXPECT_SAID("[too-large]");
    p = chapter + sprintf(chapter, "%s", ROOT("code/x/a.c", "<<c0>>\n"));
    for (int i = 0; i < 10000; i++)
        p += sprintf(p, "```{.c #c%d}\n<<c%d>>\n```\n\n", i, i + 1);
    sprintf(p, "```{.c #c10000}\nint a;\n```\n");
    small_book(chapter);
    EXPECT_EXIT("write", 4);
    EXPECT_SAID("its chunks nest deeper than 200 [too-large]");
    sprintf(p, "```{.c #c10000}\n<<c0>>\n```\n");
    small_book(chapter);
    EXPECT_EXIT("write", 4);
    EXPECT_SAID("[cyclic-chunk]");
    free(chapter);
}
/* test bad targets */

Test(tangle_bad, targets)
{
    const struct bad table[] = {
        {ROOT("/etc/passwd", "int a;\n"), 3,
         HERE "1:13: error: target \"/etc/passwd\" is absolute", "[bad-target]"},
        {ROOT("code/x/../../a.c", "int a;\n"), 3, "leaves the tree by \"..\"", NULL},
        {ROOT("../a.c", "int a;\n"), 3, "leaves the tree by \"..\"", NULL},
        {ROOT("build/a.c", "int a;\n"), 3, "lies outside code/ and tests/", NULL},
        {ROOT("code/a.c", "int a;\n"), 3, "lies in no folder; write code/FOLDER/…",
         NULL},
        {ROOT("code/x//a.c", "int a;\n"), 3, "has an empty part between slashes", NULL},
        {ROOT("code/x/.git", "int a;\n"), 3, "has a part that begins with a dot", NULL},
        {BLOCK(".c file=\"code/x/a b.c\"", "int a;\n"), 3,
         "has a character other than letters", NULL},
        {ROOT("code/y/a.c", "int a;\n"), 3,
         HERE "1:13: error: chapter \"one\" does not own folder \"y\" [not-owned]", NULL},
        {ROOT("code/x/a", "int a;\n") ROOT("code/x/a/b.c", "int b;\n"), 3,
         "needs \"code/x/a\" to be a folder, but it is a target too", NULL},
    };
    CHECK_BAD(table);
}
/* test bad links */

Test(tangle_bad, targets_through_symbolic_links)
{
    small_book(GOOD);
    cr_assert_eq(mkdir("elsewhere", 0777), 0);
    cr_assert_eq(mkdir("code", 0777), 0);
    cr_assert_eq(symlink("../elsewhere", "code/x"), 0);
    EXPECT_EXIT("write", 3);
    EXPECT_SAID("target \"code/x/a.c\" goes through the symbolic link \"code/x\"");
    cr_expect(!small_exists("elsewhere/a.c"));
    unlink("code/x");
    small_put("elsewhere/a.c", "theirs\n");
    cr_assert_eq(mkdir("code/x", 0777), 0);
    cr_assert_eq(symlink("../../elsewhere/a.c", "code/x/a.c"), 0);
    EXPECT_EXIT("write --force", 3);
    EXPECT_SAID("goes through the symbolic link \"code/x/a.c\" [symbolic-link]");
    EXPECT_FILE("elsewhere/a.c", "theirs\n");
    unlink("code/x/a.c");
    cr_assert_eq(mkdir("code/x/a.c", 0777), 0);
    EXPECT_EXIT("write", 6);
    EXPECT_SAID("\"code/x/a.c\" is not a file [in-the-way]");
}
/* test bad bytes */

Test(tangle_bad, bytes)
{
    static const char nul[] = GOOD "Wörter \0 more.\n";
    small_book(GOOD "Wörter: \xff and more.\n");
    EXPECT_EXIT("check", 3);
    EXPECT_SAID(HERE "5:9: error: byte 0xff is not UTF-8 [not-utf-8]");
    small_book(GOOD "cut \xe2\x82\n");
    EXPECT_EXIT("check", 3);
    EXPECT_SAID(HERE "5:5: error: byte 0xe2 is not UTF-8");
    small_book(GOOD "a surrogate \xed\xa0\x80\n");
    EXPECT_EXIT("check", 3);
    EXPECT_SAID("byte 0xed is not UTF-8");
    small_put_bytes("chapters/01-one.md", nul, sizeof nul - 1);
    EXPECT_EXIT("check", 3);
    EXPECT_SAID(HERE "5:8: error: a NUL byte in the text [nul-byte]");
    small_book("Words.\r\n\r\n" GOOD);
    EXPECT_EXIT("check", 3);
    EXPECT_SAID(HERE "1:7: error: a carriage return; lines end in a line feed only");
    small_book("\xef\xbb\xbf" GOOD);
    EXPECT_EXIT("check", 3);
    EXPECT_SAID(HERE "1:1: error: the file begins with a byte order mark");
    small_put_bytes("chapters/01-one.md", "", 0);
    EXPECT_EXIT("check", 0);
}
/* test bad runs */

Test(tangle_bad, runs)
{
#define RUN(id) BLOCK(".sh .run #" id, "true\n")
#define EXPECT(attributes) BLOCK(".text .expect " attributes, "1\n")
    const struct bad table[] = {
        {GOOD RUN("r") RUN("r"), 3, HERE "9:14: error: a second run with the id \"r\"",
         "the first is at chapters/01-one.md:5"},
        {GOOD RUN("measure") EXPECT("of=mesure"), 4,
         HERE
         "9:22: error: an expectation of \"mesure\", but no run has that id [no-run]",
         "did you mean \"measure\"?"},
        {GOOD EXPECT("of=r"), 4, "[no-run]", NULL},
        {GOOD RUN("r") EXPECT("of=r") EXPECT("of=r"), 4,
         "a second expectation of run \"r\" [duplicate-expect]", NULL},
        {GOOD RUN("r") EXPECT("of=r tolerance=1e-3x"), 3, "[bad-value]", NULL},
        {GOOD RUN("r") EXPECT("of=r tolerance=1e-3 .device"), 3, "[two-expectations]",
         NULL},
        {GOOD EXPECT(""), 3, "this expect block needs of=…", NULL},
    };
    CHECK_BAD(table);
}
/* test bad books */

Test(tangle_bad, books)
{
#define BOOK(chapter) \
    "title: T\nparts:\n  - title: P\n    chapters:\n      - " chapter "\n"
    const struct { const char *yaml; int status; const char *says;
    } table[] = {
        {"title: [\n", 3, "book.yaml:"},
        {"title: T\n", 3, "parts must be a list"},
        {"- a\n", 3, "must be a mapping with title and parts"},
        {BOOK("{id: a}"), 3, "book.yaml:5:9: error: files must be a list"},
        {BOOK("{files: [chapters/a.md]}"), 3, "a chapter must be a mapping with an id"},
        {BOOK("{id: a, files: [../a.md]}"), 3, "a chapter's file must be a path like"},
        {BOOK("{id: a, files: [chapters/01-one.md], own: [x]}"), 3,
         "unknown key \"own\""},
        {BOOK("{id: a, files: [chapters/01-one.md, chapters/01-one.md]}"), 3,
         "chapters/01-one.md is listed twice"},
        {BOOK("{id: a, files: [chapters/01-one.md], owns: [x, x]}"), 3,
         "folder \"x\" is listed twice"},
        {BOOK("{id: a, files: [chapters/none.md]}"), 6,
         "book.yaml:5:25: error: chapters/none.md: No such file or directory"},
    };
    small_book(GOOD);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        small_put("book.yaml", table[i].yaml);
        EXPECT_EXIT("write", table[i].status);
        EXPECT_SAID(table[i].says);
    }
    EXPECT_EXIT("write --allow-missing", 0);
    unlink("book.yaml");
    EXPECT_EXIT("write", 6);
    EXPECT_SAID("book.yaml: error: No such file or directory [no-book]");
}
/* test many at once */

Test(tangle_bad, all_at_once)
{
    small_book(GOOD "```{.c}\nint b;\n```\n\n" CHUNK("unused", "<<undefined>>\n")
               ROOT("/abs.c", "int c;\n") "byte \xff\n");
    EXPECT_EXIT("check", 3);
    EXPECT_SAID("[no-fate]");
    EXPECT_SAID("[unused-chunk]");
    EXPECT_SAID("[undefined-chunk]");
    EXPECT_SAID("[bad-target]");
    EXPECT_SAID("[not-utf-8]");
    EXPECT_SAID("tangle: 5 problems");
    cr_expect(strstr(small_said, "[no-fate]") < strstr(small_said, "[unused-chunk]"));
    cr_expect(strstr(small_said, "[bad-target]") < strstr(small_said, "[not-utf-8]"));
    EXPECT_EXIT("check --json", 3);
    EXPECT_SAID("\"code\": \"undefined-chunk\"");
    EXPECT_SAID("\"line\": 10");
    EXPECT_SAID("\"exit\": 3");
}
/* test bad usage */

Test(tangle_bad, usage)
{
    small_book(GOOD);
    EXPECT_EXIT("wirte", 2);
    EXPECT_SAID("unknown command \"wirte\" [usage]");
    EXPECT_SAID("did you mean \"write\"?");
    EXPECT_EXIT("write --jsno", 2);
    EXPECT_SAID("did you mean \"--json\"?");
    EXPECT_EXIT("check --force", 2);
    EXPECT_SAID("tangle check has no option --force");
    EXPECT_EXIT("where", 2);
    EXPECT_EXIT("where code/x/a.c", 2);
    EXPECT_SAID("expected FILE:LINE");
    EXPECT_EXIT("write -C nowhere", 2);
    EXPECT_EXIT("", 2);
    static const char *commands[] = {"write", "check", "untangle", "where",
                                     "list", "index", "stats", "run"};
    for (int i = 0; i < 8; i++) {
        char help[32];
        snprintf(help, sizeof help, "%s --help", commands[i]);
        EXPECT_EXIT(help, 0);
        EXPECT_SAID("example:\n  $ tangle ");
        EXPECT_SAID("--json");
    }
}
/* test house style */

Test(tangle_bad, house_style)
{
    char *chapter = calloc(1, 10000), *p = chapter;
    p += sprintf(p, "```{.c file=code/x/a.c}\n");
    for (int i = 0; i < 40; i++)
        p += sprintf(p, "int a%d;\n", i);
    sprintf(p, "```\n");
    small_book(chapter);
    EXPECT_EXIT("write", 0);
    EXPECT_EXIT("check --strict", 0);
    sprintf(p, "int b;\n```\n\n```{.text .quote}\n%091d\n%090d\n```\n", 0, 0);
    small_book(chapter);
    EXPECT_EXIT("write", 0);
    EXPECT_EXIT("check", 0);
    EXPECT_SAID(HERE "1:13: warning: 41 lines; a chunk has at most 40 [long-chunk]");
    EXPECT_SAID(HERE "46:91: warning: 91 columns; code has at most 90 [long-line]");
    EXPECT_NOT_SAID(HERE "47");
    EXPECT_EXIT("check --strict", 7);
    EXPECT_SAID("tangle: 2 problems");
    free(chapter);
}

Test(tangle_bad, mentions_in_the_prose)
{
    small_book(ROOT("code/x/a.c", "<<act>>\n") CHUNK("act", "int a;\n")
               "As `<<act>>` shows, and `<<atc>>` does not, `a<<b` is a shift.\n");
    EXPECT_EXIT("write", 0);
    EXPECT_EXIT("check", 0);
    EXPECT_SAID(HERE "9:28: warning: the text mentions chunk \"atc\", which is not there "
                     "[unknown-mention]");
    EXPECT_SAID("did you mean \"act\"?");
    EXPECT_NOT_SAID("\"act\", which");
}
