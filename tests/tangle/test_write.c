/* tests/tangle/test_write.c: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle". */
/* tangle write: the two forms, what is left alone, what is removed, what is refused. */
#include "small.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(tangle_write, .init = small_begin, .fini = small_end);

/* test both forms */
static const char *both =
    "# One\n\n" // the first fence is line 3
    ROOT("code/x/a.c", "<<twice>>\nint main(void)\n{\n    <<body>>\n    return 0;\n}\n")
    CHUNK("twice", "int a;\n") CHUNK("body", "a = 1;\n\nif (a)\n    <<launch>>\n")
    CHUNK("twice", "int b;\n") CHUNK("launch", "kernel\n    <<<1, 2>>>\n    (a);\n");

Test(tangle_write, gives_both_forms)
{
    small_book(both);
    EXPECT_EXIT("write", 0);
    EXPECT_SAID("2 files written, 0 removed, 0 unchanged");
    EXPECT_FILE("code/x/a.c", HEADER("code/x/a.c", "chapters/01-one.md")
                "/* twice */\nint a;\nint b;\nint main(void)\n{\n    /* body */\n"
                "    a = 1;\n\n    if (a)\n        /* launch */\n        kernel\n"
                "            <<<1, 2>>>\n            (a);\n    return 0;\n}\n");
#define AT(line) "#line " line " \"chapters/01-one.md\"\n"
    EXPECT_FILE("build/src/code/x/a.c",
                AT("4") AT("13") "int a;\n" AT("24") "int b;\n" AT("5")
                "int main(void)\n{\n" AT("17") "    a = 1;\n\n    if (a)\n"
                AT("28") "        kernel\n            <<<1, 2>>>\n            (a);\n"
                AT("21") AT("8") "    return 0;\n}\n");
}
/* test comments of each language */
Test(tangle_write, comments_as_each_language_does)
{
    small_book(BLOCK(".yaml file=code/x/a.yaml", "a:\n  <<deep>>\n")
               BLOCK(".yaml #deep", "b: 1\n")
               BLOCK(".sh file=code/x/a.sh", "#!/bin/sh\necho\n")
               BLOCK(".lua file=code/x/a.lua", "return 1\n")
               BLOCK(".json file=code/x/a.json", "{\n  <<fields>>\n}\n")
               BLOCK(".json #fields", "\"a\": 1\n"));
    EXPECT_EXIT("write", 0);
#define TAIL ": from chapters/01-one.md. Edit the chapter, or edit here and run " \
             "\"make untangle\".\n"
    EXPECT_FILE("code/x/a.yaml", "# code/x/a.yaml" TAIL "a:\n  # deep\n  b: 1\n");
    EXPECT_FILE("code/x/a.sh", "#!/bin/sh\n# code/x/a.sh" TAIL "echo\n");
    EXPECT_FILE("code/x/a.lua", "-- code/x/a.lua" TAIL "return 1\n");
    EXPECT_FILE("code/x/a.json", "{\n  \"a\": 1\n}\n");
    EXPECT_FILE("build/src/code/x/a.yaml", "a:\n  b: 1\n");
    cr_expect_eq(access("code/x/a.sh", X_OK), 0, "a script can be executed");
}
/* test what is left alone */
Test(tangle_write, leaves_unchanged_outputs_alone)
{
    small_book("Text.\n\n" ROOT("code/x/a.c", "int a;\n") "More.\n");
    EXPECT_EXIT("write", 0);
    const char *files[] = {"code/x/a.c", "build/src/code/x/a.c", "build/tangle.manifest"};
    for (int i = 0; i < 3; i++)
        small_age(files[i]);
    EXPECT_EXIT("write", 0);
    cr_expect_str_eq(small_said, "", "a run without changes says nothing");
    for (int i = 0; i < 3; i++)
        cr_expect(small_is_old(files[i]), "%s was written again", files[i]);
    small_edit("chapters/01-one.md", "More", "Much more");
    EXPECT_EXIT("write", 0);
    cr_expect(small_is_old(files[0]) && small_is_old(files[1]));
    small_edit("chapters/01-one.md", "Text.\n", "Text.\nAnother line.\n");
    EXPECT_EXIT("write", 0);
    EXPECT_SAID("1 file written, 0 removed, 1 unchanged");
    cr_expect(small_is_old(files[0]) && !small_is_old(files[1]));
}

Test(tangle_write, restores_what_was_deleted)
{
    small_book(ROOT("code/x/a.c", "int a;\n"));
    EXPECT_EXIT("write", 0);
    unlink("build/src/code/x/a.c");
    EXPECT_EXIT("write", 0);
    EXPECT_SAID("1 file written");
    cr_expect(small_exists("build/src/code/x/a.c"));
}

Test(tangle_write, never_touches_files_of_others)
{
    small_book(ROOT("code/x/a.c", "int a;\n"));
    small_put("code/x/mine.c", "int mine;\n");
    small_age("code/x/mine.c");
    EXPECT_EXIT("write", 0);
    small_book(ROOT("code/x/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    cr_expect(small_is_old("code/x/mine.c"));
    small_book(ROOT("code/x/mine.c", "int theirs;\n"));
    EXPECT_EXIT("write", 5);
    EXPECT_SAID("code/x/mine.c: error: exists, and tangle did not write it; it is left "
                "alone [foreign-file]");
    EXPECT_SAID("chapters/01-one.md:1 wants to write it");
    EXPECT_EXIT("write --force", 5);
    EXPECT_FILE("code/x/mine.c", "int mine;\n");
}
/* test stale outputs */

Test(tangle_write, removes_stale_outputs)
{
    small_book(ROOT("code/x/deep/er/a.c", "int a;\n") ROOT("code/x/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    small_book(ROOT("code/x/b.c", "int b;\n"));
    EXPECT_EXIT("check", 5);
    EXPECT_SAID("code/x/deep/er/a.c: error: no chapter has this file any more; run "
                "tangle write [stale-output]");
    EXPECT_EXIT("write", 0);
    EXPECT_SAID("1 file written, 2 removed, 1 unchanged");
    cr_expect(!small_exists("code/x/deep"), "empty folders go with their last file");
    cr_expect(!small_exists("build/src/code/x/deep"));
    cr_expect(small_exists("code/x/b.c"));
}

Test(tangle_write, keeps_stale_outputs_that_were_edited)
{
    small_book(ROOT("code/x/a.c", "int a;\n") ROOT("code/x/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    small_edit("code/x/a.c", "int a", "long a");
    small_book(ROOT("code/x/b.c", "int c;\n"));
    EXPECT_EXIT("write", 5);
    EXPECT_SAID("code/x/a.c: error: no chapter has this file any more, but it was edited "
                "since it was written [edited-stale]");
    EXPECT_FILE("code/x/b.c", HEADER("code/x/b.c", "chapters/01-one.md") "int b;\n");
    EXPECT_EXIT("write --force", 0);
    cr_expect(!small_exists("code/x/a.c"));
}
/* test edited outputs */

Test(tangle_write, refuses_to_overwrite_an_edit)
{
    small_book(ROOT("code/x/a.c", "int a;\n"));
    EXPECT_EXIT("write", 0);
    small_edit("code/x/a.c", "int a", "long a");
    small_edit("chapters/01-one.md", "int a", "char a");
    EXPECT_EXIT("write", 5);
    EXPECT_SAID("code/x/a.c:2:1: error: edited since it was written [edited-output]");
    EXPECT_SAID("to take the edit into the chapter: tangle untangle");
    EXPECT_FILE("code/x/a.c", HEADER("code/x/a.c", "chapters/01-one.md") "long a;\n");
    EXPECT_EXIT("write --force", 0);
    EXPECT_FILE("code/x/a.c", HEADER("code/x/a.c", "chapters/01-one.md") "char a;\n");
}

Test(tangle_write, knows_its_own_after_an_interruption)
{
    small_book(ROOT("code/x/a.c", "int a;\n") ROOT("code/x/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    cr_assert_eq(small_shell("cp -r code old; grep clean build/tangle.manifest > o"), 0);
    small_book(ROOT("code/x/a.c", "int A;\n") ROOT("code/x/b.c", "int B;\n"));
    EXPECT_EXIT("write", 0);
    // As after a power cut between two renames: a.c is new, b.c old, both hashes known.
    cr_assert_eq(small_shell("cp old/x/b.c code/x/b.c && "
                             "h=$(cut -d' ' -f2 o | sed -n 2p) && "
                             "sed -i -E \"s/^(clean [0-9a-f]*) (code.x.b)/\\1,$h \\2/\" "
                             "build/tangle.manifest"), 0);
    small_book(ROOT("code/x/a.c", "int AA;\n") ROOT("code/x/b.c", "int BB;\n"));
    EXPECT_EXIT("write", 0);
    EXPECT_EXIT("check", 0);
}
/* test a fresh clone */

static void clone_it(void)
{
    small_book(ROOT("code/x/a.c", "int a;\n") ROOT("code/x/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    cr_assert_eq(small_shell("git init -q . && printf 'build\\n.said\\n' > .gitignore && "
                             "git add . && git -c user.name=x -c user.email=x@x "
                             "commit -q -m x && rm -rf build"), 0, "%s", small_said);
}

Test(tangle_write, works_in_a_fresh_clone)
{
    clone_it();
    small_age("code/x/a.c");
    EXPECT_EXIT("check", 0);
    EXPECT_EXIT("write", 0);
    EXPECT_SAID("2 files written, 0 removed, 2 unchanged");
    cr_expect(small_is_old("code/x/a.c"));
}

Test(tangle_write, takes_an_edited_chapter_in_a_fresh_clone)
{
    clone_it();
    small_book(ROOT("code/x/a.c", "long a;\n"));
    EXPECT_EXIT("write", 0);
    EXPECT_FILE("code/x/a.c", HEADER("code/x/a.c", "chapters/01-one.md") "long a;\n");
    cr_expect(!small_exists("code/x/b.c"), "it was committed, and no chapter has it now");
}

Test(tangle_write, refuses_an_edited_output_in_a_fresh_clone)
{
    clone_it();
    small_edit("code/x/a.c", "int a", "long a");
    EXPECT_EXIT("write", 5);
    EXPECT_SAID("code/x/a.c:2:1: error: edited since it was written");
    EXPECT_EXIT("untangle", 0);
    EXPECT_EXIT("check", 0);
    EXPECT_FILE("code/x/a.c", HEADER("code/x/a.c", "chapters/01-one.md") "long a;\n");
}

Test(tangle_write, tells_a_commit_that_is_out_of_step)
{
    clone_it();
    small_edit("chapters/01-one.md", "int a", "long a");
    cr_assert_eq(small_shell("git -c user.name=x -c user.email=x@x commit -qam y"), 0);
    EXPECT_EXIT("write", 5);
    EXPECT_SAID("code/x/a.c:2:1: error: committed out of step with its chapter");
    EXPECT_EXIT("write --force", 0);
}

Test(tangle_write, refuses_a_difference_it_knows_nothing_about)
{
    small_book(ROOT("code/x/a.c", "int a;\n"));
    EXPECT_EXIT("write", 0);
    cr_assert_eq(small_shell("rm -rf build"), 0);
    small_edit("code/x/a.c", "int a", "long a");
    EXPECT_EXIT("write", 5);
    EXPECT_SAID("differs from its chapter, and there is no record of which of the two "
                "changed");
    cr_expect(!small_exists("build/src"));
}
/* test all or nothing */

static void two_chapters(const char *one, const char *two)
{
    small_put("book.yaml",
              "title: T\nparts:\n  - chapters:\n"
              "      - {id: one, files: [chapters/01-one.md], owns: [x]}\n"
              "      - {id: two, files: [chapters/02-two.md], owns: [y]}\n");
    small_put("chapters/01-one.md", one);
    small_put("chapters/02-two.md", two);
}

Test(tangle_write, writes_nothing_when_one_chapter_is_wrong)
{
    two_chapters(ROOT("code/x/a.c", "int a;\n"), ROOT("code/y/b.c", "<<nothing>>\n"));
    EXPECT_EXIT("write", 4);
    cr_expect(!small_exists("code") && !small_exists("build/src"));
    two_chapters(ROOT("code/x/a.c", "int a;\n"), ROOT("code/y/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    two_chapters(ROOT("code/x/a.c", "int A;\n"),
                 ROOT("code/y/b.c", "int B;\n") "```{.c}\n");
    small_age("code/x/a.c");
    EXPECT_EXIT("write", 3);
    cr_expect(small_is_old("code/x/a.c"));
}

Test(tangle_write, undoes_what_it_began_when_the_disk_refuses)
{
    two_chapters(ROOT("code/x/a.c", "int a;\n"), ROOT("code/y/b.c", "int b;\n"));
    small_put("build/src/code/y", "a file where a folder should be\n");
    EXPECT_EXIT("write", 6);
    EXPECT_SAID("build/src/code/y/b.c: error: Not a directory [cannot-write]");
    cr_expect(!small_exists("code"), "not even an empty folder");
    cr_assert_eq(small_shell("find . -name '*tangle~*' | grep ."), 1, "%s", small_said);
    cr_expect(!small_exists("build/tangle.manifest"));
    unlink("build/src/code/y");
    EXPECT_EXIT("write", 0);
    EXPECT_EXIT("check", 0);
}

Test(tangle_write, takes_turns_with_another_write)
{
    two_chapters(ROOT("code/x/a.c", "int a;\n"), ROOT("code/y/b.c", "int b;\n"));
    for (int round = 0; round < 5; round++) {
        char value[16];
        snprintf(value, sizeof value, "int a%d;", round);
        small_put("chapters/01-one.md", ROOT("code/x/a.c", "VALUE\n"));
        small_edit("chapters/01-one.md", "VALUE", value);
        cr_expect_eq(small_tangle_twice("write"), 0, "%s", small_said);
    }
    EXPECT_EXIT("check", 0);
}

static const char *no_rename =
    "#include <dlfcn.h>\n#include <errno.h>\n#include <string.h>\n"
    "int rename(const char *from, const char *to)\n{\n"
    "    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, \"rename\");\n"
    "    errno = EIO;\n"
    "    return strstr(to, \"src/code/y\") ? -1 : real(from, to);\n}\n";

Test(tangle_write, puts_everything_back_when_a_rename_fails)
{
    two_chapters(ROOT("code/x/a.c", "int a;\n") ROOT("code/x/old.c", "int o;\n"),
                 ROOT("code/y/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    small_put("no.c", no_rename);
    cr_assert_eq(small_shell("gcc -D_GNU_SOURCE -shared -fPIC -o no.so no.c -ldl && "
                             "cp -r code before"), 0, "%s", small_said);
    two_chapters(ROOT("code/x/a.c", "int A;\n") ROOT("code/x/new.c", "int n;\n"),
                 ROOT("code/y/b.c", "int B;\n"));
    setenv("LD_PRELOAD", "./no.so", 1);
    EXPECT_EXIT("write", 6);
    EXPECT_SAID("build/src/code/y/b.c: error: Input/output error [cannot-write]");
    unsetenv("LD_PRELOAD");
    cr_expect_eq(small_shell("diff -r before code"), 0, "%s", small_said);
    cr_expect_eq(small_shell("find . -name '*tangle*~*' | grep ."), 1, "%s", small_said);
    EXPECT_EXIT("write", 0);
    EXPECT_EXIT("check", 0);
}
/* test broken chapters left out */

Test(tangle_write, keeps_going_past_a_broken_chapter)
{
    two_chapters(ROOT("code/x/a.c", "int a;\n"), ROOT("code/y/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    two_chapters(ROOT("code/x/a.c", "int A;\n"), ROOT("code/y/b.c", "<<nothing>>\n"));
    EXPECT_EXIT("write --keep-going", 4);
    EXPECT_SAID("chapters/02-two.md:2:1: error: no chunk is named \"nothing\"");
    EXPECT_FILE("code/x/a.c", HEADER("code/x/a.c", "chapters/01-one.md") "int A;\n");
    EXPECT_FILE("code/y/b.c", HEADER("code/y/b.c", "chapters/02-two.md") "int b;\n");
    two_chapters(ROOT("code/x/a.c", "int A;\n"), ROOT("code/y/b.c", "int B;\n"));
    EXPECT_EXIT("write", 0);
    EXPECT_EXIT("check", 0);
}

Test(tangle_write, chapters_may_share_a_folder)
{
    two_chapters(ROOT("code/x/a.c", "int a;\n"), ROOT("code/y/b.c", "int b;\n"));
    EXPECT_EXIT("write", 0);
    small_put("chapters/02-two.md", ROOT("code/x/b.c", "int b;\n"));
    EXPECT_EXIT("write", 3);
    EXPECT_SAID("chapter \"two\" does not own folder \"x\"");
    small_edit("book.yaml", "owns: [y]", "owns: [x]");
    EXPECT_EXIT("write", 0);
    EXPECT_FILE("code/x/b.c", HEADER("code/x/b.c", "chapters/02-two.md") "int b;\n");
    cr_expect(!small_exists("code/y/b.c"));
    small_put("chapters/02-two.md", ROOT("code/x/b.c", "<<nothing>>\n"));
    EXPECT_EXIT("write --keep-going", 4);
    EXPECT_FILE("code/x/b.c", HEADER("code/x/b.c", "chapters/02-two.md") "int b;\n");
}
