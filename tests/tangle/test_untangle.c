/* tests/tangle/test_untangle.c: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle". */
/* tangle untangle: edits land in the right chunk, both sides merge, conflicts show. */
#include "small.h"

#include <stdlib.h>
#include <unistd.h>

TestSuite(tangle_back, .init = small_begin, .fini = small_end);

#define FILE_A "code/x/a.c"
#define CHAPTER "chapters/01-one.md"

/* write a book to edit */
static const char *book =
    "# Édition  \n\nTrailing space \t\n\n"
    ROOT(FILE_A, "<<declare>>\n\nvoid f(void)\n{\n    <<act>>\n    done();\n}\n")
    "Prose <<act>> here.\n\n"
    CHUNK("declare", "int one;\n") CHUNK("declare", "int two;\n")
    CHUNK("act", "start();\nwhile (busy())\n    <<turn>>\n") CHUNK("turn", "wait();\n")
    ROOT("tests/x/b.c", "int b;\n") "\n\nThe end, without a newline";

static void begin(void)
{
    small_book(book);
    EXPECT_EXIT("write", 0);
}

/* The edit of one line of an output gives the book with that edit, and nothing else. */
static void lands(const char *from, const char *to, const char *chapter_from,
                  const char *chapter_to)
{
    begin();
    small_edit(FILE_A, from, to);
    char *edited = small_get(FILE_A);
    EXPECT_EXIT("untangle", 0);
    EXPECT_FILE(FILE_A, edited);
    char *after = small_get(CHAPTER);
    small_put(CHAPTER, book);
    small_edit(CHAPTER, chapter_from, chapter_to);
    EXPECT_FILE(CHAPTER, after);
    EXPECT_EXIT("check", 0);
    free(edited);
    free(after);
    cr_assert_eq(small_shell("rm -rf code tests build"), 0);
}
/* test the round trip */

Test(tangle_back, round_trip_changes_nothing)
{
    begin();
    const char *files[] = {CHAPTER, FILE_A, "build/src/" FILE_A, "build/tangle.manifest",
                           "build/tangle.base", "tests/x/b.c"};
    for (int i = 0; i < 6; i++)
        small_age(files[i]);
    EXPECT_EXIT("untangle", 0);
    EXPECT_SAID("no edits in code/ or tests/ to take back");
    for (int i = 0; i < 6; i++)
        cr_expect(small_is_old(files[i]), "%s was written", files[i]);
    EXPECT_FILE(CHAPTER, book);
}
/* test where edits land */

Test(tangle_back, edits_land_in_their_chunk)
{
    lands("wait();", "wait(1);", "wait();", "wait(1);");
    lands("start();", "start();\n    again();", "start();", "start();\nagain();");
    lands("    /* act */\n", "    /* act */\n    first();\n", "start();",
          "first();\nstart();");
    lands("        wait();\n", "        wait();\n        more();\n", "wait();",
          "wait();\nmore();");
    lands("        wait();\n", "        wait();\n    nearly();\n", "    done();",
          "    nearly();\n    done();");
}

Test(tangle_back, edits_land_by_their_indentation)
{
    // Too little indentation for the chunk above: the line belongs to the block around.
    lands("}\n", "}\nint last;\n", "    done();\n}\n", "    done();\n}\nint last;\n");
    lands("int two;\n", "int two;\nint three;\n", "int two;\n", "int two;\nint three;\n");
    lands("int one;\n", "int one;\n\nint more;\n", "int one;\n",
          "int one;\n\nint more;\n");
    lands("    start();\n", "", "start();\n", "");
    lands("{\n", "{\n    int local;\n", "{\n", "{\n    int local;\n");
}
/* test edits across chunks */

Test(tangle_back, an_edit_across_chunks_is_taken_apart)
{
    begin();
    small_edit(FILE_A, "int one;\nint two;\n", "long one;\nlong two;\n");
    EXPECT_EXIT("untangle", 0);
    EXPECT_SAID("2 blocks changed in 1 chapter file");
    char *after = small_get(CHAPTER);
    cr_expect(strstr(after, "#declare}\nlong one;\n```"), "%s", after);
    cr_expect(strstr(after, "#declare}\nlong two;\n```"), "%s", after);
    small_edit(FILE_A, "long one;\nlong two;\n",
               "long one = 1;\nint added;\nlong two = 2;\n");
    EXPECT_EXIT("untangle", 0);
    after = small_get(CHAPTER);
    cr_expect(strstr(after, "#declare}\nlong one = 1;\nint added;\n```"), "%s", after);
    cr_expect(strstr(after, "#declare}\nlong two = 2;\n```"), "%s", after);
    EXPECT_EXIT("check", 0);
}

Test(tangle_back, two_files_at_once)
{
    begin();
    small_edit(FILE_A, "done();", "over();");
    small_edit("tests/x/b.c", "int b;", "long b;");
    EXPECT_EXIT("untangle", 0);
    EXPECT_SAID("chapters/01-one.md:5: code/x/a.c");
    EXPECT_SAID("2 blocks changed in 1 chapter file");
    EXPECT_EXIT("untangle", 0);
    EXPECT_SAID("no edits");
}
/* test edits of chunks in several places */

Test(tangle_back, a_chunk_in_two_places_must_be_edited_alike)
{
    small_book(ROOT(FILE_A, "<<c>>\nint between;\n    <<c>>\n") CHUNK("c", "int c;\n")
               ROOT("code/x/b.c", "<<c>>\n"));
    EXPECT_EXIT("write", 0);
    small_edit(FILE_A, "int c;", "long c;");
    EXPECT_EXIT("untangle", 5);
    EXPECT_SAID(
        "chapters/01-one.md:7:8: error: \"c\" was edited in one place and not alike in "
        "another [uneven-edit]");
    EXPECT_SAID("edited at code/x/a.c:3, otherwise at code/x/a.c:6");
    EXPECT_SAID("=   - int c;\n      =   + long c;");
    small_edit(FILE_A, "int c;", "long c;");
    EXPECT_EXIT("untangle", 5);
    EXPECT_SAID("edited at code/x/a.c:3, otherwise at code/x/b.c:3");
    EXPECT_EXIT("write", 5);
    small_edit("code/x/b.c", "int c;", "long c;");
    EXPECT_EXIT("untangle", 0);
    EXPECT_SAID("1 block changed");
    EXPECT_EXIT("check", 0);
}
/* test merging both sides */

Test(tangle_back, both_sides_merge_where_they_differ)
{
    begin();
    small_edit(FILE_A, "wait();", "sleep();");
    small_edit(CHAPTER, "Prose", "Much more prose\n\nand");
    small_edit(CHAPTER, "start();", "begin();");
    EXPECT_EXIT("write", 5);
    EXPECT_EXIT("untangle", 0);
    char *chapter = small_get(CHAPTER), *code = small_get(FILE_A);
    cr_expect(strstr(chapter, "Much more prose\n\nand <<act>> here."));
    cr_expect(strstr(chapter, "begin();") && strstr(chapter, "sleep();"));
    cr_expect(strstr(code, "begin();") && strstr(code, "sleep();"), "%s", code);
    EXPECT_EXIT("check", 0);
    small_edit(CHAPTER, "sleep", "nap");
    EXPECT_EXIT("write", 0); // the merged file is the tool's own again
}

Test(tangle_back, both_sides_changed_is_refused_and_shown)
{
    begin();
    small_edit(FILE_A, "wait();", "sleep();");
    small_edit(CHAPTER, "wait();", "nap();");
    char *chapter = small_get(CHAPTER), *code = small_get(FILE_A);
    EXPECT_EXIT("untangle", 5);
    EXPECT_SAID(
        "error: \"turn\" was changed in the chapter and in code/x/a.c [both-changed]");
    EXPECT_SAID("in the chapter:\n      =   - wait();\n      =   + nap();");
    EXPECT_SAID("in code/x/a.c:\n      =   - wait();\n      =   + sleep();");
    EXPECT_FILE(CHAPTER, chapter);
    EXPECT_FILE(FILE_A, code);
    small_edit(CHAPTER, "nap();", "sleep();"); // both alike: no conflict
    EXPECT_EXIT("untangle", 0);
    EXPECT_EXIT("check", 0);
}

Test(tangle_back, merges_although_a_part_was_put_in_before)
{
    begin();
    small_edit(FILE_A, "int two;", "long two;");
    small_edit(CHAPTER, CHUNK("declare", "int two;\n"),
               CHUNK("declare", "int between;\n") CHUNK("declare", "int two;\n"));
    EXPECT_EXIT("untangle", 0);
    char *code = small_get(FILE_A);
    cr_expect(strstr(code, "int one;\nint between;\nlong two;\n"), "%s", code);
}

Test(tangle_back, an_edit_of_a_chunk_that_is_gone)
{
    begin();
    small_edit(FILE_A, "wait();", "sleep();");
    small_edit(CHAPTER, CHUNK("turn", "wait();\n"), "");
    small_edit(CHAPTER, "    <<turn>>\n", "    turn();\n");
    EXPECT_EXIT("untangle", 5);
    EXPECT_SAID("an edit of \"turn\", which is in the chapters no more [block-gone]");
}
/* test edits that cannot be taken */

static void refused(const char *from, const char *to, const char *says)
{
    begin();
    small_edit(FILE_A, from, to);
    char *code = small_get(FILE_A);
    int status = small_tangle("untangle");
    cr_expect(status == 5 || status == 3 || status == 4, "%s", small_said);
    EXPECT_SAID(says);
    EXPECT_FILE(CHAPTER, book);
    EXPECT_FILE(FILE_A, code);
    cr_assert_eq(small_shell("rm -rf code tests build"), 0);
}

Test(tangle_back, what_no_chunk_can_say_is_refused)
{
    refused("    /* act */\n", "",
            "the comment that marks a chunk in \"code/x/a.c\" must stay");
    refused("from chapters", "by chapters",
            "the first line names the chapter and must stay");
    refused("/* code", "int zero;\n/* code",
            "the first line names the chapter and must stay");
    refused("    start();\n", "start();\n", "indented less than its chunk \"act\"");
    refused("int one;\n", "int one;\n```\n", "[no-fate]");
    refused("int one;\n", "int one;\n<<act>>\n", "[no-way-back]");
    refused("int one;\n", "int one;\n<<none>>\n", "no chunk is named \"none\"");
    refused("int one;\n", "int \xff;\n", "is not UTF-8");
}

Test(tangle_back, white_space_that_editors_leave_is_tidied)
{
    begin();
    small_edit(FILE_A, "wait();\n", "wait();\n    \n");
    small_edit("tests/x/b.c", "int b;\n", "long b;"); // no newline at the end
    EXPECT_EXIT("untangle", 0);
    EXPECT_EXIT("check", 0);
    char *code = small_get(FILE_A);
    cr_expect(strstr(code, "wait();\n\n    done"), "%s", code);
}

Test(tangle_back, works_without_a_snapshot_or_git)
{
    begin();
    cr_assert_eq(small_shell("rm -rf build"), 0);
    small_edit(FILE_A, "wait();", "sleep();");
    EXPECT_EXIT("untangle", 0);
    EXPECT_EXIT("check", 0);
    small_edit(CHAPTER, "sleep();", "wait();");
    EXPECT_FILE(CHAPTER, book);
}
