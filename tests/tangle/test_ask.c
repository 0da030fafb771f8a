/* tests/tangle/test_ask.c: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle". */
/* tangle where, list, index and stats. */
#include "small.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

TestSuite(tangle_ask, .init = small_begin, .fini = small_end);

/* write a book to ask */
static void begin(void)
{
    small_book("# One\n\nThree words here, and more: 12.\n\n"
               ROOT("code/x/a.c", "<<c>>\n\nint between;\n    <<c>>\n")
               CHUNK("c", "int c;\n\nint d;\n") CHUNK("c", "int e;\n")
               BLOCK(".sh .run #say", "echo \"a \\\"b\\\"\"\n")
               "::: {.exercise #ex-one}\nDo.\n:::\n\n"
               BLOCK(".c .solution of=ex-one", "int f;\n"));
    EXPECT_EXIT("write", 0);
}
/* test where */

Test(tangle_ask, where_in_both_directions)
{
    begin();
    EXPECT_EXIT("where chapters/01-one.md:13", 0);
    cr_expect_str_eq(small_said,
                     "code/x/a.c:3  c\ncode/x/a.c:10  c\n"
                     "build/src/code/x/a.c:3  c\nbuild/src/code/x/a.c:12  c\n");
    EXPECT_EXIT("where code/x/a.c:12", 0);
    cr_expect_str_eq(small_said, "chapters/01-one.md:15  c\n");
    EXPECT_EXIT("where build/src/code/x/a.c:7", 0);
    cr_expect_str_eq(small_said, "chapters/01-one.md:19  c\n");
    EXPECT_EXIT("where code/x/a.c:2", 0); // a chunk's comment: the reference
    cr_expect_str_eq(small_said, "chapters/01-one.md:6  code/x/a.c\n");
    EXPECT_EXIT("where --json code/x/a.c:3", 0);
    EXPECT_SAID("\"file\": \"chapters/01-one.md\"");
    cr_assert_eq(chdir("code/x"), 0);
    EXPECT_EXIT("where a.c:3", 0); // from below the book's folder
    cr_expect_str_eq(small_said, "chapters/01-one.md:13  c\n");
    cr_assert_eq(chdir("../.."), 0);
}

Test(tangle_ask, where_there_is_nothing)
{
    begin();
    EXPECT_EXIT("where chapters/01-one.md:3", 4);
    EXPECT_SAID("chapters/01-one.md:3:1: error: this line is not tangled");
    EXPECT_EXIT("where chapters/01-one.md:999", 4);
    EXPECT_EXIT("where code/x/a.c:999", 4);
    EXPECT_SAID("has no line 999");
    EXPECT_EXIT("where code/x/b.c:1", 4);
    EXPECT_SAID("did you mean \"code/x/a.c\"?");
}

Test(tangle_ask, where_in_an_edited_file)
{
    begin();
    small_edit("code/x/a.c", "int between;\n", "int added;\nint between;\n");
    EXPECT_EXIT("where code/x/a.c:9", 0);
    cr_expect_str_eq(small_said, "chapters/01-one.md:8  code/x/a.c\n");
    EXPECT_EXIT("where code/x/a.c:8", 5);
    EXPECT_SAID("this line is an edit that is in no chapter yet");
}
/* test index */

static json_t *index_of(void)
{
    EXPECT_EXIT("index", 0);
    json_error_t error;
    json_t *v = json_loads(small_said, 0, &error);
    cr_assert(v, "%s in %s", error.text, small_said);
    return v;
}

Test(tangle_ask, index_for_the_weave)
{
    begin();
    json_t *v = index_of(), *blocks, *uses, *exercise;
    const char *title, *inside, *command, *status;
    int line, use_line, ex_line;
    cr_assert_eq(json_unpack(v, "{s:{s:s}, s:{s:{s:o, s:o}}, s:{s:{s:s, s:s}}, s:{s:o}}",
                             "book", "title", &title, "chunks", "c", "blocks", &blocks,
                             "uses", &uses, "runs", "say", "command", &command, "status",
                             &status, "exercises", "ex-one", &exercise),
                 0);
    cr_expect_str_eq(title, "Small");
    cr_expect_eq(json_array_size(blocks), 2);
    json_unpack(json_array_get(blocks, 1), "{s:i}", "line", &line);
    cr_expect_eq(line, 18);
    json_unpack(json_array_get(uses, 1), "{s:i, s:s}", "line", &use_line, "inside",
                &inside);
    cr_expect_eq(use_line, 9);
    cr_expect_str_eq(inside, "code/x/a.c");
    cr_expect_str_eq(command, "echo \"a \\\"b\\\"\"");
    cr_expect_str_eq(status, "missing");
    cr_assert_eq(json_unpack(exercise, "{s:{s:i}}", "solution", "line", &ex_line), 0);
    cr_expect_eq(ex_line, 30);
    EXPECT_EXIT("index --lua", 0);
    EXPECT_SAID("return {\n  book = {\n    title = \"Small\"");
    EXPECT_SAID("[\"code/x/a.c\"] = {");
    EXPECT_SAID("command = \"echo \\\"a \\\\\\\"b\\\\\\\"\\\"\"");
}
/* test identifiers */

static const char *kinds =
    ROOT("code/x/a.c",
         "#define DLS_MOST 8 /* dls_in_comment(1) */\n"
         "typedef struct dls_pair {\n    int a;\n} dls_pair;\n"
         "typedef int (*dls_visit)(int);\n"
         "typedef float dls_row[DLS_MOST];\n"
         "dls_pair dls_make(int a);\n"
         "static int helper(void)\n{\n    return dls_made_up(1);\n}\n"
         "dls_pair dls_make(int a)\n{\n    const char *s = \"dls_make\";\n"
         "    return (dls_pair){a};\n}\n"
         "int cudaLikeCall(void)\n{\n    return dls_make(1).a;\n}\n"
         "Test(x, name)\n{\n}\n")
    BLOCK(".cuda file=code/x/k.cu",
          "__global__ static void add_kernel(float *x)\n{\n}\n"
          "__global__ void __launch_bounds__(256) scale_kernel(float *x)\n{\n}\n"
          "int plain(void)\n{\n    return 0;\n}\ntypedef struct {\n} model;\n");

static void expect_kind(json_t *all, const char *name, const char *kind, int line,
                        int uses)
{
    const char *got = NULL;
    int at = 0;
    json_t *list = NULL;
    int err = json_unpack(json_object_get(all, name), "{s:s, s:{s:i}, s:o}", "kind", &got,
                          "defined", "line", &at, "uses", &list);
    cr_assert_eq(err, 0, "%s is missing", name);
    cr_expect_str_eq(got, kind, "%s", name);
    cr_expect_eq(at, line, "%s: line %d", name, at);
    cr_expect_eq((int)json_array_size(list), uses, "%s: %zu uses", name,
                 json_array_size(list));
}

Test(tangle_ask, identifiers)
{
    small_book(kinds);
    json_t *all = json_object_get(index_of(), "identifiers");
    expect_kind(all, "DLS_MOST", "macro", 2, 1);
    expect_kind(all, "dls_pair", "type", 3, 4);
    expect_kind(all, "dls_visit", "type", 6, 0);
    expect_kind(all, "dls_row", "type", 7, 0);
    expect_kind(all, "dls_make", "function", 13, 2);
    expect_kind(all, "cudaLikeCall", "function", 18, 0);
    expect_kind(all, "add_kernel", "kernel", 28, 0);
    expect_kind(all, "scale_kernel", "kernel", 31, 0);
    cr_expect_eq(json_object_size(all), 8);
}
/* test stats and list */

Test(tangle_ask, stats_and_list)
{
    begin();
    EXPECT_EXIT("stats --json", 0);
    EXPECT_SAID("\"words\": 8");
    EXPECT_SAID("\"code_lines\": 6");
    EXPECT_SAID("\"median\": 3");
    EXPECT_SAID("\"max\": 4");
    EXPECT_EXIT("list", 0);
    EXPECT_SAID("root   code/x/a.c");
    EXPECT_SAID("run    say");
    EXPECT_SAID("task   ex-one");
    EXPECT_EXIT("list chunks", 0);
    EXPECT_NOT_SAID("root");
    EXPECT_SAID("4 lines  chapters/01-one.md:12");
    EXPECT_EXIT("list --json runs", 0);
    EXPECT_SAID("\"status\": \"missing\"");
    EXPECT_EXIT("list nonsense", 2);
}
